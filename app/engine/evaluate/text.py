"""Text kernels on values of one scope: they evaluate dictionaries, then gather codes.

Case-insensitive comparison means equality after mapping each character to lower case (Unicode's simple mapping).
Regular expressions are RE2's, which take linear time for any expression.
"""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from app.engine.evaluate.columns import (
    Array,
    Bools,
    Column,
    Pairwise,
    Text,
    Value,
    Values,
    compacted,
    condition,
    encoded,
    narrow_codes,
    ranks,
    unified,
)
from app.engine.evaluate.exact import doubles
from app.engine.evaluate.failure import EvaluationError
from app.engine.evaluate.memo import Call, RowKernel
from app.pql.check.sizes import MOST_WILDCARDS

DictionaryTest = Callable[[pa.Array], pa.Array]

_FEW = 3
_ORDER: dict[str, Pairwise] = {
    "eq": pc.equal,
    "ne": pc.not_equal,
    "lt": pc.less,
    "le": pc.less_equal,
    "gt": pc.greater,
    "ge": pc.greater_equal,
}
_MIRRORED = {"eq": "eq", "ne": "ne", "lt": "gt", "le": "ge", "gt": "lt", "ge": "le"}

_WITH_CONSTANT: dict[str, Callable[[pa.Array, str], pa.Array]] = {
    "equals": pc.equal,
    "starts_with": pc.starts_with,
    "ends_with": pc.ends_with,
    "contains": pc.match_substring,
    "like": lambda texts, pattern: _like(texts, pattern),
}
_PAIRWISE: dict[str, Pairwise] = {
    "equals": lambda texts, others: texts == others,
    "starts_with": np.strings.startswith,
    "ends_with": np.strings.endswith,
    "contains": lambda texts, others: np.strings.find(texts, others) >= 0,
}


def matching(text: Text, test: DictionaryTest) -> Bools:
    """Which rows have a text that passes; null does not pass."""
    text = compacted(text)
    passed = test(text.dictionary).to_numpy(zero_copy_only=False)
    hits = np.flatnonzero(passed)
    if len(hits) > _FEW:
        matches: Bools = text.lookup(np.append(passed, False))
        return matches
    result = np.zeros(len(text), np.bool_)
    for hit in hits:
        result |= text.codes == text.codes.dtype.type(hit)
    return result


def compared_text(op: str, a: Text, b: Text) -> Bools:
    """Compares texts by code point."""
    if len(a) == 1 and len(b) != 1:
        return compared_text(_MIRRORED[op], b, a)
    if len(b) == 1:
        other = only(b)
        if other is None:
            return np.zeros(len(a), np.bool_)
        return matching(a, lambda texts: _ORDER[op](texts, other))
    valid = a.valid & b.valid
    left, right = unified([a, b])
    if op in ("eq", "ne"):
        return np.asarray((left.codes == right.codes) == (op == "eq")) & valid
    of = ranks(Text(np.arange(len(left.dictionary)), left.dictionary))[0]
    of = np.append(of, -1)
    test = {"lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal}[op]
    return np.asarray(test(left.lookup(of), right.lookup(of))) & valid


def only(text: Text) -> str | None:
    """The text of a constant."""
    code = int(text.codes[0])
    return None if code < 0 else str(text.dictionary[code].as_py())


def tested(name: str, text: Text, other: Text, with_case: Bools) -> Bools:
    """A positive test (`starts_with`, `like`, …) for each row; false for null."""
    if len(with_case) != 1:
        sensitive = tested(name, text, other, np.ones(1, np.bool_))
        return np.where(with_case, sensitive, tested(name, text, other, np.zeros(1, np.bool_)))
    if not with_case[0]:
        text, other = lowered(text), lowered(other)
    if len(other) == 1:
        pattern = only(other)
        if pattern is None:
            return np.zeros(len(text), np.bool_)
        return matching(text, lambda texts: _WITH_CONSTANT[name](texts, pattern))
    return _for_pairs(text, other, _PAIRWISE.get(name) or _by_pattern(_WITH_CONSTANT[name]))


def lowered(text: Text) -> Text:
    text = compacted(text)
    lower = encoded(pc.utf8_lower(text.dictionary))
    return Text(narrow_codes(text.lookup(np.append(lower.codes, -1)), len(lower.dictionary)), lower.dictionary)


def like_regex(pattern: str) -> str:
    """`%` matches any text, `_` one character, everything else itself.

    >>> like_regex("a.%_")
    '(?s)\\\\Aa\\\\..*.\\\\z'
    """
    parts = (".*" if mark == "%" else "." if mark == "_" else re.escape(mark) for mark in pattern)
    return rf"(?s)\A{''.join(parts)}\z"


def _like(texts: pa.Array, pattern: str) -> pa.Array:
    """A pattern from the data with more `%` than allowed in an expression matches nothing."""
    if pattern.count("%") > MOST_WILDCARDS:
        return pa.array(np.zeros(len(texts), np.bool_))
    return pc.match_substring_regex(texts, like_regex(pattern))


def text_test(call: Call, text: Value, other: Value, case: Value) -> Value:
    subject, pattern, flag = _text(text), _text(other), _flag(case)
    name, negative = positive(call.node.op)
    matches = tested(name, subject, pattern, flag)
    if negative:
        matches = ~matches & subject.valid & pattern.valid
    return condition(matches & _known(case))


def positive(name: str) -> tuple[str, bool]:
    """The positive form of a test, and whether the test is negative.

    >>> positive("not_ends_with"), positive("like")
    (('ends_with', True), ('like', False))
    """
    return name.removeprefix("not_"), name.startswith("not_")


def compare_any(call: Call, text: Value, among: Value, case: Value) -> Value:
    """Any text of a list or, for a negative test, all of them; nulls in the list are ignored."""
    name, negative = positive(call.node.payload[0])
    subject, flag = _text(text), _flag(case)
    if not isinstance(among, Array):
        raise TypeError("a list of texts was expected")
    elements = _text(among.element)
    if len(among) == 1 and len(flag) == 1:
        matches = np.zeros(len(subject), np.bool_)
        for at in np.flatnonzero(elements.valid):
            matches |= tested(name, subject, elements.take(np.array([at])), flag)
    else:
        everyone = among if len(among) > 1 else among.take(np.zeros(call.n, np.intp))
        subject = subject if len(subject) == call.n else subject.take(np.zeros(call.n, np.intp))
        parent = everyone.rows.parent
        flags = flag if len(flag) == 1 else flag[parent]
        hit = tested(name, subject.take(parent), _text(everyone.element), flags)
        matches = np.zeros(call.n, np.bool_)
        matches[parent[hit]] = True
    valid = subject.valid & _known(case)
    if among.valid is not None:
        valid = valid & among.valid
    return condition((~matches if negative else matches) & valid)


def matches(call: Call, text: Value, regex: Value) -> Value:
    subject, pattern = _text(text), _text(regex)
    if len(pattern) == 1:
        source = only(pattern)
        if source is None or (call.node.operands[1].op != "const" and not valid_regex(source)):
            return condition(np.zeros(len(subject), np.bool_))
        _check_regex(source)
        return condition(matching(subject, lambda texts: pc.match_substring_regex(texts, source)))
    return condition(_for_pairs(subject, pattern, _by_pattern(_search)))


def regex_group(call: Call, text: Value, regex: Value, number: Value) -> Value:
    subject, pattern = _text(text), _text(regex)
    if not isinstance(number, Column):
        raise TypeError("a group number was expected")
    if call.node.operands[1].op == "const":
        _check_regex(only(pattern) or "")
    if len(pattern) == 1 and len(number) == 1:
        source = only(pattern)
        if source is None or not _present(number)[0] or not valid_regex(source):
            return encoded(pa.nulls(len(subject), pa.string()))
        subject = compacted(subject)
        groups = encoded(_group(subject.dictionary, source, float(number.values[0])))
        codes = subject.lookup(np.append(groups.codes, -1))
        return Text(narrow_codes(codes, len(groups.dictionary)), groups.dictionary)
    single_rows = np.zeros(call.n, np.intp)
    subject, pattern = (column if len(column) == call.n else column.take(single_rows) for column in (subject, pattern))
    group_numbers = (
        np.where(_present(number), doubles(number.values), -1.0) if len(number) == call.n else np.full(call.n, -1.0)
    )
    if len(number) == 1 and _present(number)[0]:
        group_numbers = np.full(call.n, number.values[0])
    captured = np.full(call.n, None, object)
    kinds, kind_of = np.unique(np.stack([pattern.codes.astype(np.float64), group_numbers]), axis=1, return_inverse=True)
    for at, (code, group) in enumerate(kinds.T):
        rows = np.flatnonzero(kind_of == at)
        source = str(pattern.dictionary[int(code)].as_py()) if code >= 0 else None
        if source is not None and valid_regex(source):
            some = subject.take(rows)
            texts = some.dictionary.take(pa.array(np.where(some.valid, some.codes, 0), mask=~some.valid))
            captured[rows] = _group(texts, source, float(group)).to_pylist()
    return encoded(pa.array(captured, pa.string()))


def valid_regex(source: str) -> bool:
    try:
        pc.match_substring_regex(pa.array([""]), source)
    except pa.ArrowInvalid:
        return False
    return True


def capture_groups(source: str) -> list[int]:
    r"""The positions of a regular expression's capture groups, in order.

    >>> capture_groups(r"(a)[(](?:b)\((?P<n>c)")
    [0, 13]
    """
    opened, at, in_class = [], 0, False
    while at < len(source):
        mark = source[at]
        if source.startswith(r"\Q", at):
            end = source.find(r"\E", at)
            at = len(source) if end < 0 else end
        elif mark == "\\":
            at += 1
        elif in_class:
            in_class = mark != "]"
        elif mark == "[":
            in_class = True
            at += 2 if source.startswith("[^]", at) else 1 if source.startswith("[]", at) else 0
        elif mark == "(" and (source[at + 1 : at + 2] != "?" or source[at + 1 : at + 4] == "?P<" or _named(source, at)):
            opened.append(at)
        at += 1
    return opened


def _named(source: str, at: int) -> bool:
    return source[at + 1 : at + 3] == "?<" and source[at + 3 : at + 4] not in ("=", "!")


def _group(texts: pa.Array, source: str, number: float) -> pa.Array:
    """The text captured by a group; null if the expression or the group did not match."""
    opens = capture_groups(source)
    if number != np.trunc(number) or not 0 <= number <= len(opens):
        return pa.nulls(len(texts), pa.string())
    for which, at in reversed(list(enumerate(opens, 1))):
        after = source.index(">", at) + 1 if source[at + 1 : at + 2] == "?" else at + 1
        source = f"{source[:at]}(?P<g{which}>{source[after:]}"
    name = f"g{int(number)}"
    spans = pc.extract_regex_span(texts, f"(?P<g0>{source})")
    caught = pc.struct_field(spans, name).is_valid()
    group_texts = pc.struct_field(pc.extract_regex(texts, f"(?P<g0>{source})"), name)
    return pc.if_else(caught, group_texts, pa.scalar(None, pa.string()))


def _check_regex(source: str) -> None:
    try:
        pc.match_substring_regex(pa.array([""]), source)
    except pa.ArrowInvalid as problem:
        message = str(problem).removeprefix("Invalid regular expression: ")
        raise EvaluationError(
            "INVALID_EXPRESSION", f'the regular expression "{source}" is not valid: {message}'
        ) from None


def _search(texts: pa.Array, source: str) -> pa.Array:
    if not valid_regex(source):
        return pa.array(np.zeros(len(texts), np.bool_))
    return pc.match_substring_regex(texts, source)


def _by_pattern(test: Callable[[pa.Array, str], pa.Array]) -> Pairwise:
    """A test of a constant against patterns: once per distinct pattern."""

    def pairwise(texts: Values, patterns: Values) -> NDArray[np.bool_]:
        matches = np.zeros(len(texts), np.bool_)
        different, which = np.unique(patterns, return_inverse=True)
        for at, pattern in enumerate(different):
            rows = np.flatnonzero(which == at)
            subjects = pa.array(texts[rows].astype(object), pa.string())
            matches[rows] = test(subjects, str(pattern)).to_numpy(zero_copy_only=False)
        return matches

    return pairwise


def _for_pairs(text: Text, other: Text, test: Pairwise) -> Bools:
    """A test of two columns: once per distinct pair of texts."""
    if len(text) == 1:
        text = text.take(np.zeros(len(other), np.intp))
    rows = np.flatnonzero(text.valid & other.valid)
    size = max(1, len(other.dictionary))
    pairs = text.codes[rows].astype(np.int64) * size + other.codes[rows]
    different, which = np.unique(pairs, return_inverse=True)
    passed = test(_strings(text.dictionary, different // size), _strings(other.dictionary, different % size))
    matches = np.zeros(len(text), np.bool_)
    matches[rows] = np.asarray(passed, np.bool_)[which]
    return matches


def _strings(dictionary: pa.Array, codes: NDArray[np.int64]) -> Values:
    return np.array(dictionary.take(pa.array(codes)).to_pylist(), dtype=np.dtypes.StringDType())


def _text(value: Value) -> Text:
    if isinstance(value, Text):
        return value
    if isinstance(value, Column) and not _present(value).any():
        return encoded(pa.nulls(len(value), pa.string()))  # the literal null
    raise TypeError(f"a text was expected, not {type(value).__name__}")


def _flag(value: Value) -> Bools:
    if not isinstance(value, Column):
        raise TypeError("a case flag was expected")
    return value.values


def _known(value: Value) -> Any:
    return True if value.valid is None or not isinstance(value, Column) else value.valid


def _present(value: Column) -> Bools:
    return np.ones(len(value), np.bool_) if value.valid is None else value.valid


KERNELS: dict[str, RowKernel] = {
    **dict.fromkeys(
        [
            prefix + name
            for prefix in ("", "not_")
            for name in ("like", "starts_with", "ends_with", "contains", "equals")
        ],
        text_test,
    ),
    "compare": compare_any,
    "matches": matches,
    "regex_group": regex_group,
}

"""The table of PQL functions, one row each, used by the checker, the printer's readers and the language service; knows
no trees.

A new function needs one row here, one kernel in the engine, and test cases. A row needs no builder if its operation
takes the receiver and the arguments in order; other functions have a builder in `calls`.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Receiver(StrEnum):
    """What a function is called on; `NONE` marks a free function. Tests and readings of scalars also accept arrays of
    them."""

    NONE = ""
    TEXT = "string"
    TIME = "date or timestamp"
    ARRAY = "array"
    MAP = "map"
    ANY = "any"


class Kind(StrEnum):
    """What a parameter accepts. Kinds from `CONDITION` to `KEY` are evaluated for each element of the receiver."""

    TEXT = "string"
    FLAG = "boolean"
    NUMBER = "number"
    REGEX = "regular expression"
    GROUP = "number of a group"
    TEST = "name of a string test"
    SEGMENT = "id of a segment"
    SUBJECT = "string to test"
    TEXTS = "array<string>"
    ITEM = "element"
    ITEMS = "array"
    ANY = "value"
    TEST_RESULT = "condition"
    CONDITION = "condition on the element"
    VALUE = "expression on the element"
    MEASURE = "number of the element"
    ORDERED = "ordered value of the element"
    RANK = "ordered single value of the element"
    KEY = "key of the element"
    ENTRY_KEY = "key of an entry"


PER_ELEMENT: Final = frozenset(
    {Kind.CONDITION, Kind.VALUE, Kind.MEASURE, Kind.ORDERED, Kind.RANK, Kind.KEY, Kind.ENTRY_KEY}
)


class Result(StrEnum):
    """The type of a call. The last six derive from the receiver or an argument."""

    BOOLEAN = "boolean"
    NUMBER = "number"
    TEXT = "string"
    DATE = "date"
    TEXTS = "array<string>"
    SAME = "the same array"
    ELEMENT = "an element"
    MAPPED = "array of the results"
    MEASURED = "type of the argument"
    GROUPS = "array of {key, values}"
    ENTRY = "a value of the map"
    ENTRIES = "array of the map's values"
    BRANCH = "type of the branches"
    MAP_ENTRY = "an entry of a map"


@dataclass(frozen=True, slots=True)
class Parameter:
    name: str
    kind: Kind
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Function:
    """`op` is the `core` operation; `example` is an expression on the test fixture."""

    name: str
    receiver: Receiver
    parameters: tuple[Parameter, ...]
    result: Result
    op: str
    description: str
    example: str

    @property
    def least(self) -> int:
        return sum(not parameter.optional for parameter in self.parameters)

    @property
    def most(self) -> int:
        return len(self.parameters)

    @property
    def signature(self) -> str:
        """The signature shown to users: `string.equals(text, caseSensitive?) → boolean`."""
        inner = ", ".join(f"{p.name}{'?' if p.optional else ''}" for p in self.parameters)
        owner = f"{self.receiver}." if self.receiver is not Receiver.NONE else ""
        return f"{owner}{self.name}({inner}) → {self.result}"


_CASE: Final = Parameter("caseSensitive", Kind.FLAG, optional=True)
_OTHER: Final = (Parameter("text", Kind.TEXT), _CASE)
_CONDITION: Final = (Parameter("condition", Kind.CONDITION),)
_NUMBER_OF: Final = (Parameter("value", Kind.MEASURE, optional=True),)
_ORDERED_OF: Final = (Parameter("value", Kind.ORDERED, optional=True),)
_RANKED: Final = (Parameter("value", Kind.RANK), Parameter("n", Kind.NUMBER))
_ARRAY: Final = (Parameter("array", Kind.ITEMS),)


def _text_test(name: str, op: str, description: str, example: str) -> Function:
    return Function(name, Receiver.TEXT, _OTHER, Result.BOOLEAN, op, description, example)


def _array(name: str, parameters: tuple[Parameter, ...], result: Result, op: str, text: str, example: str) -> Function:
    return Function(name, Receiver.ARRAY, parameters, result, op, text, example)


def _time(name: str, op: str, description: str, example: str) -> Function:
    return Function(name, Receiver.TIME, (), Result.NUMBER, op, description, example)


def _current(name: str, op: str, description: str, example: str) -> Function:
    return Function(name, Receiver.NONE, (), Result.NUMBER, op, description, example)


FUNCTIONS: Final[tuple[Function, ...]] = (
    # ------------------------------------------------------------ text
    _text_test("equals", "equals", "Is the same text.", 'homeAddress.state.equals("NV", false)'),
    _text_test("notEqualTo", "not_equals", "Is another text.", 'homeAddress.state.notEqualTo("CA")'),
    _text_test("startsWith", "starts_with", "Begins with the text.", 'personalEmail.address.startsWith("p1")'),
    _text_test(
        "doesNotStartWith", "not_starts_with", "Does not begin with it.", 'homeAddress.state.doesNotStartWith("N")'
    ),
    _text_test("endsWith", "ends_with", "Ends with the text.", 'personalEmail.address.endsWith("example.com")'),
    _text_test("doesNotEndWith", "not_ends_with", "Does not end with it.", 'homeAddress.state.doesNotEndWith("V")'),
    _text_test("contains", "contains", "Has the text somewhere.", 'personalEmail.address.contains("@example")'),
    _text_test("doesNotContain", "not_contains", "Has it nowhere.", 'homeAddress.state.doesNotContain("A")'),
    Function(
        "matches",
        Receiver.TEXT,
        (Parameter("regex", Kind.REGEX),),
        Result.BOOLEAN,
        "matches",
        "Has a part that matches the regular expression (RE2); (?i) ignores case.",
        'homeAddress.postalCode.matches("^[1-4]")',
    ),
    Function(
        "regexGroup",
        Receiver.TEXT,
        (Parameter("regex", Kind.REGEX), Parameter("n", Kind.GROUP)),
        Result.TEXT,
        "regex_group",
        "What group n of the regular expression matched; null when it did not.",
        'personalEmail.address.regexGroup("^p([0-9])", 1) in ["1", "3"]',
    ),
    Function(
        "stringCompare",
        Receiver.NONE,
        (
            Parameter("test", Kind.TEST),
            Parameter("field", Kind.SUBJECT),
            Parameter("list", Kind.TEXTS),
            _CASE,
        ),
        Result.BOOLEAN,
        "compare",
        "The test holds for any text of the list; a negative one for all.",
        'stringCompare("equals", homeAddress.state, ["CA", "VA"], false)',
    ),
    # ------------------------------------------------------------ arrays
    _array("includes", (Parameter("x", Kind.ITEM),), Result.BOOLEAN, "in", "Has x.", 'tags.includes("VIP")'),
    _array("intersects", _ARRAY, Result.BOOLEAN, "intersects", "Shares one or more.", 'tags.intersects(["b", "new"])'),
    _array(
        "intersection", _ARRAY, Result.SAME, "intersection", "What both have.", 'tags.intersection(["a"]).count() = 1'
    ),
    _array("subsetOf", _ARRAY, Result.BOOLEAN, "subset_of", "Has nothing else.", 'tags.subsetOf(["a", "b", "vip"])'),
    _array("supersetOf", _ARRAY, Result.BOOLEAN, "superset_of", "Has all of it.", 'tags.supersetOf(["a", "b"])'),
    _array("distinct", (), Result.SAME, "distinct", "Each value once.", "tags.distinct().count() < tags.count()"),
    _array("head", (), Result.ELEMENT, "head", "The first element, or null.", 'tags.head() = "a"'),
    _array("count", (), Result.NUMBER, "count", "How many elements.", "orders.count() > 4"),
    _array("sum", _NUMBER_OF, Result.NUMBER, "sum", "The sum; of nothing it is 0.", "orders.sum(price) > 400"),
    _array(
        "average", _NUMBER_OF, Result.NUMBER, "average", "The mean; of nothing, null.", "orders.average(price) > 90"
    ),
    _array("min", _ORDERED_OF, Result.MEASURED, "min", "The smallest, or null.", "orders.min(price) = 5"),
    _array("max", _ORDERED_OF, Result.MEASURED, "max", "The largest, or null.", "orders.max(price) = 150"),
    _array(
        "filter",
        _CONDITION,
        Result.SAME,
        "filter",
        "The elements that meet the condition, as array[condition].",
        "orders.filter(price >= 100).count() = 1",
    ),
    _array(
        "map",
        (Parameter("value", Kind.VALUE),),
        Result.MAPPED,
        "map",
        "The value of each element, nulls left out.",
        "orders.map(price * 2) = 200",
    ),
    _array(
        "groupBy",
        (Parameter("key", Kind.KEY),),
        Result.GROUPS,
        "group_by",
        "The elements grouped: each group has its key and its values.",
        "orders.groupBy(sku).exists(values.count() >= 2)",
    ),
    _array("exists", _CONDITION, Result.BOOLEAN, "exists", "Any element meets it.", "orders.exists(price > 200)"),
    _array(
        "forall",
        _CONDITION,
        Result.BOOLEAN,
        "forall",
        "All elements meet it; true when there are none.",
        "orders.forall(price > 10)",
    ),
    _array("topN", _RANKED, Result.SAME, "top", "The n largest, largest first.", "orders.topN(price, 1).price = 240"),
    _array(
        "bottomN",
        _RANKED,
        Result.SAME,
        "bottom",
        "The n smallest, smallest first.",
        "orders.bottomN(price, 1).head().price >= 50",
    ),
    # ------------------------------------------------------------ maps and objects
    Function(
        "get",
        Receiver.MAP,
        (Parameter("key", Kind.TEXT),),
        Result.ENTRY,
        "get",
        "The value under the key, or null.",
        'identityMap.get("ECID").count() = 2',
    ),
    Function(
        "keys", Receiver.MAP, (), Result.TEXTS, "keys", "All keys of the map.", 'identityMap.keys().includes("Phone")'
    ),
    Function(
        "values",
        Receiver.MAP,
        (),
        Result.ENTRIES,
        "values",
        "All values of the map.",
        'segmentMembership.get("AEPSegments").values().status = "exited"',
    ),
    Function("isNull", Receiver.ANY, (), Result.BOOLEAN, "is_null", "There is no value.", "homeAddress.state.isNull()"),
    Function(
        "isNotNull", Receiver.ANY, (), Result.BOOLEAN, "is_not_null", "There is a value.", "homeAddress.isNotNull()"
    ),
    Function(
        "inSegment",
        Receiver.NONE,
        (Parameter("id", Kind.SEGMENT),),
        Result.BOOLEAN,
        "in_segment",
        "The profile is in the segment (realized or existing).",
        'inSegment("segId6")',
    ),
    Function(
        "sample",
        Receiver.NONE,
        (Parameter("salt", Kind.TEXT), Parameter("percent", Kind.NUMBER)),
        Result.BOOLEAN,
        "sample",
        "The profile is in a share of all, fixed by a hash of salt and profile id.",
        'sample("spring", 50)',
    ),
    # ------------------------------------------------------------ choice and time
    Function(
        "if",
        Receiver.NONE,
        (Parameter("test", Kind.TEST_RESULT), Parameter("a", Kind.ANY), Parameter("b", Kind.ANY)),
        Result.BRANCH,
        "if",
        "a when the test holds, else b.",
        "if(income > 50000, loyalty.points, orders.count()) >= 100",
    ),
    Function(
        "mapEntry",
        Receiver.NONE,
        (Parameter("key", Kind.ENTRY_KEY), Parameter("value", Kind.VALUE)),
        Result.MAP_ENTRY,
        "to_map",
        "An entry of the map that array.map(…) makes.",
        'orders.groupBy(sku).map((K, G) => mapEntry(K, G.count())).get("PS") > 1',
    ),
    Function(
        "date",
        Receiver.NONE,
        (Parameter("year", Kind.NUMBER), Parameter("month", Kind.NUMBER), Parameter("day", Kind.NUMBER)),
        Result.DATE,
        "date",
        "A day.",
        "person.birthDate = date(2008, 6, 15)",
    ),
    _current("currentMonth", "month_of", "The month of now, 1 to 12.", "currentMonth() = 6"),
    _current("currentYear", "year_of", "The year of now.", "currentYear() = 2026"),
    _current("currentDayOfMonth", "day_of_month_of", "The day of now, 1 to 31.", "currentDayOfMonth() = 15"),
    _time("getMonth", "month_of", "Its month, 1 to 12.", "person.birthDate.getMonth() = today.getMonth()"),
    _time("getYear", "year_of", "Its year.", "person.birthDate.getYear() != 2008"),
    _time("getDayOfMonth", "day_of_month_of", "Its day, 1 to 31.", "person.birthDate.getDayOfMonth() = 29"),
)

FREE: Final = {row.name: row for row in FUNCTIONS if row.receiver is Receiver.NONE}
METHODS: Final = {row.name: row for row in FUNCTIONS if row.receiver is not Receiver.NONE}

TEXT_TESTS: Final = {row.name: row.op for row in FUNCTIONS if row.parameters == _OTHER}
"""The eight tests of `stringCompare` and their operations."""

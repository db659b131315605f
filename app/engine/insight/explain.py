"""Explains why a profile matches or does not: each written part of an expression with its value for one profile.

The ordinary evaluator evaluates a bucket with only that profile and keeps every value, from which the explanation is
read. `passed` and `elements` of a test over an array are the rows of the scope in which the array was expanded.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from app.engine.evaluate import EvaluationError, open_evaluation
from app.engine.evaluate.chain import StepMatch, matches
from app.engine.evaluate.memo import Evaluation
from app.engine.evaluate.row_spaces import RowSpace, TooWide
from app.engine.evaluate.zones import in_zone_of
from app.engine.insight.plain_values import LONGEST, plain
from app.engine.members.membership_map import with_memberships
from app.engine.members.regraph import MembershipSource
from app.engine.people.pages import Key
from app.engine.people.snapshot import Snapshot
from app.engine.plan.projection import needs_of
from app.engine.run.buckets import Standing, rows_of
from app.engine.store.bucket import Bucket, Needs
from app.errors import ErrorCode, Refusal
from app.pql.check.trace import Part, Trace
from app.pql.core import CONDITIONS, Node
from app.pql.schema import MEMBERSHIP, ArrayType, Scalar
from app.pql.syntax.nodes import Chain, Clause, Expr, Step, Tree, children
from app.pql.syntax.trampoline import Walking, run

_TESTS = frozenset({"exists", "forall", "filter"})


@dataclass(frozen=True, slots=True)
class Source:
    """A checked expression: its text, the node of each part of its tree, and the whole condition."""

    text: str
    tree: Tree
    trace: Trace
    condition: Node


@dataclass(frozen=True, slots=True)
class Explained:
    """One part; `start` and `end` are offsets in the text of its expression."""

    text: str
    start: int
    end: int
    value: Any = None
    holds: bool | None = None
    elements: int | None = None
    passed: int | None = None
    children: list["Explained"] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Stored:
    """The members of the segments that expressions reference, and the contents of `segmentMembership` by bucket."""

    memberships: MembershipSource
    standing: Standing


Follow = Callable[[str], Source | None]
"""The expression of another segment; None if there is none to show."""
Walk = Walking[Explained]


def explained_nodes(sources: Collection[Source]) -> list[Node]:
    """The conditions, and those of their parts that are values of the profile."""
    parts = [part.node for source in sources for part in source.trace.parts.values() if part.node.free <= {0}]
    return [*(source.condition for source in sources), *parts]


def needs_to_explain(sources: Collection[Source]) -> Needs:
    """The columns read for one profile: those of all parts, with the id and time of its events."""
    needs = needs_of(explained_nodes(sources))
    return needs | Needs(event=frozenset({("_id",), ("timestamp",)})) if needs.events else needs


def explain(
    source: Source,
    bucket: Bucket,
    *,
    now: datetime,
    member: Callable[[str], NDArray[np.bool_]],
    follow: Follow,
    cancelled: Callable[[], bool],
) -> tuple[bool, Explained]:
    """Whether the only profile of the bucket matches, and why. Raises `EvaluationError` and `Cancelled`."""
    if bucket.profiles.num_rows != 1:
        raise ValueError(f"an explanation is about one profile, not {bucket.profiles.num_rows}")
    evaluation = open_evaluation(bucket, now=now, member=member, cancelled=cancelled)
    with in_zone_of(now), np.errstate(all="ignore"):
        inside = bool(evaluation.mask(source.condition, evaluation.root)[0])
        return inside, run(_Explanation(evaluation, follow).of(source, source.tree.body))


def explain_profile(
    snapshot: Snapshot,
    key: Key,
    source: Source,
    others: Mapping[str, Source],
    *,
    now: datetime,
    stored: Stored,
    cancelled: Callable[[], bool],
) -> tuple[bool, Explained]:
    """Like `explain`, for a profile of a snapshot; `others` are the segments to follow.

    Raises `Refusal` if the expression cannot be evaluated.
    """
    number, ordinal = key
    needs = needs_to_explain([source, *others.values()])
    bucket = snapshot.read(number, needs, BitMap([ordinal]))
    if any(path[0] == MEMBERSHIP for path in needs.profile):
        bucket = replace(bucket, profiles=with_memberships(bucket.profiles, bucket.ordinals, stored.standing(number)))
    memberships = stored.memberships.read(number)

    def member(segment: str) -> NDArray[np.bool_]:
        return rows_of(memberships[segment].members if segment in memberships else BitMap(), bucket.ordinals)

    try:
        return explain(source, bucket, now=now, member=member, follow=others.get, cancelled=cancelled)
    except EvaluationError as failure:
        raise Refusal(ErrorCode.INVALID_EXPRESSION, f"it cannot be evaluated: {failure.message}") from failure


@dataclass(slots=True)
class _Explanation:
    evaluation: Evaluation
    follow: Follow
    followed: set[str] = field(default_factory=set)

    def of(self, source: Source, expr: Expr) -> Walk:
        part = source.trace.parts.get(id(expr))
        below: list[Explained] = []
        steps = self._steps(part) if isinstance(expr, Chain) else []
        for at, child in enumerate(_written(expr)):
            if isinstance(child, Step):
                below.append((yield self._step(source, child, steps[at - 2] if steps else None)))
            elif id(child) in source.trace.parts:
                below.append((yield self.of(source, child)))
        if part is not None and part.node.op == "in_segment":
            below += yield self._other(part.node.payload[0])
        return self._shown(source, expr, part, below)

    def _other(self, segment: str) -> Walking[list[Explained]]:
        """The expression of another segment, explained at its first occurrence."""
        other = None if segment in self.followed else self.follow(segment)
        self.followed.add(segment)
        if other is None:
            return []
        return [(yield self.of(other, other.tree.body))]

    def _step(self, source: Source, step: Step, match: "_Matched | None") -> Walk:
        """A step holds if the chain got this far; its value is the event of the first complete chain."""
        start, end = step.span
        what = yield self.of(source, step.what)
        text = source.text[start:end]
        if match is None:
            return Explained(text, start, end, children=[what])
        return Explained(text, start, end, match.event, match.reached, match.events, match.suiting, [what])

    def _shown(self, source: Source, expr: Expr, part: Part | None, below: list[Explained]) -> Explained:
        start, end = expr.span
        text = source.text[start:end]
        if part is None:
            return Explained(text, start, end, children=below)
        try:
            value, holds, elements, passed = self._measured(part, source.trace.conditions.get(id(expr)))
        except (TooWide, EvaluationError):  # evaluated on its own it needs more pairs than the whole expression
            return Explained(text, start, end, children=below)
        return Explained(text, start, end, value, holds, elements, passed, below)

    def _measured(self, part: Part, condition: Node | None) -> tuple[object, bool | None, int | None, int | None]:
        node, test = part.node, condition or (part.node if _is_condition(part.node) else None)
        scope = self._scope(part)
        value = self.evaluation.operand(node, scope)
        mask = None if test is None else self.evaluation.mask(test, scope)
        if part.arrays:
            shown = [plain(value, 0 if len(value) == 1 else row, node.type) for row in range(min(scope.n, LONGEST))]
            return shown, None, scope.n, None if mask is None else int(mask.sum())
        elements, passed = self._elements(test if test is not None else node)
        return plain(value, 0, node.type), None if mask is None else bool(mask[0]), elements, passed

    def _scope(self, part: Part) -> RowSpace:
        """The rows for which a part has a value: the profile, or the elements of the enclosing arrays."""
        scope = self.evaluation.root
        for level, array in part.arrays:
            _, scope = self.evaluation.elements(array, level, scope)
        return scope

    def _elements(self, node: Node) -> tuple[int | None, int | None]:
        """For an operation over an array of the profile, the number of elements and of those that pass its test."""
        if node.op in ("not_empty", "count", "head") and node.operands[0].op == "filter":
            node = node.operands[0]
        home = self.evaluation.root.at(node.level)
        if node.op in _TESTS:
            _, child = self.evaluation.elements(node.operands[0], node.payload[0], home)
            return child.n, int(self.evaluation.mask(node.operands[1], child).sum())
        if node.operands and isinstance(node.operands[0].type, ArrayType):
            elements = int(self.evaluation.array(node.operands[0], home).rows.counts.sum())
            if node.op == "chain":
                return elements, sum(match.row is not None for match in matches(self.evaluation, node, home))
            return elements, None
        return None, None

    def _steps(self, part: Part | None) -> list["_Matched"]:
        """The result of each step of a chain over the profile's own events; empty for a chain inside an array."""
        if part is None or part.node.op != "chain" or part.arrays:
            return []
        home = self.evaluation.root.at(part.node.level)
        array, _ = self.evaluation.elements(part.node.operands[0], part.node.payload[0], home)
        type_ = part.node.operands[0].type
        element = type_.element if isinstance(type_, ArrayType) else Scalar.NULL
        return [
            _Matched(
                match.events,
                match.suiting,
                match.reached,
                match.row,
                None if match.row is None else plain(array.element, match.row, element),
            )
            for match in matches(self.evaluation, part.node, home)
        ]


@dataclass(frozen=True, slots=True)
class _Matched(StepMatch):
    event: Any = None


def _written(expr: Expr) -> list[Expr | Step]:
    """The direct child parts, without the clauses around them."""
    parts: list[Expr | Step] = []
    for child in children(expr):
        if isinstance(child, Clause):
            parts += [child.array, child.condition]
        else:
            parts.append(child)
    return parts


def _is_condition(node: Node) -> bool:
    return node.op in CONDITIONS

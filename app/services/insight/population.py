"""The profiles that a query covers, and what its expressions may refer to; answers nothing itself."""

import asyncio
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from app.engine.insight.scan import Scan
from app.engine.limits.pool import Stopped
from app.engine.members.membership import MembershipFiles
from app.engine.members.regraph import MembershipSource
from app.engine.people.profiles import Snapshot
from app.engine.plan.plan import Plan
from app.engine.run.buckets import Standing
from app.errors import ErrorCode, ExpressionRefused, Refusal
from app.pql.check.checker import Checked, check, check_value
from app.pql.check.trace import Trace
from app.pql.consent import with_consent
from app.pql.core import Builder, Node
from app.services.evaluation.expressions import Segments
from app.services.evaluation.heads import Heads
from app.services.people.profiles import ProfileReader

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Population:
    """The profiles of one merge policy in one snapshot, at one instant. `policy` is the merge policy's id."""

    policy: str
    snapshot: Snapshot
    heads: Heads
    segments: Segments
    files: MembershipFiles
    now: datetime
    builder: Builder = field(default_factory=Builder)

    def check(self, expression: str, trace: Trace | None = None) -> Checked:
        """Checks the expression against the profiles' schema and the sandbox's segments."""
        return check(
            expression,
            self.snapshot.schema,
            segments=self.segments.names,
            aliases=self.segments.aliases,
            builder=self.builder,
            trace=trace,
        )

    def condition(self, expression: str, path: Sequence[str], *, consent: bool = False) -> Node:
        """The expression as a condition; with `consent`, restricted to profiles that have not opted out. Raises
        `Refusal`."""
        checked = self.check(expression)
        if checked.condition is None:
            raise ExpressionRefused(checked.diagnostics, path)
        self.refuse_unevaluated(checked.references, path)
        condition = checked.condition
        return with_consent(condition, self.snapshot.schema, self.builder) if consent else condition

    def value(self, expression: str, path: Sequence[str]) -> Node:
        """The expression as a single value of a profile. Raises `Refusal`."""
        checked = check_value(
            expression,
            self.snapshot.schema,
            segments=self.segments.names,
            aliases=self.segments.aliases,
            builder=self.builder,
        )
        if checked.node is None:
            raise ExpressionRefused(checked.diagnostics, path)
        self.refuse_unevaluated(checked.references, path)
        return checked.node

    def scan(
        self,
        conditions: Mapping[str, Node],
        values: Mapping[str, Node] | None = None,
        audiences: Sequence[str] = (),
        *,
        tolerant: bool = False,
    ) -> Scan:
        """May read the membership files of all buckets, if audiences contain profiles of another identity graph."""
        plan = Plan(conditions, values or {})
        stored = self.stored({*audiences, *plan.references})
        return Scan(
            self.snapshot, plan, self.now, stored, self.standing(plan), self.files.lake.lake.budget, audiences, tolerant
        )

    def standing(self, plan: Plan) -> Standing:
        """By bucket, the contents of `segmentMembership` for the profiles of the snapshot, as far as the plan reads
        it."""
        return self.heads.standing(self.files, plan, self.segments.entries, self.snapshot.graph_version)

    def stored(self, audiences: Iterable[str], heads: Heads | None = None) -> MembershipSource:
        """The stored memberships of these audiences for the profiles of the snapshot: current ones, or those of other
        `heads`."""
        return (heads or self.heads).people(self.files, audiences, self.snapshot.graph_version)

    def refuse_unevaluated(self, references: Collection[str], path: Sequence[str]) -> None:
        """A computed segment that was never evaluated is not an empty one. Raises `Refusal`."""
        missing = sorted(set(references) - self.heads.audiences - self.segments.external)
        if missing:
            names = ", ".join(f"{self.segments.names[id]!r} ({id})" for id in missing)
            message = f"{names} has never been evaluated, so its members are unknown: run a segment job of it first"
            raise Refusal(ErrorCode.INVALID_STATE, message, path)


async def open_population(reader: ProfileReader, policy: str | None = None) -> Population:
    """The profiles that `reader` reads under a merge policy, by default the sandbox's. Raises `Refusal`."""
    view = await reader.view(policy)
    return Population(view.policy, view.snapshot, view.heads, view.segments, view.files, view.now)


async def in_thread(work: Callable[[Stopped], T]) -> T:
    """Runs `work` in a thread and returns its result; the thread is told to stop if the caller is cancelled."""
    unwanted = threading.Event()
    try:
        return await asyncio.to_thread(work, unwanted.is_set)
    finally:
        unwanted.set()

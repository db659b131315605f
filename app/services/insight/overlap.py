"""How audiences and expressions overlap: the size of every combination of them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from app.engine.insight.cells import Cells, count_cells, scaled
from app.engine.limits.pool import Stopped
from app.errors import ErrorCode, Refusal
from app.services.insight.population import Population, in_thread, open_population
from app.services.people.profiles import ProfileReader
from app.storage.tables.audiences import AudienceRow, AudienceType

FEWEST, MOST = 2, 8
SECONDS = 20.0
"""How long expressions are evaluated before the profiles read so far count as a sample."""


@dataclass(frozen=True, slots=True)
class People:
    """A stored audience, or an expression; exactly one of the two."""

    audience: AudienceRow | None = None
    expression: str | None = None


@dataclass(frozen=True, slots=True)
class Overlap:
    """`cells` are (whether in each of the sets, how many), every combination but the one that is in none."""

    cells: Sequence[tuple[tuple[bool, ...], int]]
    sizes: Sequence[int]
    union: int
    exact: bool


def a_while(seconds: float = SECONDS) -> Callable[[], bool]:
    """Whether so much time has gone by since this call."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


async def measure(
    reader: ProfileReader,
    people: Sequence[People],
    policy: str | None,
    threads: int,
    enough: Callable[[], bool] | None = None,
) -> Overlap:
    """The overlap under a merge policy: unless given that of the audiences, where they share one, else the default.

    Stored members come from bitmaps; expressions are evaluated together, as they would be for an audience that respects
    opt-outs. Raises `Refusal`.
    """
    if not FEWEST <= len(people) <= MOST:
        message = f"give {FEWEST} to {MOST} audiences or expressions, not {len(people)}"
        raise Refusal(ErrorCode.LIMIT_EXCEEDED if len(people) > MOST else ErrorCode.INVALID_INPUT, message, ("people",))
    population = await open_population(reader, policy or _shared_policy(people))
    conditions, sets = {}, []
    for at, group in enumerate(people):
        if group.expression is not None:
            path = ("people", str(at), "expression")
            conditions[str(at)] = population.condition(group.expression, path, consent=True)
            sets.append(str(at))
        elif group.audience is not None:
            refuse_unevaluated(population, group.audience, ("people", str(at), "audience_id"))
            sets.append(group.audience.id)
    audiences = sorted({group.audience.id for group in people if group.audience is not None})
    stop_early = (lambda: False) if not conditions else enough or a_while()

    def work(stopped: Stopped) -> Cells:
        scan = population.scan(conditions, audiences=audiences)
        return count_cells(scan, sets, threads=threads, stopped=stopped, enough=stop_early)

    return _overlap(await in_thread(work), population.snapshot.total_profiles)


def _overlap(cells: Cells, total: int) -> Overlap:
    numbers = scaled(cells, total)
    sizes = [sum(number for code, number in numbers.items() if code >> bit & 1) for bit in range(cells.sets)]
    listed = [(tuple(bool(code >> bit & 1) for bit in range(cells.sets)), number) for code, number in numbers.items()]
    return Overlap(listed, sizes, sum(numbers.values()), exact=cells.profiles >= total)


def _shared_policy(people: Sequence[People]) -> str | None:
    policies = {group.audience.merge_policy_id for group in people if group.audience is not None}
    policies.discard(None)
    return policies.pop() if len(policies) == 1 else None


def refuse_unevaluated(population: Population, audience: AudienceRow, path: Sequence[str]) -> None:
    """A computed audience that was never evaluated is not an empty one; an external one without members is."""
    if audience.type == AudienceType.SEGMENT_DEFINITION and audience.id not in population.heads.audiences:
        message = (
            f"{audience.name!r} has never been evaluated, so its members are unknown: run a segment job of it first"
        )
        raise Refusal(ErrorCode.INVALID_STATE, message, path)

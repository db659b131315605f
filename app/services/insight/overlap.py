"""The overlap of audiences and expressions: the size of every combination."""

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
    """`cells` has, for each combination except that in none of the sets, whether it is in each set and its size.
    `policy` is the merge policy whose profiles are counted."""

    cells: Sequence[tuple[tuple[bool, ...], int]]
    sizes: Sequence[int]
    union: int
    exact: bool
    policy: str


def a_while(seconds: float = SECONDS) -> Callable[[], bool]:
    """Returns a function that tells whether this many seconds have passed since this call."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


async def measure(
    reader: ProfileReader,
    people: Sequence[People],
    policy: str | None,
    threads: int,
    enough: Callable[[], bool] | None = None,
) -> Overlap:
    """The overlap under `policy`; if it is None, under the merge policy that the audiences share, or the default one
    without audiences. If theirs differ, it is the first of the default policy and theirs that links fragments to
    persons, so that no person counts twice; the default policy if none does.

    Stored members come from bitmaps. Expressions are evaluated together, as for an audience that excludes profiles that
    have opted out. Once `enough` returns true, the profiles read so far count as a sample. Raises `Refusal`.
    """
    if not FEWEST <= len(people) <= MOST:
        message = f"give {FEWEST} to {MOST} audiences or expressions, not {len(people)}"
        raise Refusal(ErrorCode.LIMIT_EXCEEDED if len(people) > MOST else ErrorCode.INVALID_INPUT, message, ("people",))
    population = await open_population(reader, policy or await _policy(reader, people))
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

    return _overlap(await in_thread(work), population)


def _overlap(cells: Cells, population: Population) -> Overlap:
    total = population.snapshot.total_profiles
    numbers = scaled(cells, total)
    sizes = [sum(number for code, number in numbers.items() if code >> bit & 1) for bit in range(cells.sets)]
    listed = [(tuple(bool(code >> bit & 1) for bit in range(cells.sets)), number) for code, number in numbers.items()]
    return Overlap(listed, sizes, sum(numbers.values()), cells.profiles >= total, population.policy)


async def _policy(reader: ProfileReader, people: Sequence[People]) -> str | None:
    audiences = [group.audience for group in people if group.audience is not None]
    policies = list(dict.fromkeys(audience.merge_policy_id for audience in audiences if audience.merge_policy_id))
    if len(policies) <= 1:
        return policies[0] if policies else None
    return await reader.joining(policies)


def refuse_unevaluated(population: Population, audience: AudienceRow, path: Sequence[str]) -> None:
    """Raises `Refusal` for a computed audience that was never evaluated, which is not the same as an empty one. An
    external audience without members is empty."""
    if audience.type == AudienceType.SEGMENT_DEFINITION and audience.id not in population.heads.audiences:
        message = (
            f"{audience.name!r} has never been evaluated, so its members are unknown: run a segment job of it first"
        )
        raise Refusal(ErrorCode.INVALID_STATE, message, path)

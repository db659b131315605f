"""The effect of different members of an audience, for example by another expression: who enters and who leaves."""

from collections.abc import Callable
from dataclasses import dataclass

from app.engine.insight.best import Chosen
from app.engine.insight.cells import Cells, count_cells
from app.engine.insight.scan import Answers, Buckets, Remembering
from app.engine.limits.pool import Stopped
from app.engine.members.membership import Ordinals
from app.engine.run.sampling import Estimate, estimate
from app.services.insight.limited import keep_first
from app.services.insight.overlap import a_while, refuse_unevaluated
from app.services.insight.population import Population, in_thread, open_population
from app.services.insight.profiles import page_in_place
from app.services.lists.paging import PageRequest, Slice
from app.services.people.members import Who
from app.services.people.profiles import ProfileReader
from app.storage.columns import StoredValues
from app.storage.tables.audiences import AudienceRow

NEW = "new"
_LEAVING, _ENTERING, _STAYING = 0b01, 0b10, 0b11


@dataclass(frozen=True, slots=True)
class Counts:
    """`before` is exact; the others are estimates with intervals, unless all profiles were read."""

    before: int
    after: Estimate
    stay: Estimate
    enter: Estimate
    leave: Estimate
    exact: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """Compares the members of an audience, its set, with another set `NEW`; `stored` contains only the members. If both
    are `known`, because nothing needs evaluation, counts are always exact."""

    population: Population
    audience: str
    buckets: Buckets
    stored: Buckets
    known: bool = False

    async def counts(self, threads: int, enough: Callable[[], bool] | None = None) -> Counts:
        """Raises `Refusal` if the expression cannot be evaluated."""
        stop_early = (lambda: False) if self.known else enough or a_while()

        def work(stopped: Stopped) -> Cells:
            return count_cells(self.buckets, [self.audience, NEW], threads=threads, stopped=stopped, enough=stop_early)

        cells = await in_thread(work)
        return self._counts(cells, await in_thread(self._before))

    async def entering(self, request: PageRequest) -> Slice[Who]:
        return await page_in_place(self.population, self.buckets, self.enters, request)

    async def leaving(self, request: PageRequest) -> Slice[Who]:
        return await page_in_place(self.population, self.buckets, self.leaves, request)

    async def size(self, chosen: Callable[[Answers], Ordinals]) -> int:
        """The exact size of `enters` or `leaves`; reads every bucket that was not read yet."""

        def work(stopped: Stopped) -> int:
            buckets = self.buckets.buckets
            return sum(len(chosen(self.buckets.bucket(number, stopped))) for number in buckets)

        return await in_thread(work)

    def enters(self, answers: Answers) -> Ordinals:
        return answers.members[NEW] - answers.members[self.audience]

    def leaves(self, answers: Answers) -> Ordinals:
        return answers.members[self.audience] - answers.members[NEW]

    def _before(self, stopped: Stopped) -> int:
        """From the bitmaps alone, which are read completely even for a sample."""
        numbers = self.stored.buckets
        return sum(len(self.stored.bucket(number, stopped).members[self.audience]) for number in numbers)

    def _counts(self, cells: Cells, before: int) -> Counts:
        total = self.population.snapshot.total_profiles

        def of(*codes: int) -> Estimate:
            estimated = estimate(total, cells.profiles, sum(int(cells.counts[code]) for code in codes))
            return estimated or Estimate(0, 0.0, 0, total)

        return Counts(
            before,
            of(_ENTERING, _STAYING),
            of(_STAYING),
            of(_ENTERING),
            of(_LEAVING),
            exact=cells.profiles >= total,
        )


async def compare(
    reader: ProfileReader, audience: AudienceRow, kept: StoredValues | None, expression: str, threads: int
) -> Comparison:
    """The comparison under the audience's merge policy, opt-out setting and limit `kept`. With a limit, every profile
    is evaluated at once. Raises `Refusal`."""
    population = await open_population(reader, audience.merge_policy_id)
    condition = population.condition(expression, ("expression",), consent=audience.exclude_opt_out)
    refuse_unevaluated(population, audience, ("audience_id",))

    def scan(stopped: Stopped) -> Comparison:
        stored = population.scan({}, audiences=[audience.id])
        if kept is None:
            both: Buckets = Remembering(population.scan({NEW: condition}, audiences=[audience.id]))
        else:
            path = ("audience_id",)
            both = Chosen(stored, NEW, keep_first(population, condition, kept, path, threads=threads, stopped=stopped))
        return Comparison(population, audience.id, both, stored, known=kept is not None)

    return await in_thread(scan)

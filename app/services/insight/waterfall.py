"""The funnel from all profiles to the reachable ones: how many remain after each step."""

from collections import Counter
from collections.abc import Sequence

from app.engine.insight.best import Chosen
from app.engine.insight.scan import Answers, Buckets
from app.engine.limits.pool import Stopped, in_threads
from app.pql.consent import with_consent
from app.pql.schema import Scalar
from app.services.audiences.definition_reads import DefinitionView
from app.services.insight.limited import keep_first
from app.services.insight.overlap import refuse_unevaluated
from app.services.insight.population import Population, in_thread, open_population
from app.services.people.profiles import ProfileReader
from app.storage.tables.audiences import AudienceRow

STEPS = ("evaluated", "matched", "consented")
LIMITED = "limited"
_MATCHED, _CONSENTED = "matched", "consented"

Step = tuple[str, int]


async def measure(
    reader: ProfileReader, audience: AudienceRow, definition: DefinitionView | None, threads: int
) -> list[Step]:
    """Counts the profiles evaluated; those that match; those of them that have not opted out; the first of these if
    there is a limit; and of the remaining ones those with an identity in each namespace, the most frequent first.

    A computed audience is evaluated now; for an external one, the stored members match. Raises `Refusal`.
    """
    population = await open_population(reader, audience.merge_policy_id)
    everybody = population.builder.condition("truth", population.builder.constant(True, Scalar.BOOLEAN))
    if definition is None:
        refuse_unevaluated(population, audience, ())
        matched = everybody
    else:
        matched = population.condition(definition.expression, ())
    consented = with_consent(matched, population.snapshot.schema, population.builder)
    stored = [audience.id] if definition is None else []
    limit = None if definition is None else definition.kept

    def count(stopped: Stopped) -> list[Step]:
        conditions = {_MATCHED: matched, _CONSENTED: consented}
        if limit is None:
            steps = _count(population, population.scan(conditions, audiences=stored), stored, threads, stopped)
            return _listed(STEPS, *steps)
        first = keep_first(population, consented, limit, (), threads=threads, stopped=stopped)
        limited = Chosen(population.scan(conditions), LIMITED, first)
        return _listed((*STEPS, LIMITED), *_count(population, limited, stored, threads, stopped))

    return await in_thread(count)


def _count(
    population: Population, scan: Buckets, stored: list[str], threads: int, stopped: Stopped
) -> tuple[Counter[str], Counter[str]]:
    """The counts of the steps and of the namespaces."""
    steps, namespaces = Counter[str](), Counter[str]()

    def work(number: int, stop: Stopped) -> tuple[Counter[str], Counter[str]]:
        return _of_bucket(scan.bucket(number, stop), stored, population)

    def finished(counts: tuple[Counter[str], Counter[str]]) -> None:
        steps.update(counts[0])
        namespaces.update(counts[1])

    in_threads(work, scan.buckets, finished=finished, cancelled=stopped, threads=threads)
    return steps, namespaces


def _listed(names: Sequence[str], steps: Counter[str], namespaces: Counter[str]) -> list[Step]:
    ranked = sorted(namespaces.items(), key=lambda step: (-step[1], step[0]))
    return [*((name, steps[name]) for name in names), *ranked]


def _of_bucket(answers: Answers, stored: list[str], population: Population) -> tuple[Counter[str], Counter[str]]:
    matched, consented = answers.members[_MATCHED], answers.members[_CONSENTED]
    for audience in stored:
        matched, consented = matched & answers.members[audience], consented & answers.members[audience]
    sizes = Counter(evaluated=len(answers.present), matched=len(matched), consented=len(consented))
    if (first := answers.members.get(LIMITED)) is not None:
        sizes[LIMITED], consented = len(first), first
    namespaces = population.snapshot.namespaces(answers.bucket)
    return sizes, Counter(
        {
            name: consented.intersection_cardinality(people_in_namespace)
            for name, people_in_namespace in namespaces.items()
        }
    )

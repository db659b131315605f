"""From all profiles to those who can be reached: how many are left at each step."""

from collections import Counter

from app.engine.insight.scan import Answers
from app.engine.limits.pool import Stopped, in_threads
from app.pql.consent import with_consent
from app.pql.core import Node
from app.pql.schema import Scalar
from app.services.audiences.definition_reads import DefinitionView
from app.services.insight.overlap import refuse_unevaluated
from app.services.insight.population import Population, in_thread, open_population
from app.services.people.profiles import ProfileReader
from app.storage.tables.audiences import AudienceRow

STEPS = ("evaluated", "matched", "consented")
_MATCHED, _CONSENTED = "matched", "consented"

Step = tuple[str, int]


async def measure(
    reader: ProfileReader, audience: AudienceRow, definition: DefinitionView | None, threads: int
) -> list[Step]:
    """Profiles evaluated, those that match, those of them that have not opted out, and of these those with an identity
    in each namespace, the most frequent first.

    A computed audience is evaluated now; of an external one the stored members match. Raises `Refusal`.
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
    return await in_thread(
        lambda stopped: _count(population, {_MATCHED: matched, _CONSENTED: consented}, stored, threads, stopped)
    )


def _count(
    population: Population, conditions: dict[str, Node], stored: list[str], threads: int, stopped: Stopped
) -> list[Step]:
    scan = population.scan(conditions, audiences=stored)
    steps, namespaces = Counter[str](), Counter[str]()

    def work(number: int, stop: Stopped) -> tuple[Counter[str], Counter[str]]:
        return _of_bucket(scan.bucket(number, stop), stored, population)

    def finished(counts: tuple[Counter[str], Counter[str]]) -> None:
        steps.update(counts[0])
        namespaces.update(counts[1])

    in_threads(work, scan.buckets, finished=finished, cancelled=stopped, threads=threads)
    ranked = sorted(namespaces.items(), key=lambda step: (-step[1], step[0]))
    return [*((name, steps[name]) for name in STEPS), *ranked]


def _of_bucket(answers: Answers, stored: list[str], population: Population) -> tuple[Counter[str], Counter[str]]:
    matched, consented = answers.members[_MATCHED], answers.members[_CONSENTED]
    for audience in stored:
        matched, consented = matched & answers.members[audience], consented & answers.members[audience]
    sizes = Counter(evaluated=len(answers.present), matched=len(matched), consented=len(consented))
    namespaces = population.snapshot.namespaces(answers.bucket)
    return sizes, Counter(
        {
            name: consented.intersection_cardinality(people_in_namespace)
            for name, people_in_namespace in namespaces.items()
        }
    )

"""Statistics of PQL values over the members of an audience."""

from collections.abc import Sequence

from app.engine.insight.statistics import Statistics, statistics
from app.engine.limits.pool import Stopped
from app.errors import ErrorCode, Refusal
from app.pql.core import Node
from app.services.insight.overlap import refuse_unevaluated
from app.services.insight.population import Population, in_thread, open_population
from app.services.people.profiles import ProfileReader
from app.storage.tables.audiences import AudienceRow

MOST_EXPRESSIONS = 20
MOST_BUCKETS = 1_000


async def measure(
    reader: ProfileReader, audience: AudienceRow, expressions: Sequence[str], buckets: int, threads: int
) -> list[Statistics | Refusal]:
    """The statistics of each expression, in order, over the stored members; an expression without an answer has a
    `Refusal`.

    All expressions are evaluated in one pass over the profiles. Raises `Refusal` if none has an answer.
    """
    if len(expressions) > MOST_EXPRESSIONS:
        message = f"at most {MOST_EXPRESSIONS} expressions are allowed, not {len(expressions)}: ask in several parts"
        raise Refusal(ErrorCode.LIMIT_EXCEEDED, message, ("expressions",))
    if not 1 <= buckets <= MOST_BUCKETS:
        message = f"a histogram of {buckets} buckets is not possible: ask for 1 to {MOST_BUCKETS:,}"
        raise Refusal(ErrorCode.INVALID_INPUT, message, ("buckets",))
    population = await open_population(reader, audience.merge_policy_id)
    refuse_unevaluated(population, audience, ())
    values: dict[str, Node] = {}
    answers: dict[str, Statistics | Refusal] = {}
    for at, expression in enumerate(expressions):
        try:
            values[str(at)] = population.value(expression, ("expressions", str(at)))
        except Refusal as refusal:
            answers[str(at)] = refusal
    if values:
        answers |= await in_thread(lambda stopped: _evaluated(population, audience, values, buckets, threads, stopped))
    return [_with_path(answers[str(at)], str(at)) for at in range(len(expressions))]


def _evaluated(
    population: Population, audience: AudienceRow, values: dict[str, Node], buckets: int, threads: int, stopped: Stopped
) -> dict[str, Statistics | Refusal]:
    scan = population.scan({}, values, [audience.id], tolerant=True)
    return statistics(scan, audience.id, buckets, threads=threads, stopped=stopped)


def _with_path(answer: Statistics | Refusal, at: str) -> Statistics | Refusal:
    if isinstance(answer, Statistics) or answer.path:
        return answer
    return Refusal(answer.code, answer.message, ("expressions", at))

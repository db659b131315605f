"""Why a profile is in or out of an audience, or of an expression that is not stored."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from app.engine.insight.explain import Explained, Source, Stored, explain_profile, explained_nodes
from app.engine.limits.pool import Stopped
from app.engine.plan.plan import Plan
from app.errors import ErrorCode, ExpressionRefused, Refusal
from app.pql.check.trace import Trace
from app.pql.consent import with_consent
from app.scope import Scope
from app.services.audiences.definition_reads import DefinitionView
from app.services.audiences.definition_reads import get_many as get_definitions
from app.services.insight.overlap import People
from app.services.insight.population import Population, in_thread, open_population
from app.services.people.profiles import ProfileReader
from app.storage.database import Database

CONSENT = "not opted out"
"""The label of the part that is not in the expression."""


@dataclass(frozen=True, slots=True)
class Identity:
    namespace: str
    id: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Whether the profile matches when the expression is evaluated now, and each part of it."""

    member: bool
    evaluated_at: datetime
    root: Explained


async def explain(
    database: Database, scope: Scope, reader: ProfileReader, identity: Identity, people: People, policy: str | None
) -> Explanation:
    """Evaluates the expression for one profile, under a merge policy: by default that of the audience, else the
    sandbox's.

    Other segments count with their stored members, as in a job of this audience alone. Raises `Refusal`.
    """
    audience = people.audience
    population = await open_population(reader, policy or (audience.merge_policy_id if audience is not None else None))
    who = await reader.find_identity(identity.namespace, identity.id, population.policy)
    if who is None:
        raise _unknown(identity)
    expression, consent, path = await _expression(database, scope, people)
    source = _source(population, expression, path)
    limit = await _limit(database, scope, population, people)
    population.refuse_unevaluated(source.references, path)
    others = await _others(database, scope, population, source)
    key = who.bucket, who.ordinal

    def work(stopped: Stopped) -> Explanation:
        stored = population.stored({*source.references, *(id for other in others.values() for id in other.references)})
        sources = {id: other.source for id, other in others.items()}
        nodes = explained_nodes([source.source, *sources.values()])
        standing = population.standing(Plan({}, {str(at): node for at, node in enumerate(nodes)}))
        inside, root = explain_profile(
            population.snapshot,
            key,
            source.source,
            sources,
            now=population.now,
            stored=Stored(stored, standing),
            cancelled=stopped,
        )
        opted_in = not consent or _opted_in(population, source, key, stopped)
        if not opted_in:
            return Explanation(False, population.now, _refused(expression, root))
        if limit is None:
            return Explanation(inside, population.now, root)
        within_limit = limit.keeps(population, key)
        return Explanation(
            inside and within_limit, population.now, limit.explained(expression, root, inside, within_limit)
        )

    return await in_thread(work)


def _unknown(identity: Identity) -> Refusal:
    message = (
        f"no profile of this sandbox has the identity {identity.id!r} in {identity.namespace!r}: check the "
        "namespace and the id, in which upper and lower case differ; profiles come from the rows of datasets, so "
        "upload a row with this identity if there is none yet"
    )
    return Refusal(ErrorCode.NOT_FOUND, message, ("profile",))


@dataclass(frozen=True, slots=True)
class _Limit:
    """A limit compares a profile with all others, as of the last job."""

    audience: str
    text: str

    def keeps(self, population: Population, key: tuple[int, int]) -> bool:
        stored = population.stored([self.audience]).read(key[0]).get(self.audience)
        return stored is not None and key[1] in stored.members

    def explained(self, expression: str, root: Explained, inside: bool, kept: bool) -> Explained:
        end = len(expression)
        part = Explained(self.text, end, end, value=kept, holds=kept)
        holds = inside and kept
        return Explained(expression, 0, end, value=holds, holds=holds, children=[root, part])


async def _limit(database: Database, scope: Scope, population: Population, people: People) -> _Limit | None:
    """The audience's limit. Raises `Refusal` if no job has compared its profiles yet."""
    if people.audience is None:
        return None
    definition = (await _definitions(database, scope, {people.audience.id})).get(people.audience.id)
    if definition is None or definition.kept is None:
        return None
    population.refuse_unevaluated({people.audience.id}, ("people", "audience_id"))
    direction = "DESC" if definition.kept["descending"] else "ASC"
    return _Limit(people.audience.id, f"first {definition.kept['first']:,} by {definition.kept['by']} {direction}")


@dataclass(frozen=True, slots=True)
class _Source:
    source: Source
    references: frozenset[str]


async def _expression(database: Database, scope: Scope, people: People) -> tuple[str, bool, tuple[str, ...]]:
    """The text, whether it excludes profiles that opted out, and the position of the text in the input."""
    if people.expression is not None:
        return people.expression, True, ("people", "expression")
    if people.audience is None:
        raise ValueError("an explanation is about an audience or an expression")
    definition = (await _definitions(database, scope, {people.audience.id})).get(people.audience.id)
    path = ("people", "audience_id")
    if definition is None:
        return f'inSegment("{people.audience.id}")', False, path
    return definition.expression, definition.exclude_opt_out, path


def _source(population: Population, expression: str, path: tuple[str, ...]) -> _Source:
    trace = Trace()
    checked = population.check(expression, trace)
    if checked.condition is None or checked.tree is None:
        raise ExpressionRefused(checked.diagnostics, path)
    return _Source(Source(expression, checked.tree, trace, checked.condition), checked.references)


async def _others(database: Database, scope: Scope, population: Population, source: _Source) -> dict[str, _Source]:
    """The expressions of all referenced segments, recursively, with one read per level. Expressions that do not fit the
    profiles of this merge policy are left out, since their members are known without them."""
    sources: dict[str, _Source] = {}
    waiting = set(source.references)
    while waiting:
        definitions = await _definitions(database, scope, waiting)
        fresh: dict[str, _Source] = {}
        for id, definition in definitions.items():
            try:
                fresh[id] = _source(population, definition.expression, ())
            except ExpressionRefused:
                continue
        sources |= fresh
        waiting = {id for fresh_source in fresh.values() for id in fresh_source.references} - sources.keys()
    return sources


async def _definitions(database: Database, scope: Scope, ids: set[str]) -> Mapping[str, DefinitionView]:
    async with database.session() as session:
        return await get_definitions(session, scope, ids)


def _opted_in(population: Population, source: _Source, key: tuple[int, int], stopped: Stopped) -> bool:
    """Whether the profile has not opted out, by the same condition that is added to definitions."""
    always = population.builder.constant(True, source.source.condition.type)
    consent = with_consent(always, population.snapshot.schema, population.builder)
    if consent is always:
        return True
    alone = replace(source.source, condition=consent)
    inside, _ = explain_profile(
        population.snapshot,
        key,
        alone,
        {},
        now=population.now,
        stored=Stored(population.stored(()), lambda bucket: {}),
        cancelled=stopped,
    )
    return inside


def _refused(expression: str, root: Explained) -> Explained:
    """The expression, with the result that the profile opted out of all audiences that respect it."""
    consent = Explained(CONSENT, len(expression), len(expression), value=False, holds=False)
    return Explained(expression, 0, len(expression), value=False, holds=False, children=[root, consent])

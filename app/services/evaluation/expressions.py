"""Expressions of a tenant, checked against its profile schema and its segments."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.engine.people.profiles import Dataset, schema_of
from app.engine.people.seen_values import seen_values
from app.engine.store.lake import Lake
from app.errors import ExpressionRefused
from app.pql.check.checker import Checked, CheckedValue, check, check_value
from app.pql.editor.completion import Completion, complete
from app.pql.functions import FUNCTIONS, Kind
from app.pql.schema import ObjectType, Segment, namespace_of
from app.pql.syntax.json_reader import from_json
from app.pql.syntax.json_writer import to_json
from app.pql.syntax.parser import parse
from app.pql.syntax.printer import print_tree
from app.scope import Scope
from app.storage.columns import columns
from app.storage.database import Database
from app.storage.sessions.reading import Prepared, read
from app.storage.tables.audiences import AudienceRow, AudienceType
from app.storage.tables.datasets import DatasetKind, DatasetRow
from app.storage.tenancy import parameters, within, within_any

_NAMING = [row.name for row in FUNCTIONS if any(each.kind is Kind.SEGMENT for each in row.parameters)] + ["\\"]
"""What every text contains that names a segment: such a function, or JSON's escape of one of its letters."""

_AUDIENCES = columns(AudienceRow)
_DATASETS = columns(DatasetRow)


class ExpressionFormat(StrEnum):
    PQL_TEXT = "PQL_TEXT"
    PQL_JSON = "PQL_JSON"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What a tenant's expressions may refer to."""

    schema: ObjectType
    segments: Mapping[str, str]
    """Names by id."""
    aliases: Mapping[str, str]
    """Ids by the audience ids that external audiences have in their source systems."""
    datasets: Sequence[Dataset]

    def check(self, expression: str, format: ExpressionFormat = ExpressionFormat.PQL_TEXT) -> Checked:
        """Checks an expression. For pql/json, positions refer to the equivalent text. Raises `ExpressionRefused` if it
        is not valid pql/json."""
        return check(as_text(expression, format), self.schema, segments=self.segments, aliases=self.aliases)

    def check_value(self, expression: str) -> CheckedValue:
        """Checks an expression that returns a single value of a profile."""
        return check_value(expression, self.schema, segments=self.segments, aliases=self.aliases)


async def vocabulary(database: Database, lake: Lake, scope: Scope, texts: Collection[str] | None = None) -> Vocabulary:
    """The vocabulary of a tenant. For given texts, segments are read only if one of them names a segment."""
    naming = texts is None or any(word in text for word in _NAMING for text in texts)
    async with database.session() as session:
        sources = await data_sources(session, scope, alone=not naming)
        segments = await read_segments(session, scope) if naming else _NO_SEGMENTS
    schema = await asyncio.to_thread(schema_of, lake.tenant(scope.tenant), sources)
    return Vocabulary(schema, segments.names, segments.aliases, sources)


@dataclass(frozen=True, slots=True)
class Segments:
    """What `inSegment` may name: `names` are the audiences' names by id.

    The `external` ones have uploaded members, possibly none. `aliases` maps the ids from their source systems to ids;
    if several namespaces use the same one, it means the oldest audience. `entries` maps ids to the namespace and id
    under which the audience appears in `segmentMembership`.
    """

    names: Mapping[str, str]
    external: frozenset[str]
    aliases: Mapping[str, str]
    entries: Mapping[str, Segment]


_NO_SEGMENTS = Segments({}, frozenset(), {}, {})


async def read_segments(session: AsyncSession, scope: Scope) -> Segments:
    fields = (_AUDIENCES.id, _AUDIENCES.name, _AUDIENCES.audience_id, _AUDIENCES.namespace, _AUDIENCES.type)
    statement = within(select(*fields), AudienceRow, scope.tenant)
    rows = list(await session.execute(statement.order_by(_AUDIENCES.created_at.desc(), _AUDIENCES.id.desc())))
    external = [row for row in rows if row.type == AudienceType.EXTERNAL_SEGMENT]
    return Segments(
        {row.id: row.name for row in rows},
        frozenset(row.id for row in external),
        {row.audience_id: row.id for row in external},
        {row.id: (namespace_of(row.namespace), row.audience_id) for row in rows},
    )


async def completions(
    database: Database, lake: Lake, scope: Scope, expression: str, offset: int, first: int
) -> list[Completion]:
    """Completions at an offset of an expression, best first."""
    words = await vocabulary(database, lake, scope)
    tenant = lake.tenant(scope.tenant)

    def values(path: tuple[str, ...]) -> list[str]:
        return seen_values(tenant, words.datasets, path)

    return await asyncio.to_thread(
        complete, expression, offset, words.schema, segments=words.segments, values=values, limit=first
    )


_SOURCES = Prepared(
    within_any(select(_DATASETS.id, _DATASETS.kind), DatasetRow)
    .where(_DATASETS.kind != DatasetKind.EXPORT)
    .order_by(_DATASETS.created_at, _DATASETS.id)
)


async def data_sources(session: AsyncSession, scope: Scope, *, alone: bool = False) -> list[Dataset]:
    """The tenant's datasets of profiles, events or audience members, oldest first. `alone` as for `read`."""
    rows = await read(session, _SOURCES, parameters(scope.tenant), alone=alone)
    return [Dataset(row.id, row.kind) for row in rows]


def as_text(expression: str, format: ExpressionFormat) -> str:
    """The expression as pql/text. Raises `ExpressionRefused` for invalid pql/json."""
    return expression if format is ExpressionFormat.PQL_TEXT else print_tree(from_json(expression))


def convert_expression(expression: str, source: ExpressionFormat, target: ExpressionFormat) -> str:
    """Converts between pql/text (printed canonically) and pql/json. Raises `ExpressionRefused`."""
    tree = parse(expression) if source is ExpressionFormat.PQL_TEXT else from_json(expression)
    return to_json(tree) if target is ExpressionFormat.PQL_JSON else print_tree(tree)


def require(checked: Checked, path: tuple[str, ...]) -> Checked:
    """Raises `ExpressionRefused` with all diagnostics if the expression has errors."""
    if not checked.ok:
        raise ExpressionRefused(checked.diagnostics, path)
    return checked

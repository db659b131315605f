"""Expressions of a tenant: checked against the schema of its profiles and the segments that it has."""

import asyncio
from collections.abc import Mapping, Sequence
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
from app.pql.schema import ObjectType, Segment, namespace_of
from app.pql.syntax.json_reader import from_json
from app.pql.syntax.json_writer import to_json
from app.pql.syntax.parser import parse
from app.pql.syntax.printer import print_tree
from app.scope import Scope
from app.storage.columns import columns
from app.storage.database import Database
from app.storage.tables.audiences import AudienceRow, AudienceType
from app.storage.tables.datasets import DatasetKind, DatasetRow
from app.storage.tenancy import within

_AUDIENCES = columns(AudienceRow)
_DATASETS = columns(DatasetRow)


class ExpressionFormat(StrEnum):
    PQL_TEXT = "PQL_TEXT"
    PQL_JSON = "PQL_JSON"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What expressions of a tenant may speak of."""

    schema: ObjectType
    segments: Mapping[str, str]
    """Names by id."""
    aliases: Mapping[str, str]
    """Ids by what the makers of external audiences know them by."""
    datasets: Sequence[Dataset]

    def check(self, expression: str, format: ExpressionFormat = ExpressionFormat.PQL_TEXT) -> Checked:
        """Positions in pql/json are those of the text that it stands for. Raises `ExpressionRefused` if it is not
        pql/json."""
        return check(as_text(expression, format), self.schema, segments=self.segments, aliases=self.aliases)

    def check_value(self, expression: str) -> CheckedValue:
        """The expression as a single value of a profile."""
        return check_value(expression, self.schema, segments=self.segments, aliases=self.aliases)


async def vocabulary(database: Database, lake: Lake, scope: Scope) -> Vocabulary:
    async with database.session() as session:
        sources = await data_sources(session, scope)
        segments = await read_segments(session, scope)
    schema = await asyncio.to_thread(schema_of, lake.tenant(scope.tenant), sources)
    return Vocabulary(schema, segments.names, segments.aliases, sources)


@dataclass(frozen=True, slots=True)
class Segments:
    """What `inSegment` may name: audiences, whose names these are by id.

    The `external` ones have whom was uploaded, so also nobody; `aliases` are their ids by what their makers know them
    by. Of several with the same one in different namespaces, that is the one that was made first. `entries` are the
    namespaces and ids under which they stand in `segmentMembership`, by id.
    """

    names: Mapping[str, str]
    external: frozenset[str]
    aliases: Mapping[str, str]
    entries: Mapping[str, Segment]


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
    """What may be written at an offset of an expression, best first."""
    words = await vocabulary(database, lake, scope)
    tenant = lake.tenant(scope.tenant)

    def values(path: tuple[str, ...]) -> list[str]:
        return seen_values(tenant, words.datasets, path)

    return await asyncio.to_thread(
        complete, expression, offset, words.schema, segments=words.segments, values=values, limit=first
    )


async def data_sources(session: AsyncSession, scope: Scope) -> list[Dataset]:
    """The tenant's datasets with people, events or members, oldest first."""
    statement = within(select(_DATASETS.id, _DATASETS.kind), DatasetRow, scope.tenant)
    rows = await session.execute(
        statement.where(_DATASETS.kind != DatasetKind.EXPORT).order_by(_DATASETS.created_at, _DATASETS.id)
    )
    return [Dataset(row.id, row.kind) for row in rows]


def as_text(expression: str, format: ExpressionFormat) -> str:
    """Raises `ExpressionRefused` for pql/json that is none."""
    return expression if format is ExpressionFormat.PQL_TEXT else print_tree(from_json(expression))


def convert_expression(expression: str, source: ExpressionFormat, target: ExpressionFormat) -> str:
    """Between pql/text (printed canonically) and pql/json. Raises `ExpressionRefused`."""
    tree = parse(expression) if source is ExpressionFormat.PQL_TEXT else from_json(expression)
    return to_json(tree) if target is ExpressionFormat.PQL_JSON else print_tree(tree)


def require(checked: Checked, path: tuple[str, ...]) -> Checked:
    """Raises `ExpressionRefused` with every diagnostic unless the expression is in order."""
    if not checked.ok:
        raise ExpressionRefused(checked.diagnostics, path)
    return checked

"""Rows of erased people: rejected, or loaded as new people; recognises them by digests only."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import duckdb

from app.engine.ingest.formats import Source
from app.engine.ingest.rows import IDENTITIES, DatasetShape
from app.engine.store.erased import Erased, read_erased
from app.engine.store.field_types import sql_type
from app.engine.store.lake import TenantLake, only_row, text_literal

REFUSED = "the person was erased, and rows of people who were erased are refused (SEGMENTATION_ERASED_PEOPLE)"


@dataclass(frozen=True, slots=True)
class Returning:
    """People who are rejected or reported; `erased` is None if nobody was erased."""

    erased: Erased | None
    refuse: bool

    @classmethod
    def of(cls, lake: TenantLake) -> Self:
        erased = read_erased(lake)
        return cls(erased if erased is not None and erased.digests else None, lake.lake.refuse_erased)

    def problems(self, source: Source, shape: DatasetShape) -> Iterator[str]:
        """SQL for the errors of rows of such people, and of rows that link a person to one."""
        if self.erased is None or not self.refuse:
            return
        complaint, digests = text_literal(REFUSED), self._digests(self.erased)
        own = self.erased.digest_sql(text_literal(shape.namespace), source.texts[shape.identity_column])
        yield f"CASE WHEN {own} IN (SELECT unnest({digests})) THEN {complaint} END"
        column = source.columns.get(IDENTITIES)
        if column is not None:
            linked = self.erased.digest_sql("__entry.key", "__identity.id")
            hashed = (
                f"flatten(list_transform(map_entries(CAST({column.value} AS {sql_type(column.type)})), lambda __entry:"
                f" list_transform(__entry.value, lambda __identity: {linked})))"
            )
            yield f"CASE WHEN list_has_any({hashed}, {digests}) THEN {complaint} END"

    def warnings(self, database: duckdb.DuckDBPyConnection, shape: DatasetShape) -> Iterator[str]:
        """Warnings about accepted people in `staged`."""
        if self.erased is None or self.refuse:
            return
        own = self.erased.digest_sql(text_literal(shape.namespace), "__id")
        query = "SELECT count(DISTINCT __id) FROM staged WHERE __problem IS NULL AND"
        (people,) = only_row(database, f"{query} {own} IN (SELECT unnest({self._digests(self.erased)}))")
        if people:
            yield f"{people:,} of the people were erased before: they are accepted as new profiles"

    @staticmethod
    def _digests(erased: Erased) -> str:
        return f"[{', '.join(map(text_literal, sorted(erased.digests)))}]"

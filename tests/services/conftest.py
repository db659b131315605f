"""Fixtures: the services over a real database of each kind and a real lake."""

from collections.abc import Awaitable, Callable
from dataclasses import fields
from pathlib import Path

import pytest

from app.clock import FixedClock
from app.engine.ingest.formats import InputFile
from app.engine.store.lake import Lake
from app.services.audiences import computed as definitions
from app.services.audiences import definition_reads
from app.services.audiences.definition_rules import NewDefinition
from app.services.datasets.datasets import NewDataset
from app.services.datasets.uploads import Uploaded, ingest_file
from app.storage.database import Database
from app.storage.tables.datasets import DatasetKind
from tests.support.gateway import SCOPE, Gateway

CSV = "customer,when,dollars\n00001,2026-01-01T10:00:00Z,12.5\n00002,2026-01-02T10:00:00Z,700\n00001,2026-02-01,600\n"

__all__ = ["CSV", "SCOPE", "Define", "Gateway", "whole"]

Define = Callable[..., Awaitable[definition_reads.DefinitionView]]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


@pytest.fixture
async def purchases(database: Database, lake: Lake, clock: FixedClock, tmp_path: Path) -> Uploaded:
    """Three purchases of two people: 00001 spent 612.5, 00002 700 dollars."""
    file = tmp_path / "purchases.csv"
    file.write_text(CSV)
    return await ingest_file(
        database,
        lake,
        clock,
        SCOPE,
        NewDataset("purchases", DatasetKind.EVENT, "customer", "crm", "when"),
        InputFile(file, "CSV"),
    )


@pytest.fixture
def define(database: Database, lake: Lake, clock: FixedClock, purchases: Uploaded) -> Define:
    async def create(name: str, expression: str = "xEvent.sum(dollars) > 500") -> definition_reads.DefinitionView:
        new = NewDefinition(name=name, expression=expression)
        return await definitions.create(database, lake, clock, SCOPE, new)

    return create


@pytest.fixture
def gateway(database: Database, lake: Lake, clock: FixedClock, tmp_path: Path) -> Gateway:
    return Gateway(database, lake, clock, tmp_path)


def whole(view: definition_reads.DefinitionView) -> definition_reads.DefinitionView:
    """With its values in place of the row that it may be: how rows compare is for their driver to say."""
    return definition_reads.DefinitionView(
        **{field.name: getattr(view, field.name) for field in fields(definition_reads.DefinitionView)}
    )

"""The inputs of a merged view: the versions of the datasets, and the merge rule."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from app.engine.ingest.rows import TIMESTAMP, user_fields
from app.engine.people.identity_graph import Graph, graph_of
from app.engine.people.stitching import open_stitched
from app.engine.store.delta import TableVersion, open_table
from app.engine.store.field_types import widen
from app.engine.store.lake import TenantLake
from app.pql.schema import ObjectType, Scalar, profile_fields, profile_schema

_FORM = "2"


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset as the view sees it."""

    id: str
    kind: Literal["PROFILE", "EVENT", "AUDIENCE"]


@dataclass(frozen=True, slots=True)
class MergeRule:
    """How the records of a person from several datasets are merged.

    `TIMESTAMP_ORDERED`: for each field the newest non-null value over all datasets. `DATA_SET_PRECEDENCE`: the value of
    the first dataset that has one, in the order of `datasets`; records of other datasets are ignored (without
    `datasets`, the order in which the datasets are given applies). Events are never merged.

    `identity_graph` determines whose records belong to one person: `NONE` those with one primary identity, `PDG` all
    that are linked by identities.
    """

    id: str
    method: Literal["TIMESTAMP_ORDERED", "DATA_SET_PRECEDENCE"]
    datasets: tuple[str, ...] = ()
    identity_graph: Literal["NONE", "PDG"] = "NONE"


@dataclass(frozen=True, slots=True)
class Sources:
    """The dataset versions of a view; records in order of precedence.

    `members` are datasets whose people are profiles too, although only their identities are known. With a `graph`, they
    are that version's copies by persons.
    """

    rule: MergeRule
    records: Mapping[str, TableVersion]
    events: Mapping[str, TableVersion]
    graph: Graph | None = None
    members: Mapping[str, TableVersion] = field(default_factory=dict)

    @property
    def tables(self) -> Mapping[str, TableVersion]:
        return {**self.records, **self.events, **self.members}

    def paths(self, bucket: int) -> frozenset[Path]:
        """The files of a bucket, from all datasets."""
        return frozenset(path for table in self.tables.values() for path in table.paths(bucket))

    def retired_in(self, bucket: int) -> NDArray[np.int32]:
        """The ordinals of a bucket, ascending, whose rows do not belong to these versions: those of nobody."""
        return np.unique(
            np.concatenate([np.empty(0, np.int32), *(table.retired_in(bucket) for table in self.tables.values())])
        )

    @property
    def kinds(self) -> list[tuple[str, str]]:
        """Each dataset with its kind, in order of precedence: as a list, because databases may not keep the order of
        objects."""
        by_kind = {"PROFILE": self.records, "EVENT": self.events, "AUDIENCE": self.members}
        return [(dataset, kind) for kind, tables in by_kind.items() for dataset in tables]

    @property
    def record_fields(self) -> ObjectType:
        """The fields of all records; if two datasets disagree on a type, the first one's is used."""
        return _all_fields(self.records)

    @property
    def event_fields(self) -> ObjectType:
        return widen(ObjectType({TIMESTAMP: Scalar.TIMESTAMP}), _all_fields(self.events))

    @property
    def schema(self) -> ObjectType:
        """The schema for checking expressions."""
        return profile_schema(self.record_fields, self.event_fields)

    @property
    def stored_fields(self) -> ObjectType:
        """The fields of a profile, with numbers in their stored types."""
        return profile_fields(self.record_fields, self.event_fields)

    @property
    def buckets(self) -> list[int]:
        return sorted({file.bucket for table in self.tables.values() for file in table.files})

    def origins(self) -> dict[int, "Origin"]:
        """The inputs of each bucket's part of the view."""
        people: dict[int, list[str]] = {}
        events: dict[int, list[str]] = {}
        for kind, tables in (("r", self.records), ("a", self.members)):
            for dataset, table in tables.items():
                for file in sorted(table.files, key=lambda file: file.name):
                    people.setdefault(file.bucket, []).append(f"{kind}/{dataset}/{file.name}")
        for dataset, table in self.events.items():
            for file in table.files:
                events.setdefault(file.bucket, []).append(f"{dataset}/{file.name}")
        start = f"{_FORM}/{self.rule.method}"
        if self.graph is not None:
            start += "/pdg"
            for file in self.graph.members:
                if file.bucket in people or file.bucket in events:
                    people.setdefault(file.bucket, []).append(f"m/{file.name}")
        return {
            bucket: Origin(_digest([start, *people.get(bucket, ())]), sorted(events.get(bucket, ())))
            for bucket in people.keys() | events.keys()
        }

    def events_path(self, name: str) -> Path:
        """The path of a file, by its name in an `Origin`."""
        dataset, file = name.split("/", 1)
        return self.events[dataset].folder / file


@dataclass(frozen=True, slots=True)
class Origin:
    """The inputs of a bucket's part of a view: a digest of the rule and of the files that identify people, and the
    names of the files of `events`, which only show that a person exists."""

    people: str
    events: Sequence[str]

    @property
    def fingerprint(self) -> str:
        return _digest([self.people, *self.events])


def _digest(names: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:32]


def sources(
    lake: TenantLake,
    rule: MergeRule,
    datasets: Sequence[Dataset],
    versions: Mapping[str, int] | None = None,
    graph: Graph | None = None,
) -> Sources:
    """The datasets in their current or given versions (a dataset without a version is left out), or by persons as
    copied for a version of the graph."""
    order = [dataset.id for dataset in datasets if dataset.kind == "PROFILE"]
    if rule.method == "DATA_SET_PRECEDENCE" and rule.datasets:
        order = [dataset_id for dataset_id in rule.datasets if dataset_id in order]
    events = [dataset.id for dataset in datasets if dataset.kind == "EVENT"]
    members = [dataset.id for dataset in datasets if dataset.kind == "AUDIENCE"]
    names = [*order, *events, *members]
    if graph is not None:
        tables: Mapping[str, TableVersion | None] = open_stitched(lake, graph).tables
    elif versions is None:
        tables = {name: open_table(lake.dataset(name)) for name in names}
    else:
        tables = {name: open_table(lake.dataset(name), versions[name]) for name in names if name in versions}
    opened = {name: table for name, table in tables.items() if table is not None}
    return Sources(
        rule,
        {name: opened[name] for name in order if name in opened},
        {name: opened[name] for name in events if name in opened},
        graph,
        {name: opened[name] for name in members if name in opened},
    )


def people_graph(lake: TenantLake, datasets: Sequence[Dataset]) -> Graph:
    """The identity graph over all of the sandbox's current datasets."""
    return graph_of(lake, [dataset.id for dataset in datasets])


def schema_of(lake: TenantLake, datasets: Sequence[Dataset]) -> ObjectType:
    """The schema for checking expressions; if datasets disagree on a type, the first one's is used."""
    return sources(lake, MergeRule("", "TIMESTAMP_ORDERED"), datasets).schema


def _all_fields(tables: Mapping[str, TableVersion]) -> ObjectType:
    fields = ObjectType()
    for table in tables.values():
        fields = widen(fields, user_fields(table.schema))
    return fields

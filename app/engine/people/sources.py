"""What a merged view is made of: the versions of the datasets, and the rule that makes one of their records."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

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
    """How the records of a person from several datasets become one.

    `TIMESTAMP_ORDERED`: for each field the newest value that is not null, over all datasets. `DATA_SET_PRECEDENCE`: the
    value of the first dataset that has one, in the order of `datasets`; records of other datasets are left out (with no
    `datasets`, the order is that in which the datasets are given). Events are never merged.

    `identity_graph` tells whose records are one person's: `NONE` those with one primary identity, `PDG` all that are
    linked by identities.
    """

    id: str
    method: Literal["TIMESTAMP_ORDERED", "DATA_SET_PRECEDENCE"]
    datasets: tuple[str, ...] = ()
    identity_graph: Literal["NONE", "PDG"] = "NONE"


@dataclass(frozen=True, slots=True)
class Sources:
    """The dataset versions that a view is made of; records in the order of their precedence.

    `members` are datasets whose people are profiles too, though nothing is known of them but who they are. With a
    `graph` they are the copies by persons of that version.
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
        """The files of a bucket, of all datasets."""
        return frozenset(path for table in self.tables.values() for path in table.paths(bucket))

    @property
    def kinds(self) -> list[tuple[str, str]]:
        """Each dataset with its kind, in the order in which they count: a list, since a database may not keep that of
        an object."""
        by_kind = {"PROFILE": self.records, "EVENT": self.events, "AUDIENCE": self.members}
        return [(dataset, kind) for kind, tables in by_kind.items() for dataset in tables]

    @property
    def record_fields(self) -> ObjectType:
        """The fields of all records; where two datasets disagree on a type, the first one's is taken."""
        return _all_fields(self.records)

    @property
    def event_fields(self) -> ObjectType:
        return widen(ObjectType({TIMESTAMP: Scalar.TIMESTAMP}), _all_fields(self.events))

    @property
    def schema(self) -> ObjectType:
        """What expressions are checked against."""
        return profile_schema(self.record_fields, self.event_fields)

    @property
    def stored_fields(self) -> ObjectType:
        """Of a profile, with its numbers as they are stored."""
        return profile_fields(self.record_fields, self.event_fields)

    @property
    def buckets(self) -> list[int]:
        return sorted({file.bucket for table in self.tables.values() for file in table.files})

    def origins(self) -> dict[int, "Origin"]:
        """For each bucket what its part of the view depends on."""
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
        """Of a file by its name in an `Origin`."""
        dataset, file = name.split("/", 1)
        return self.events[dataset].folder / file


@dataclass(frozen=True, slots=True)
class Origin:
    """What a bucket's part of a view is made of: a digest of the rule and of the files that say who people are, and
    the names of the files of `events`. Those say no more than that somebody is there."""

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
    """The datasets as they are now, or at the versions given (a dataset without one is left out), or by persons as in
    a version of the graph that they were laid out for."""
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
    """Who is the same person, by all of the sandbox's datasets as they are now."""
    return graph_of(lake, [dataset.id for dataset in datasets])


def schema_of(lake: TenantLake, datasets: Sequence[Dataset]) -> ObjectType:
    """The schema that expressions are checked against; where datasets disagree on a type, the first one's is taken."""
    return sources(lake, MergeRule("", "TIMESTAMP_ORDERED"), datasets).schema


def _all_fields(tables: Mapping[str, TableVersion]) -> ObjectType:
    fields = ObjectType()
    for table in tables.values():
        fields = widen(fields, user_fields(table.schema))
    return fields

"""Removes every file with rows of a person that must no longer be read: replaced table versions, compacted files,
merged views, the identity graph and its copies, remains of exports, and samples of rejected rows."""

import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from app.engine.erasure.rows import Rows
from app.engine.erasure.subject import Subject
from app.engine.people.identity_graph import graph_of
from app.engine.store.delta import open_table, replace
from app.engine.store.lake import TenantLake, file_name, write_atomically

PLACES = {
    "datasets": "Older versions of datasets",
    "compacted": "Compacted files of events",
    "identities": "Older versions of identities",
    "profiles": "Merged profiles",
    "graph": "Identity graph",
    "exports": "Unfinished exports",
}
"""Display names of a sandbox's folders."""


@dataclass(frozen=True, slots=True)
class Holding:
    """A file with rows of the person, and its folder in the sandbox."""

    path: Path
    room: str
    rows: int


@dataclass(frozen=True, slots=True)
class Purge:
    """What is removed: files, and mentions in notes."""

    files: list[Holding] = field(default_factory=list)

    def rows(self) -> dict[str, int]:
        """Row counts by place."""
        counted: dict[str, int] = {}
        for holding in self.files:
            place = PLACES[holding.room]
            counted[place] = counted.get(place, 0) + holding.rows
        return counted


def settle(lake: TenantLake, datasets: Collection[str], policies: Collection[str], check: Callable[[], None]) -> None:
    """Waits for readers that build merged profiles, the graph or copies of events from data before the cut. Later
    readers no longer find the person. `check` is called while others are active, and may raise."""
    derived = [f"view {policy}" for policy in policies] + [f"compaction {file_name(dataset)}" for dataset in datasets]
    for name in ("stitched data", "identity graph", *derived):
        with lake.lock(name, check):
            pass


def find_files(
    lake: TenantLake, subject: Subject, sources: Collection[str], datasets: Collection[str], check: Callable[[], None]
) -> Purge:
    """The files to remove. Updates the graph to its current sources first: all datasets except exports."""
    if lake.layout() is not None:
        graph_of(lake, sources)
    present = {path for folder in _present_tables(lake, datasets) for path in folder}
    return Purge([file for file in holding(lake, subject, check) if file.path not in present])


def holding(lake: TenantLake, subject: Subject, check: Callable[[], None]) -> Iterator[Holding]:
    """Every Parquet file outside memberships with rows of the person. `check` is called for each, and may raise."""
    for room in PLACES:
        for path in sorted((lake.folder / room).rglob("*.parquet")):
            check()
            if "_delta_log" in path.parts:
                continue
            try:
                rows = Rows(subject, path).count()
            except FileNotFoundError:
                continue  # Another process has just removed it.
            if rows:
                yield Holding(path, room, rows)


def remove_files(lake: TenantLake, purge: Purge) -> None:
    """Removes the references to the files, then the files. Idempotent."""
    gone = {removed.path for removed in purge.files}
    for view in sorted((lake.folder / "profiles").glob("*/[0-9]*")):
        current = open_table(view)
        if current is not None:
            # The next reader of the view rebuilds these buckets.
            replace(view, [file for file in current.files if view / file.name in gone], [])
    _forget_graphs(lake, gone)
    for path in gone:
        path.unlink(missing_ok=True)


def rejected_samples(lake: TenantLake, subject: Subject) -> int:
    """The number of samples of rejected rows that name the person."""
    return sum(len(_naming(content, subject)) for _, content in _notes(lake))


def remove_samples(lake: TenantLake, subject: Subject) -> None:
    for note, content in _notes(lake):
        if naming := _naming(content, subject):
            rejected = content["ingested"]["rejected"]
            content["ingested"]["rejected"] = [row for row in rejected if row not in naming]
            write_atomically(note, json.dumps(content).encode())


def _present_tables(lake: TenantLake, datasets: Collection[str]) -> Iterator[list[Path]]:
    """The files of the current versions of data that remains readable; views are not included, since they are
    rebuilt."""
    for folder in (lake.identities, *(lake.dataset(dataset) for dataset in datasets)):
        current = open_table(folder)
        if current is not None:
            yield current.paths()
    for _, names in _newest(lake, "versions"):
        yield [lake.graph / table / name for table, files in names.items() for name in files]


def _newest(lake: TenantLake, kind: str) -> Iterator[tuple[Path, dict[str, set[str]]]]:
    yield from _versions(lake, kind)[-1:]


def _versions(lake: TenantLake, kind: str) -> list[tuple[Path, dict[str, set[str]]]]:
    """The notes of the graph's versions (or of the copies by persons), oldest first, with the files that they list."""
    notes = sorted((lake.graph / kind).glob("[0-9]*.json"), key=lambda path: int(path.stem))
    return [(path, _named(json.loads(path.read_text()), kind)) for path in notes]


def _named(content: dict[str, object], kind: str) -> dict[str, set[str]]:
    def names(files: object) -> set[str]:
        return {str(file[0]) for file in files}  # type: ignore[attr-defined]

    if kind == "versions":
        return {table: names(content[table]) for table in ("nodes", "members")}
    return {dataset: names(entry["files"]) for dataset, entry in content.items()}  # type: ignore[index]


def _forget_graphs(lake: TenantLake, gone: Collection[Path]) -> None:
    """Removes the notes of versions that list a removed file: earlier versions of the graph are not needed, since
    memberships written for them resolve to fragments."""
    if not lake.graph.is_dir():
        return
    with lake.lock("stitched data"), lake.lock("identity graph"):
        for kind in ("stitched", "versions"):
            for note, named in _versions(lake, kind):
                folder = lake.graph if kind == "versions" else None
                paths = {
                    (folder / table if folder is not None else lake.stitched(table)) / name
                    for table, files in named.items()
                    for name in files
                }
                if not paths.isdisjoint(gone):
                    note.unlink(missing_ok=True)


def _notes(lake: TenantLake) -> Iterator[tuple[Path, dict[str, dict[str, list[dict[str, str]]]]]]:
    for note in sorted((lake.folder / "datasets").glob("*/_batches/*.json")):
        yield note, json.loads(note.read_text())


def _naming(content: dict[str, dict[str, list[dict[str, str]]]], subject: Subject) -> list[dict[str, str]]:
    return [row for row in content["ingested"]["rejected"] if subject.words.search(row["message"])]

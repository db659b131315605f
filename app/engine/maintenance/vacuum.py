"""Removes from a sandbox's folder what nothing refers to any more; knows no jobs, only what they have pinned.

Nobody tells when a reader is done. So whatever is replaced stays for a while, since when it was replaced, and what a
job has pinned stays as long as the job does. Any number of processes may clean at once, and be killed at it.
"""

import json
import logging
import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from deltalake import DeltaTable

from app.engine.store.lake import TenantLake, file_name, remove_abandoned, write_atomically

log = logging.getLogger(__name__)

RETIRED = ".retired"
"""A mark in a folder that nothing refers to; its time says since when."""
_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{32}")


@dataclass(slots=True)
class Pins:
    """What jobs that have not ended read and write. Of which view a version is, is not told: every view keeps it."""

    datasets: dict[str, set[int]] = field(default_factory=dict)
    views: set[tuple[int, int | None]] = field(default_factory=set)
    graphs: set[int] = field(default_factory=set)
    runs: set[str] = field(default_factory=set)
    jobs: set[str] = field(default_factory=set)

    def add(self, snapshot: object) -> None:
        """Takes up every `Snapshot.pinned`, and the runs of every `heads`, wherever in the value they are."""
        if not isinstance(snapshot, Mapping):
            return
        if snapshot.keys() >= {"datasets", "graph", "view"}:
            for dataset, version in snapshot["datasets"].items():
                self.datasets.setdefault(dataset, set()).add(version)
            self.views.add((snapshot["view"]["generation"], snapshot["view"]["version"]))
            if snapshot["graph"] is not None:
                self.graphs.add(snapshot["graph"])
        self.runs.update((snapshot.get("heads") or {}).values())
        for value in snapshot.values():
            self.add(value)


def lapsed_runs(lake: TenantLake, referenced: Collection[str], keep: timedelta, now: datetime) -> list[Path]:
    """The folders of runs that nothing has referred to for so long; what is newly without reference is marked."""
    referenced_names = {file_name(run) for run in referenced}
    folders = _folders(lake.folder / "membership")
    return list(_retired(folders, referenced_names, keep, now))


@dataclass(frozen=True, slots=True)
class There:
    """The merge policies and datasets that there are; the data of others go."""

    policies: Collection[str]
    datasets: Collection[str]


def clean(lake: TenantLake, there: There, pins: Pins, keep: timedelta, now: datetime) -> None:
    """Removes what has been replaced or deleted for so long, and what killed processes left behind."""
    before = now - keep
    remove_abandoned(lake.folder / "scratch")
    _remove_unfinished(lake.folder, before)
    _clean_table(lake.identities, keep, ())
    live = {file_name(dataset) for dataset in (*there.datasets, *pins.datasets)}
    for gone in _retired(_folders(lake.folder / "datasets"), live, keep, now):
        remove(gone)
    for dataset in _folders(lake.folder / "datasets"):
        versions = next(
            (pinned_versions for id_, pinned_versions in pins.datasets.items() if file_name(id_) == dataset.name), set()
        )
        _clean_table(dataset, keep, versions)
    for gone in _retired(_folders(lake.folder / "compacted"), live, keep, now):
        remove(gone)
    exporting = {file_name(job) for job in pins.jobs}
    for gone in _retired(_folders(lake.folder / "exports"), exporting, keep, now):
        remove(gone)
    _clean_views(lake, there.policies, pins, keep, now)
    _clean_graph(lake, pins.graphs, before)


def remove(folder: Path) -> None:
    """Removes a folder; one that is gone already is no error."""
    shutil.rmtree(folder, ignore_errors=True)


def _clean_table(folder: Path, keep: timedelta, versions: Iterable[int]) -> None:
    """Removes the files that a later version has replaced, except those of the versions given.

    A table that cannot be read is left as it is, and named in the log: it must not stop the cleaning of the others.
    """
    try:
        _remove_replaced_files(folder, keep, versions)
    except Exception as error:  # The library raises many kinds, plain `Exception` among them.
        log.error(
            "cannot clean the table %s: %s; run `segmentation doctor` for details", folder, str(error).split("\n")[0]
        )


def _remove_replaced_files(folder: Path, keep: timedelta, versions: Iterable[int]) -> None:
    if not DeltaTable.is_deltatable(str(folder)):
        return
    # Only listed by the library: removing them itself, it would commit versions of its own between ours.
    hours = int(keep.total_seconds() // 3600)
    table = DeltaTable(folder)
    existing = [version for version in versions if version <= table.version()]
    for name in table.vacuum(hours, dry_run=True, enforce_retention_duration=False, keep_versions=existing or None):
        (folder / name).unlink(missing_ok=True)


def _clean_views(lake: TenantLake, policies: Collection[str], pins: Pins, keep: timedelta, now: datetime) -> None:
    policy_names = {file_name(policy) for policy in policies}
    views = _folders(lake.folder / "profiles")
    for gone in _retired(views, policy_names, keep, now):
        remove(gone)
    for view in _folders(lake.folder / "profiles"):
        generations = sorted((path for path in _folders(view) if path.name.isdigit()), key=lambda path: int(path.name))
        used = {str(generation) for generation, _ in pins.views} | {path.name for path in generations[-1:]}
        for old in _retired(generations, used, keep, now):
            remove(old)
        for generation in generations:
            versions = [version for number, version in pins.views if str(number) == generation.name]
            _clean_table(generation, keep, [version for version in versions if version is not None])


def _clean_graph(lake: TenantLake, pinned: Collection[int], before: datetime) -> None:
    """Removes versions of the identity graph and of the copies by persons, then the files that none is left to name."""
    if not lake.graph.is_dir():
        return
    with lake.lock("stitched data"), lake.lock("identity graph"):
        notes = _numbered(lake.graph / "stitched")
        # The next copies continue the newest, by the graph that they were made for.
        pinned_versions = {*pinned, *list(notes)[-1:]}
        stitched = _remove_replaced(notes, pinned_versions, before)
        graphs = _remove_replaced(_numbered(lake.graph / "versions"), {*pinned_versions, *stitched}, before)
        for table in ("nodes", "members"):
            named = {name for path in graphs.values() for name, *_ in json.loads(path.read_text())[table]}
            _remove_unnamed(lake.graph / table, named)
        copies: dict[str, set[str]] = {}
        for path in stitched.values():
            for dataset, copy in json.loads(path.read_text()).items():
                copies.setdefault(file_name(dataset), set()).update(name for name, *_ in copy["files"])
        for folder in _folders(lake.graph / "data"):
            _remove_unnamed(folder, copies.get(folder.name, set()))


def _numbered(folder: Path) -> dict[int, Path]:
    return {int(path.stem): path for path in sorted(folder.glob("[0-9]*.json"), key=lambda path: int(path.stem))}


def _remove_replaced(versions: dict[int, Path], kept: Collection[int], before: datetime) -> dict[int, Path]:
    """Removes the versions whose successor is old enough; gives those that are left."""
    remaining = dict(versions)
    for (number, path), successor in zip(list(versions.items())[:-1], list(versions.values())[1:], strict=True):
        if number not in kept and _time(successor) < before:
            path.unlink(missing_ok=True)
            del remaining[number]
    return remaining


def _remove_unnamed(folder: Path, named: Collection[str]) -> None:
    for path in folder.rglob("*.parquet"):
        if path.relative_to(folder).as_posix() not in named:
            path.unlink(missing_ok=True)


def _retired(folders: Iterable[Path], referenced: Collection[str], keep: timedelta, now: datetime) -> Iterator[Path]:
    """The folders that have gone without reference for so long, by the marks in them."""
    for folder in folders:
        if _since(folder, folder.name in referenced, now) <= now - keep:
            yield folder


def _since(folder: Path, referenced: bool, now: datetime) -> datetime:
    """Since when nothing refers to the folder; what is referred to, or is gone already, counts as new."""
    mark = folder / RETIRED
    try:
        if not referenced and mark.exists():
            return datetime.fromisoformat(mark.read_text())
        if referenced:
            mark.unlink(missing_ok=True)
        else:
            write_atomically(mark, now.isoformat().encode())
    except FileNotFoundError:
        pass
    return datetime.max.replace(tzinfo=UTC)


def _remove_unfinished(folder: Path, before: datetime) -> None:
    """Removes what killed processes had begun to write and not yet renamed."""
    for pattern in (".*", "membership/*/.*", "graph/*/.*", "datasets/*/_batches/.*"):
        for path in folder.glob(pattern):
            if _UNFINISHED.fullmatch(path.name) and _time(path) < before:
                path.unlink(missing_ok=True)


def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.glob("*") if path.is_dir()) if parent.is_dir() else []


def _time(path: Path) -> datetime:
    """When it was written; one that somebody else has just removed counts as new."""
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except FileNotFoundError:
        return datetime.max.replace(tzinfo=UTC)

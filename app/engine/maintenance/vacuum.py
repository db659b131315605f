"""Removes unreferenced files from a sandbox's folder; knows jobs only by their pins.

Readers do not announce when they are done. Replaced files therefore stay for a period after their replacement, and
files pinned by a job as long as the job runs. Any number of processes may clean concurrently, and be killed at any
time.
"""

import json
import logging
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from app.engine.store.files import remove_tree
from app.engine.store.lake import TenantLake, file_name, remove_abandoned, write_atomically
from app.engine.store.logs import delta_table, is_delta_table
from app.engine.store.objects import ObjectPath

log = logging.getLogger(__name__)

RETIRED = ".retired"
"""A marker file in an unreferenced folder; its time is the start of that state."""
_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{32}")


@dataclass(slots=True)
class Pins:
    """What unfinished jobs read and write. Versions of views are pinned without their view: every view keeps them."""

    datasets: dict[str, set[int]] = field(default_factory=dict)
    views: set[tuple[int, int | None]] = field(default_factory=set)
    graphs: set[int] = field(default_factory=set)
    runs: set[str] = field(default_factory=set)
    jobs: set[str] = field(default_factory=set)

    def add(self, snapshot: object) -> None:
        """Adds every `Snapshot.pinned`, and the runs of every `heads`, at any depth of the value."""
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
    """The folders of runs that have been unreferenced for this long; marks newly unreferenced ones."""
    referenced_names = {file_name(run) for run in referenced}
    folders = _folders(lake.folder / "membership")
    return list(_retired(folders, referenced_names, keep, now))


@dataclass(frozen=True, slots=True)
class There:
    """The existing merge policies and datasets; data of others is removed."""

    policies: Collection[str]
    datasets: Collection[str]


def clean(lake: TenantLake, there: There, pins: Pins, keep: timedelta, now: datetime) -> None:
    """Removes data replaced or deleted longer ago than the period, and remains of killed processes."""
    before = now - keep
    remove_abandoned(lake.spool)
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
    """Removes a folder; one that no longer exists is not an error."""
    remove_tree(folder)


def _clean_table(folder: Path, keep: timedelta, versions: Iterable[int]) -> None:
    """Removes the files that a later version has replaced, except those of the given versions.

    An unreadable table is left unchanged and logged, so that it does not block the cleaning of others.
    """
    try:
        _remove_replaced_files(folder, keep, versions)
    except Exception as error:  # The library raises many types, including plain `Exception`.
        log.error(
            "cannot clean the table %s: %s; run `segmentation doctor` for details", folder, str(error).split("\n")[0]
        )


def _remove_replaced_files(folder: Path, keep: timedelta, versions: Iterable[int]) -> None:
    if not is_delta_table(folder):
        return
    # The library only lists the files: if it removed them itself, it would commit its own versions between ours.
    hours = int(keep.total_seconds() // 3600)
    table = delta_table(folder)
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
    """Removes versions of the identity graph and of the copies by persons, then the files that no version lists."""
    if not lake.graph.is_dir():
        return
    with lake.lock("stitched data"), lake.lock("identity graph"):
        notes = _numbered(lake.graph / "stitched")
        # The next copies continue the newest ones, for the graph they were made for.
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
    """Removes the versions whose successor is old enough, except the `kept` ones; returns the remaining ones."""
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
    """The folders that have been unreferenced for this long, by their markers."""
    for folder in folders:
        if _since(folder, folder.name in referenced, now) <= now - keep:
            yield folder


def _since(folder: Path, referenced: bool, now: datetime) -> datetime:
    """Since when the folder is unreferenced; a referenced or deleted one counts as new."""
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
    """Removes old remains of killed processes: files not yet renamed, and files for other hosts on object storage."""
    if isinstance(folder, ObjectPath):
        for copy, entry in (folder / "scratch").files():
            if entry.written < before:
                copy.unlink()
    for pattern in (".*", "membership/*/.*", "graph/*/.*", "datasets/*/_batches/.*"):
        for path in folder.glob(pattern):
            if _UNFINISHED.fullmatch(path.name) and _time(path) < before:
                path.unlink(missing_ok=True)


def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.glob("*") if path.is_dir()) if parent.is_dir() else []


def _time(path: Path) -> datetime:
    """The modification time; a file that another process has just removed counts as new."""
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except FileNotFoundError:
        return datetime.max.replace(tzinfo=UTC)

"""Where a sandbox's data is stored: folders, locks, scratch space, DuckDB sessions; knows no tables and no formats."""

import fcntl
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from app.engine.limits.budget import DEFAULT_BUDGET, Budget
from app.engine.store.layout import PEOPLE_IN_A_BUCKET, Layout, LayoutLost
from app.engine.store.leases import LeaseLost, held
from app.engine.store.objects import Conflict, ObjectPath, mounted
from app.errors import LakeAway
from app.scope import Tenant

_LOOK_SECONDS = 0.02
"""Seconds between attempts to get a lock, for callers that may stop waiting."""


@dataclass(frozen=True, slots=True)
class Lake:
    """All data below one folder, or one prefix of object storage. `memory_limit` and `threads` apply to each DuckDB
    session, `budget` to each evaluated definition, and `time_zone` to sandboxes without their own."""

    root: Path
    memory_limit: str = "1GB"
    threads: int = 2
    budget: Budget = DEFAULT_BUDGET
    time_zone: str = "UTC"
    refuse_erased: bool = True
    """Whether rows of erased people are rejected; otherwise they are loaded as new people."""
    people_in_a_bucket: int = PEOPLE_IN_A_BUCKET
    """When a sandbox's newest buckets have more on average, new people get further buckets."""
    must_exist: bool = False
    """Whether a missing root is an outage rather than an empty lake."""

    def __post_init__(self) -> None:
        if not isinstance(self.root, ObjectPath):
            object.__setattr__(self, "root", mounted(Path(self.root).resolve()))

    @property
    def place(self) -> str:
        """The location for messages: the URL on object storage, or the path of the folder."""
        return self.root.url if isinstance(self.root, ObjectPath) else str(self.root)

    def check(self) -> None:
        """Raises `LakeAway`, before anything is read as empty or created."""
        # Requests to unavailable object storage fail by themselves; it has no mount point that could be missing.
        if self.must_exist and not isinstance(self.root, ObjectPath) and not self.root.is_dir():
            raise LakeAway

    def is_empty(self) -> bool:
        return not any(self.root.glob("*/*/"))

    def probe(self) -> None:
        """Writes a file and removes it again. Raises `LakeAway` and `OSError`."""
        self.check()
        self.root.mkdir(parents=True, exist_ok=True)
        probe(self.root)

    def tenant(self, tenant: Tenant) -> "TenantLake":
        return TenantLake(self, self.root / file_name(tenant.organisation) / file_name(tenant.sandbox))

    def exports(self) -> dict[str, "TenantLake"]:
        """The ids of export jobs, over all sandboxes, that have invisible files."""
        return {path.name: TenantLake(self, path.parents[1]) for path in self.root.glob("*/*/exports/*")}


@dataclass(frozen=True, slots=True)
class TenantLake:
    """The folder of one sandbox; thread-safe, and usable by several processes."""

    lake: Lake
    folder: Path

    @property
    def _present(self) -> Path:
        """The folder, if the lake is available. Raises `LakeAway`, as does everything that returns a path in it."""
        self.lake.check()
        return self.folder

    @property
    def identities(self) -> Path:
        return self._present / "identities"

    @property
    def graph(self) -> Path:
        """The identity graph, and the data of its persons."""
        return self._present / "graph"

    def dataset(self, dataset_id: str) -> Path:
        return self._present / "datasets" / file_name(dataset_id)

    def compacted(self, dataset_id: str) -> Path:
        """Compacted copies of a dataset's many small files."""
        return self._present / "compacted" / file_name(dataset_id)

    def stitched(self, dataset_id: str) -> Path:
        """A dataset's rows copied by persons."""
        return self.graph / "data" / file_name(dataset_id)

    def views(self, policy_id: str) -> Path:
        """The views of a merge policy, one folder per generation; the last one is in use."""
        return self._present / "profiles" / file_name(policy_id)

    def membership(self, run_id: str) -> Path:
        return self._present / "membership" / file_name(run_id)

    def export(self, job_id: str) -> Path:
        """The invisible files of an export job."""
        return self._present / "exports" / file_name(job_id)

    def erasure(self, job_id: str) -> Path:
        """The subject of an erasure job; exists while the job runs, and nowhere else."""
        return self._present / "erasures" / f"{file_name(job_id)}.json"

    @property
    def erased(self) -> Path:
        """Salted digests of the erased identities."""
        return self._present / "erased.json"

    @contextmanager
    def lock(self, name: str, waiting: Callable[[], None] | None = None) -> Iterator[None]:
        """Excludes every other thread and process from the same `name` of this sandbox; the lock of a dead process is
        released.

        While the lock is taken, `waiting` is called repeatedly; it may raise to stop waiting.
        """
        folder = on_disk(self._present) / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / file_name(name), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            while waiting is not None:
                with suppress(BlockingIOError):
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                waiting()
                time.sleep(_LOOK_SECONDS)
            else:
                fcntl.flock(handle, fcntl.LOCK_EX)
            if isinstance(self.folder, ObjectPath):
                # First lock on this host, then across hosts.
                with held(self.folder / "locks" / file_name(name), waiting or (lambda: None)):
                    yield
            else:
                yield
        finally:
            os.close(handle)

    @property
    def spool(self) -> Path:
        """Where unnamed files are stored."""
        return on_disk(self._present) / "scratch"

    def told(self, scratch: str, name: str) -> Path:
        """A file for other processes on any host, which its writer removes together with the scratch folder of this
        name."""
        return self._present / "scratch" / scratch / name

    def scratch(self) -> AbstractContextManager[Path]:
        """A private folder on the disk of the lake or of its local copies (so that files can be renamed out of it),
        deleted afterwards."""
        return scratch_folder(self.spool)

    @contextmanager
    def session(
        self, scratch: Path, readable: Sequence[Path] = (), many_columns: bool = False
    ) -> Iterator[duckdb.DuckDBPyConnection]:
        """A separate DuckDB session with access to `scratch`, this sandbox's folder and the files of `readable` only.

        Times are UTC. Tables are stored in a file below `scratch`, so that they need no memory. With `many_columns`,
        planning skips a step whose time is quadratic in the number of a query's expressions.
        """
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": self.lake.memory_limit,
            "threads": self.lake.threads,
            "temp_directory": str(scratch / "spill"),
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_community_extensions": False,
            "python_enable_replacements": False,
        }
        connection = duckdb.connect(str(scratch / f"{uuid.uuid4().hex}.duckdb"), config=config)
        try:
            connection.execute("SET TimeZone = 'UTC'")
            # Tables live as long as the session, so compressing them would cost more than it saves.
            connection.execute("SET force_compression = 'uncompressed'")
            if many_columns:
                connection.execute("SET disabled_optimizers = 'common_subexpressions'")
            folders = ", ".join(text_literal(f"{folder}/") for folder in (self.folder, scratch))
            connection.execute(f"SET allowed_directories = [{folders}]")
            connection.execute(f"SET allowed_paths = [{', '.join(text_literal(str(path)) for path in readable)}]")
            connection.execute("SET enable_external_access = false")
            connection.execute("SET lock_configuration = true")
            yield connection
        finally:
            connection.close()

    def layout(self) -> Layout | None:
        """The buckets of the sandbox; None before its first person. Raises `LayoutLost`."""
        try:
            content = self._layout_path.read_bytes()
        except FileNotFoundError:
            if self._has_people():
                raise LayoutLost("layout.json is missing although there are profiles") from None
            return None
        except LakeAway:
            raise
        except OSError:
            raise LayoutLost("layout.json cannot be read") from None
        return Layout.from_json(content)

    def change_layout(self, before: Layout | None, layout: Layout) -> None:
        """Replaces the layout `before`. Call it under the identities' lock, before anyone gets a place in the new one.
        Raises `LeaseLost` if another process has changed it."""
        path = self._layout_path
        if not isinstance(path, ObjectPath):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(path, layout.as_json())
            return
        store, key = path.place
        try:
            content, version = store.get(key) if before is not None else (None, None)
            if content is not None and Layout.from_json(content) != before:
                raise Conflict
            # A holder that lost the lock without noticing must not undo what the next one has added.
            store.put_if(key, layout.as_json(), version)
        except (Conflict, FileNotFoundError):
            raise LeaseLost from None

    @property
    def _layout_path(self) -> Path:
        return self.folder / "layout.json"

    def _has_people(self) -> bool:
        """Whether any person was ever assigned a place."""
        return any(self.identities.glob("_delta_log/*"))


def only_row(database: duckdb.DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    """The only row of a query (read to the end, so that the session is free for the next query)."""
    (row,) = database.execute(query).fetchall()
    return tuple(row)


def text_literal(text: str) -> str:
    """The text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def name_literal(name: str) -> str:
    """The name of a column or field as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def file_name(name: str) -> str:
    """A name that is a safe path component, unique per name even on case-insensitive file systems.

    No percent signs, because Delta's paths are URLs. Names that are too long for file systems end in their hash.

    >>> file_name("../A b")
    '_2e._2f_41_20b'
    """
    if not name:
        raise ValueError("a name in the lake must not be empty")
    plain = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-.")
    safe = "".join(chr(byte) if chr(byte) in plain else f"_{byte:02x}" for byte in name.encode())
    safe = f"_2e{safe[1:]}" if safe.startswith(".") else safe
    # No encoded name contains `_h`, so no other name can be equal.
    return safe if len(safe) <= _LONGEST_NAME else f"{safe[:100]}_h{hashlib.sha256(name.encode()).hexdigest()}"


_LONGEST_NAME = 255
"""Maximum bytes of a path component on common file systems."""


def write_atomically(path: Path, content: bytes) -> None:
    """Readers see either the old file or the complete new one."""
    if isinstance(path, ObjectPath):
        path.write_bytes(content)
        return
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def on_disk(path: Path) -> Path:
    """The same place on this host's disk, invisible to other hosts if the lake is on object storage."""
    return path.copied if isinstance(path, ObjectPath) else path


def probe(folder: Path) -> None:
    """Writes a file and removes it again. Raises `OSError`."""
    write_atomically(folder / ".probe", b"")
    (folder / ".probe").unlink(missing_ok=True)


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """A private folder below `parent`, deleted afterwards.

    Also removes the remains of killed processes, whose folders are no longer locked.
    """
    parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(parent)
    name = uuid.uuid4().hex
    # The lock is beside the folder and is taken before the folder exists, so that it never looks abandoned.
    handle = os.open(parent / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        folder = parent / name
        folder.mkdir()
        yield folder
    finally:
        shutil.rmtree(parent / name, ignore_errors=True)
        with suppress(FileNotFoundError):
            (parent / f"{name}.lock").unlink()
        os.close(handle)


def remove_abandoned(parent: Path) -> None:
    """Removes the scratch folders of dead processes."""
    for lock in parent.glob("*.lock"):
        with suppress(FileNotFoundError):
            handle = os.open(lock, os.O_RDWR)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(parent / lock.stem, ignore_errors=True)
                lock.unlink()
            except BlockingIOError:
                pass
            finally:
                os.close(handle)

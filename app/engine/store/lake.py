"""Where the data of a sandbox lies: folders, locks, scratch space, DuckDB sessions; knows no tables and no formats."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from app.engine.limits.budget import DEFAULT_BUDGET, Budget
from app.errors import ErrorCode, InvalidSettings, LakeAway, Refusal
from app.scope import Tenant

PEOPLE_IN_A_BUCKET = 1 << 16
FEWEST_BUCKET_BITS = 4
MOST_BUCKET_BITS = 14
_LOOK_SECONDS = 0.02
"""How often a lock that somebody else has is tried by those who may give up waiting."""


@dataclass(frozen=True, slots=True)
class Lake:
    """All data below one folder. `memory_limit` and `threads` hold for each DuckDB session, `budget` for each
    definition that is evaluated, and `time_zone` for sandboxes that name none."""

    root: Path
    memory_limit: str = "1GB"
    threads: int = 2
    budget: Budget = DEFAULT_BUDGET
    time_zone: str = "UTC"
    refuse_erased: bool = True
    """Whether rows of people who were erased are rejected; otherwise they come in as somebody new."""
    must_exist: bool = False
    """Whether a root that is not there is an outage and no empty lake."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root).resolve())

    def check(self) -> None:
        """Raises `LakeAway`, before anything is read as empty or made anew."""
        if self.must_exist and not self.root.is_dir():
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
        """The export jobs of all sandboxes that have written something nobody is to see yet, by id."""
        return {path.name: TenantLake(self, path.parents[1]) for path in self.root.glob("*/*/exports/*")}


@dataclass(frozen=True, slots=True)
class TenantLake:
    """The folder of one sandbox; safe to share between threads, and several processes may work in it."""

    lake: Lake
    folder: Path

    @property
    def _present(self) -> Path:
        """The folder, of a lake that is there. Raises `LakeAway`, as does everything that gives a place in it."""
        self.lake.check()
        return self.folder

    @property
    def identities(self) -> Path:
        return self._present / "identities"

    @property
    def graph(self) -> Path:
        """Who is the same person, and the data of those persons."""
        return self._present / "graph"

    def dataset(self, dataset_id: str) -> Path:
        return self._present / "datasets" / file_name(dataset_id)

    def compacted(self, dataset_id: str) -> Path:
        """The rows of many small files of a dataset once more, in few."""
        return self._present / "compacted" / file_name(dataset_id)

    def stitched(self, dataset_id: str) -> Path:
        """A dataset's rows once more, by persons."""
        return self.graph / "data" / file_name(dataset_id)

    def views(self, policy_id: str) -> Path:
        """The views of a merge policy, one folder for each generation; the last one is in use."""
        return self._present / "profiles" / file_name(policy_id)

    def membership(self, run_id: str) -> Path:
        return self._present / "membership" / file_name(run_id)

    def export(self, job_id: str) -> Path:
        """What an export job has written and nobody is to see yet."""
        return self._present / "exports" / file_name(job_id)

    def erasure(self, job_id: str) -> Path:
        """Whom an erasure job is to erase; there while it lasts, and nowhere else."""
        return self._present / "erasures" / f"{file_name(job_id)}.json"

    @property
    def erased(self) -> Path:
        """Salted digests of the identities that were erased."""
        return self._present / "erased.json"

    @contextmanager
    def lock(self, name: str, waiting: Callable[[], None] | None = None) -> Iterator[None]:
        """Keeps every other thread and process out of the same `name` of this sandbox; a dead process lets go of it.

        While somebody else is in, `waiting` is called again and again; it may raise to give up.
        """
        folder = self._present / "locks"
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
            yield
        finally:
            os.close(handle)

    @property
    def spool(self) -> Path:
        """Where files without a name take their room."""
        return self._present / "scratch"

    def scratch(self) -> AbstractContextManager[Path]:
        """A folder of one's own on the same disk (so that files can be renamed out of it), gone afterwards."""
        return scratch_folder(self.spool)

    @contextmanager
    def session(
        self, scratch: Path, readable: Sequence[Path] = (), many_columns: bool = False
    ) -> Iterator[duckdb.DuckDBPyConnection]:
        """A DuckDB of its own for `scratch`, this sandbox's folder and the files of `readable`; it can touch no others.

        Times are UTC. Its tables lie in a file below `scratch`, so that they need no memory. With `many_columns`,
        planning leaves out a step whose time grows with the square of a query's expressions.
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

    def bucket_bits(self) -> int | None:
        """The sandbox has 2^bits buckets; None before its first person. Raises `LayoutLost`."""
        try:
            layout = json.loads((self.folder / "layout.json").read_bytes())
            bits = layout["bucket_bits"]
        except FileNotFoundError:
            if self._has_people():
                raise LayoutLost("layout.json is missing although there are profiles") from None
            return None
        except (ValueError, KeyError, TypeError, OSError):
            raise LayoutLost("layout.json cannot be read") from None
        if type(bits) is not int or not FEWEST_BUCKET_BITS <= bits <= MOST_BUCKET_BITS:
            raise LayoutLost(f"layout.json says {bits!r} bits, which this program never wrote")
        # Said twice, since one damaged digit would be another layout. Earlier versions said it once.
        if layout.get("buckets", 1 << bits) != 1 << bits:
            raise LayoutLost(f"layout.json says {bits} bits, but {layout['buckets']!r} buckets")
        return bits

    def _has_people(self) -> bool:
        """Whether anybody was ever given a place."""
        return any(self.identities.glob("_delta_log/*"))

    def choose_bucket_bits(self, people: int) -> int:
        """The bits for a sandbox that begins with so many people, kept for good. Call it under the identities' lock."""
        bits = self.bucket_bits()
        if bits is None:
            bits = FEWEST_BUCKET_BITS
            while bits < MOST_BUCKET_BITS and people > PEOPLE_IN_A_BUCKET << bits:
                bits += 1
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(
                self.folder / "layout.json", json.dumps({"bucket_bits": bits, "buckets": 1 << bits}).encode()
            )
        return bits


class LayoutLost(Refusal):
    """It is not known in which bucket people lie; guessing would lose those who are there, and double them."""

    def __init__(self, problem: str) -> None:
        super().__init__(
            ErrorCode.INVALID_STATE,
            f"{problem}, and without it no profile could be found: restore it from a copy of the lake "
            "(`segmentation doctor` names the folder)",
        )
        self.problem = problem


def bucket_of(profile_id: str, bits: int) -> int:
    """The bucket of a person by the id `namespace:id`; `bucket_sql` says the same in SQL.

    >>> bucket_of("CRM:00001", 4) in range(16)
    True
    """
    return int.from_bytes(hashlib.md5(profile_id.encode()).digest()[8:], "little") & ((1 << bits) - 1)


def bucket_sql(profile_id: str, bits: int) -> str:
    """The bucket as SQL; `profile_id` is an SQL expression."""
    return f"(md5_number_lower({profile_id}) & {(1 << bits) - 1})::INTEGER"


def only_row(database: duckdb.DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    """The one row of a query (read to its end, so that the session is free for the next)."""
    (row,) = database.execute(query).fetchall()
    return tuple(row)


def text_literal(text: str) -> str:
    """The text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def name_literal(name: str) -> str:
    """The name of a column or field as SQL."""
    return '"' + name.replace('"', '""') + '"'


def file_name(name: str) -> str:
    """A name that is safe as one path component, different for different names, also where case does not count.

    No percent signs: Delta's paths are URLs. Names that file systems would find too long end in their hash.

    >>> file_name("../A b")
    '_2e._2f_41_20b'
    """
    if not name:
        raise ValueError("a name in the lake must not be empty")
    plain = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-.")
    safe = "".join(chr(byte) if chr(byte) in plain else f"_{byte:02x}" for byte in name.encode())
    safe = f"_2e{safe[1:]}" if safe.startswith(".") else safe
    # No name is written with `_h`, so that no other one can be equal.
    return safe if len(safe) <= _LONGEST_NAME else f"{safe[:100]}_h{hashlib.sha256(name.encode()).hexdigest()}"


_LONGEST_NAME = 255
"""Bytes of a path component, on all usual file systems."""


def write_atomically(path: Path, content: bytes) -> None:
    """Readers see the old file or the whole new one."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def probe(folder: Path) -> None:
    """Writes a file and removes it again. Raises `OSError`."""
    write_atomically(folder / ".probe", b"")
    (folder / ".probe").unlink(missing_ok=True)


def refuse_unfit(folder: Path) -> None:
    """Raises `InvalidSettings` on a file system that lacks what tables and locks need, as mounts of object storage do:
    hard links (a commit of Delta's is one, and fails if another took its number), and locks that exclude each other."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".probe-") as probes:
        missing = _missing_in(Path(probes))
    if missing:
        raise InvalidSettings(
            f"SEGMENTATION_DATA_DIR={folder} is on a file system without {missing}, where data could be lost: use a "
            "local disk, or a shared file system that `app/docs/production.md` names"
        )


def _missing_in(folder: Path) -> str | None:
    file, lacks = folder / "file", "hard links"
    file.touch()
    try:
        (folder / "linked").hardlink_to(file)
        lacks = "locks"
        with file.open("rb") as one, file.open("rb") as other:
            fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno not in _NOT_POSSIBLE:
            raise
    return lacks


_NOT_POSSIBLE = frozenset({errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK})


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """A folder of one's own below `parent`, gone afterwards.

    What a killed process left behind is removed on the way: its folder is no longer locked.
    """
    parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(parent)
    name = uuid.uuid4().hex
    # The lock lies beside the folder and is taken before that exists, so that nobody takes it for abandoned.
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
    """Removes the scratch folders of processes that are gone."""
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

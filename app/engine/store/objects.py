"""Object storage as the location of a lake: paths that are used like those of a disk; knows no tables and no formats.

An `ObjectPath` is the path of an object's copy in the cache folder of this host. Queries and changes go to the storage,
which alone is authoritative. Parquet files are written once, and read by libraries that need a local file: `os.fspath`
of such a path downloads the file unless there is a copy. Other objects are small, and read from the storage each time.
"""

import errno
import io
import os
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path, PosixPath
from typing import IO, TYPE_CHECKING
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError, PreconditionError
from obstore.store import S3Store

from app.engine.store.fences import require_leases
from app.errors import LakeAway, outage

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import S3Config


_RETRIES, _RETRY_SECONDS, _CONNECT_SECONDS, _REQUEST_SECONDS = 4, 8, 3, 60
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
_USED_SECONDS = 60
"""Precision in seconds of the time when a copy was last used, which is its access time."""
_INCOMING = ".incoming"
_NO_BUCKET = "NoSuchBucket"
_UNKNOWN = "the object storage that SEGMENTATION_DATA_DIR names cannot be used: the log says why"


class Conflict(Exception):
    """The object is not in the state that a conditional write requires."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An object: its key below the prefix of the storage, and its `version`, which differs for different contents."""

    key: str
    size: int
    written: datetime
    version: str

    @property
    def number(self) -> int:
        return zlib.crc32(self.version.encode())


class ObjectStore:
    """The objects below one prefix of a bucket; thread-safe. All methods raise `LakeAway` if the storage does not
    answer or rejects the request.

    >>> ObjectStore("s3://people/lake/").url
    's3://people/lake'
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.url = f"s3://{parts.netloc}/{parts.path.strip('/')}".rstrip("/")
        # Credentials are read by the libraries themselves, in the usual order of the AWS variables.
        endpoint = next((value for name in _ENDPOINTS if (value := os.environ.get(name))), None)
        region = next((value for name in _REGIONS if (value := os.environ.get(name))), "us-east-1")
        self.name = f"{self.url} at {endpoint}"
        http = endpoint is not None and endpoint.startswith("http://")
        connect, request = f"{_CONNECT_SECONDS}s", f"{_REQUEST_SECONDS}s"
        self.options: Mapping[str, str] = {
            "aws_region": region,
            "aws_conditional_put": "etag",
            "allow_http": str(http).lower(),
            "connect_timeout": connect,
            "timeout": request,
            "max_retries": str(_RETRIES),
            "retry_timeout": f"{_RETRY_SECONDS}s",
        } | ({"aws_endpoint": endpoint} if endpoint else {})
        """For libraries that access the storage themselves."""
        config: S3Config = {"region": region, "conditional_put": "etag"}
        if endpoint:
            config["endpoint"] = endpoint
        self._store = S3Store(
            parts.netloc,
            prefix=parts.path.strip("/") or None,
            config=config,
            client_options={"allow_http": http, "connect_timeout": connect, "timeout": request},
            retry_config={"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=_RETRY_SECONDS)},
        )

    def head(self, key: str) -> Entry:
        """The object without its content. Raises `FileNotFoundError`."""
        with _answers():
            return _entry(obstore.head(self._store, key))

    def get(self, key: str) -> tuple[bytes, str]:
        """The content and its version. Raises `FileNotFoundError`."""
        with _answers():
            result = obstore.get(self._store, key)
            return bytes(result.bytes()), str(result.meta["e_tag"])

    def download(self, key: str, target: Path) -> None:
        """Writes the content into a local file. Raises `FileNotFoundError`."""
        with _answers(), target.open("wb") as file:
            for chunk in obstore.get(self._store, key).stream():
                file.write(chunk)

    def put(self, key: str, content: bytes | Path) -> str:
        """Writes the object atomically and returns its version."""
        with _answers():
            return str(obstore.put(self._store, key, content)["e_tag"])

    def put_if(self, key: str, content: bytes, version: str | None) -> str:
        """Like `put`, but raises `Conflict` unless the object has this version or, with None, does not exist."""
        with _answers():
            if version is None:
                return str(obstore.put(self._store, key, content, mode="create")["e_tag"])
            return str(obstore.put(self._store, key, content, mode={"e_tag": version})["e_tag"])

    def delete(self, keys: Sequence[str]) -> None:
        """Deletes the objects; one that no longer exists is not an error."""
        if keys:
            with _answers(), suppress(FileNotFoundError):
                obstore.delete(self._store, keys)

    def copy(self, source: str, target: str) -> None:
        with _answers():
            obstore.copy(self._store, source, target)

    def below(self, folder: str, after: str | None = None) -> Iterator[Entry]:
        """All objects in a folder and its subfolders, ordered by key; with `after`, only those after that key."""
        with _answers():
            for chunk in obstore.list(self._store, folder or None, offset=after):
                yield from map(_entry, chunk)

    def level(self, folder: str) -> tuple[list[str], list[Entry]]:
        """The keys of a folder's direct subfolders, and its direct objects."""
        with _answers():
            result = obstore.list_with_delimiter(self._store, folder or None)
        return list(result["common_prefixes"]), [_entry(entry) for entry in result["objects"]]


def _entry(meta: "ObjectMeta") -> Entry:
    return Entry(meta["path"], meta["size"], meta["last_modified"], str(meta["e_tag"]))


@contextmanager
def _answers() -> Iterator[None]:
    """Converts the library's errors: a failed condition to `Conflict`, a missing object to `FileNotFoundError`, and all
    others, including a missing bucket, to `LakeAway`."""
    try:
        yield
    except (AlreadyExistsError, PreconditionError) as error:
        raise Conflict from error
    except (NotFoundError, FileNotFoundError) as error:
        if _NO_BUCKET in str(error):
            raise LakeAway(outage(error) or _UNKNOWN) from error
        # Without its cause, whose text `outage` would take for an outage.
        raise FileNotFoundError(errno.ENOENT, "no such object") from None
    except BaseError as error:
        raise LakeAway(outage(error) or _UNKNOWN) from error


# ---------------------------------------------------------------- mounts

_mounts: dict[str, ObjectStore] = {}
"""The mounted storages, by the folder of their copies."""
_fetching: dict[str, threading.Lock] = {}
_fetching_guard = threading.Lock()


def mount(url: str, cache: Path) -> "ObjectPath":
    """The root of a lake on object storage; its Parquet files are copied into a folder below `cache` when read."""
    store = ObjectStore(url)
    root = ObjectPath(cache.resolve() / f"copies-{zlib.crc32(store.name.encode()):08x}")
    root.copied.mkdir(parents=True, exist_ok=True)
    _mounts.setdefault(str(root), store)
    return root


def mounted(root: Path) -> Path:
    """The root of the lake that this process has mounted at the folder; the folder itself if there is none."""
    return ObjectPath(root) if str(root) in _mounts else root


class ObjectPath(PosixPath):
    """A path of a lake on object storage; a folder exists as long as it contains an object."""

    __slots__ = ()

    @property
    def place(self) -> tuple[ObjectStore, str]:
        """The storage, and the key below its prefix. Raises `ValueError` for a path outside all mounted lakes."""
        text = str(self)
        for folder, store in _mounts.items():
            if text == folder or text.startswith(f"{folder}/"):
                return store, text[len(folder) + 1 :]
        raise ValueError(f"{text} is in no lake on object storage")

    @property
    def url(self) -> str:
        store, key = self.place
        return f"{store.url}/{key}".rstrip("/")

    @property
    def copied(self) -> Path:
        """The path of this host's copy, whether it exists or not."""
        return Path(str(self))

    def __fspath__(self) -> str:
        if self.suffix == ".parquet":
            self._fetch()
        return str(self)

    def _fetch(self) -> None:
        """Downloads the file unless there is a copy. If there is no such object, opening the file fails instead."""
        with suppress(FileNotFoundError):
            state = os.stat(str(self))
            if time.time() - state.st_atime > _USED_SECONDS:
                os.utime(str(self), ns=(time.time_ns(), state.st_mtime_ns))
            return
        store, key = self.place
        with _alone(str(self)):
            if self.copied.exists():
                return
            self.copied.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=_INCOMING, dir=self.copied.parent)
            os.close(handle)
            try:
                store.download(key, Path(name))
                os.replace(name, str(self))
            except FileNotFoundError:
                pass
            finally:
                Path(name).unlink(missing_ok=True)

    # ---- queries

    def _head(self) -> Entry | None:
        store, key = self.place
        try:
            return store.head(key) if key else None
        except FileNotFoundError:
            return None

    def exists(self, **_: bool) -> bool:
        return self.is_file() or self.is_dir()

    def is_file(self, **_: bool) -> bool:
        return self._head() is not None

    def is_dir(self, **_: bool) -> bool:
        store, key = self.place
        folders, objects = store.level(key)
        return bool(folders or objects)

    def stat(self, **_: bool) -> os.stat_result:
        """The size, the time of writing, and an inode number that is derived from the version of the content."""
        store, key = self.place
        entry = store.head(key)
        seconds = entry.written.timestamp()
        times = {"st_mtime": seconds, "st_mtime_ns": int(seconds * 1_000_000_000)}
        return os.stat_result((0o100644, entry.number, 0, 1, 0, 0, entry.size, *[int(seconds)] * 3), times)

    def entries(self) -> list["tuple[ObjectPath, bool]"]:
        """The direct contents of the folder, sorted, each with whether it is a folder."""
        store, key = self.place
        folders, objects = store.level(key)
        names = [(name.rstrip("/"), True) for name in folders] + [(entry.key, False) for entry in objects]
        return sorted((self / name.rpartition("/")[2], is_folder) for name, is_folder in names)

    def files(self, after: str | None = None) -> Iterator["tuple[ObjectPath, Entry]"]:
        """All files in the folder and its subfolders; with `after`, only those after this name in the folder."""
        store, key = self.place
        start = len(key) + 1 if key else 0
        for entry in store.below(key, None if after is None else f"{key}/{after}"):
            yield self / entry.key[start:], entry

    def iterdir(self) -> Iterator["ObjectPath"]:  # type: ignore[override]
        yield from (path for path, _ in self.entries())

    def glob(self, pattern: str, **_: object) -> Iterator["ObjectPath"]:  # type: ignore[override]
        yield from _matching(self, PosixPath(pattern).parts)

    def rglob(self, pattern: str, **_: object) -> Iterator["ObjectPath"]:  # type: ignore[override]
        """Finds only files, no folders."""
        yield from (path for path, _ in self.files() if fnmatchcase(path.name, pattern))

    # ---- content

    def read_bytes(self) -> bytes:
        if self.suffix == ".parquet":
            return Path(os.fspath(self)).read_bytes()
        store, key = self.place
        return store.get(key)[0]

    def read_text(self, *_: object, **__: object) -> str:
        return self.read_bytes().decode()

    def open(self, mode: str = "r", *_: object, **__: object) -> IO[bytes] | IO[str]:  # type: ignore[override]
        """Opens the file for reading. Raises `ValueError` for other modes: objects are only written as a whole."""
        if mode not in {"r", "rb"}:
            raise ValueError(f"an object cannot be opened with {mode!r}")
        if self.suffix == ".parquet":
            return Path(os.fspath(self)).open("rb")
        return io.BytesIO(self.read_bytes()) if mode == "rb" else io.StringIO(self.read_text())

    def write_bytes(self, data: "bytes | bytearray | memoryview") -> int:  # type: ignore[override]
        """Writes the object atomically. Raises `LeaseLost` if this thread has lost one of its locks."""
        require_leases()
        store, key = self.place
        self.copied.unlink(missing_ok=True)
        store.put(key, bytes(data))
        return len(data)

    def touch(self, *_: object, **__: object) -> None:
        self.write_bytes(b"")

    def take(self, file: Path) -> None:
        """Uploads a local file, which is then moved to the place of the copy."""
        store, key = self.place
        store.put(key, file)
        self.copied.parent.mkdir(parents=True, exist_ok=True)
        os.replace(file, str(self))

    # ---- changes

    def mkdir(self, *_: object, **__: object) -> None:
        """Does nothing: folders exist once they contain an object."""

    def unlink(self, missing_ok: bool = True) -> None:
        store, key = self.place
        store.delete([key])
        self.copied.unlink(missing_ok=True)

    def replace(self, target: "str | os.PathLike[str]") -> "ObjectPath":
        """Moves an object by copying and deleting it, so it exists in both places for a moment. Raises `LeaseLost` if
        this thread has lost one of its locks."""
        assert isinstance(target, ObjectPath)
        require_leases()
        (store, key), (_, there) = self.place, target.place
        store.copy(key, there)
        target.copied.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            os.replace(str(self), str(target))
        store.delete([key])
        return target

    rename = replace

    def remove_tree(self) -> None:
        store, key = self.place
        store.delete([entry.key for entry in store.below(key)])


def _matching(folder: ObjectPath, parts: Sequence[str]) -> Iterator[ObjectPath]:
    head, *rest = parts
    if not any(sign in head for sign in "*?["):
        path = folder / head
        if rest:
            yield from _matching(path, rest)
        elif path.exists():
            yield path
        return
    for path, is_folder in folder.entries():
        if fnmatchcase(path.name, head):
            if not rest:
                yield path
            elif is_folder:
                yield from _matching(path, rest)


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """Lets one thread at a time fetch the file."""
    with _fetching_guard:
        lock = _fetching.setdefault(name, threading.Lock())
    try:
        with lock:
            yield
    finally:
        with _fetching_guard:
            _fetching.pop(name, None)

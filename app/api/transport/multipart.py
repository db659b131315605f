"""Multipart requests (GraphQL multipart request specification), streamed to disk, so that large files need little
memory."""

import os
from collections.abc import AsyncIterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import orjson
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.api.transport.json_text import read_json

LONGEST_FIELD = 1024 * 1024
"""Maximum size in bytes of `operations` or `map`."""

MOST_FILES = 20

SPECIFICATION = "https://github.com/jaydenseric/graphql-multipart-request-spec"


class BadMultipart(Exception):
    """The multipart request violates the specification; the message is sent to the client."""

    def __init__(self, message: str, status: int = 400, limit: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.limit = limit


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A folder for the files of one request, deleted with it."""
    with TemporaryDirectory(prefix="request-", dir=folder) as name:
        yield Path(name)


async def read_operations(content_type: str, body: AsyncIterable[bytes], folder: Path, max_bytes: int) -> object:
    """Parses the `operations` of a request, and inserts the paths of its files (in `folder`) where the files belong.

    Raises `BadMultipart`.
    """
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if not boundary:
        raise BadMultipart("the content type multipart/form-data has no boundary")
    parts = _Parts(folder)
    parser = MultipartParser(boundary, parts.callbacks())
    size = 0
    try:
        async for chunk in body:
            size += len(chunk)
            if size > max_bytes:
                raise BadMultipart(
                    f"the request is larger than {max_bytes:,} bytes: send the rows in several files",
                    413,
                    "max_upload_bytes",
                )
            parser.write(chunk)
        parser.finalize()
    except MultipartParseError as error:
        raise BadMultipart(f"the multipart body cannot be read: {error}") from None
    finally:
        parts.close()
    if not parts.complete:
        raise BadMultipart("the multipart body ends in the middle: send it again")
    return parts.operations()


class _Parts:
    """Handles the parser's events: collects texts in memory, writes files to the folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._texts: dict[str, bytearray] = {}
        self._files: dict[str, Path] = {}
        self._headers: dict[bytes, bytes] = {}
        self._field, self._value = b"", b""
        self._text: bytearray | None = None
        self._file: BinaryIO | None = None
        self.complete = False

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._open,
            "on_part_data": self._data,
            "on_part_end": self.close,
            "on_end": self._end,
        }

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = self._text = None

    def operations(self) -> object:
        operations, places = self._read("operations"), self._read("map")
        if not isinstance(operations, dict):
            raise BadMultipart(
                "`operations` must be one operation, a JSON object: lists of operations are not supported"
            )
        if not isinstance(places, dict):
            raise BadMultipart(f"`map` must be a JSON object of lists of paths: see {SPECIFICATION}")
        for name, paths in places.items():
            if name not in self._files:
                raise BadMultipart(f"`map` names the file {name!r}, and the request has no such part")
            for path in paths if isinstance(paths, list) else [paths]:
                _put(operations, path, self._files[name])
        return operations

    def _read(self, name: str) -> object:
        if name not in self._texts:
            raise BadMultipart(f"the request has no part `{name}`: see {SPECIFICATION}")
        try:
            return read_json(self._texts[name])
        except orjson.JSONDecodeError as error:
            raise BadMultipart(f"the part `{name}` is not JSON: {error}") from None

    def _begin(self) -> None:
        self._headers = {}

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._field.lower()] = self._value
        self._field, self._value = b"", b""

    def _open(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        name = options.get(b"name", b"").decode(errors="replace")
        if b"filename" not in options:
            self._text = self._texts[name] = bytearray()
            return
        if len(self._files) == MOST_FILES:
            raise BadMultipart(f"the request has more than {MOST_FILES} files: send them in several requests")
        # Files are named by number, independently of the client's names.
        self._files[name] = self._folder / str(len(self._files))
        self._file = open(self._files[name], "wb", buffering=0)  # noqa: SIM115 - closed at the end of the part

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            os.write(self._file.fileno(), memoryview(data)[start:end])
        elif self._text is not None:
            if len(self._text) + end - start > LONGEST_FIELD:
                raise BadMultipart(
                    f"`operations` and `map` are at most {LONGEST_FIELD:,} bytes each", 413, "operations"
                )
            self._text += data[start:end]

    def _end(self) -> None:
        self.complete = True


def _put(operations: Any, path: object, file: Path) -> None:
    """Replaces the null at `path`, such as `variables.input.file`."""
    *way, last = str(path).split(".")
    container = operations
    try:
        for name in way:
            container = container[int(name)] if isinstance(container, list) else container[name]
        place: object = int(last) if isinstance(container, list) else last
        if container[place] is not None:
            raise BadMultipart(f"`map` puts a file at {path!r}, and there is a value already: it must be null")
        container[place] = file
    except (KeyError, IndexError, ValueError, TypeError):
        raise BadMultipart(f"`map` puts a file at {path!r}, and `operations` has no null there") from None

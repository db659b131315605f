"""Documents that requests reference instead of sending: those registered by clients, and trusted documents.

Clients register documents with Apollo's protocol for automatic persisted queries: they send the hash alone, and the
text with the hash if the server does not know it. With trusted documents configured, no other documents run.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Self

import orjson
from graphql import GraphQLError, GraphQLSchema, parse, strip_ignored_characters, validate

LONGEST_REGISTERED = 20_000
"""Maximum length in characters of a registered document; longer ones must be sent every time."""


class DocumentRefused(Exception):
    """The document cannot be run; message, code and HTTP status follow Apollo's protocol."""

    def __init__(self, message: str, code: str, status: int) -> None:
        super().__init__(message)
        self.code, self.status = code, status


class InvalidDocuments(Exception):
    """Trusted documents cannot be read; the message says which and why."""


class Documents:
    """Determines the text that a request runs. Registered documents belong to an organisation, so that another one
    cannot probe them by hash. At most `registered` documents are kept in total, the least recently used being dropped;
    0 disables registration."""

    def __init__(self, registered: int = 1_000, trusted: "TrustedDocuments | None" = None) -> None:
        self._most, self._trusted = registered, trusted
        self._texts: OrderedDict[tuple[str, str], str] = OrderedDict()

    def text(self, organisation: str, query: str | None, id_: str | None) -> str:
        """The document of a request that sends `query`, or references one by `id_`, or both. Raises
        `DocumentRefused`."""
        if self._trusted is not None:
            return self._trusted.text(query, id_)
        if id_ is None:
            return query or ""
        if not self._most:
            raise DocumentRefused("PersistedQueryNotSupported", "PERSISTED_QUERY_NOT_SUPPORTED", 200)
        key = (organisation, id_)
        if query is not None:
            if sha256(query.encode()).hexdigest() != id_:
                message = "provided sha does not match query: send the SHA-256 of the text of `query`, in hexadecimal"
                raise DocumentRefused(message, "BAD_REQUEST", 400)
            if len(query) <= LONGEST_REGISTERED:
                self._texts[key] = query
        text = query or self._texts.get(key)
        if text is None:
            raise DocumentRefused("PersistedQueryNotFound", "PERSISTED_QUERY_NOT_FOUND", 200)
        if key in self._texts:
            self._texts.move_to_end(key)
        if len(self._texts) > self._most:
            self._texts.popitem(last=False)
        return text


@dataclass(slots=True)
class TrustedDocuments:
    """The only documents that may run, identified by id or by text, in which spaces, commas and comments are
    ignored."""

    by_id: dict[str, str] = field(default_factory=dict)
    texts: set[str] = field(default_factory=set)
    stripped: set[str] = field(default_factory=set)

    def text(self, query: str | None, id_: str | None) -> str:
        """Raises `DocumentRefused`."""
        if query is None:
            if id_ not in self.by_id:
                message = f"the document {id_!r} is not on this server's list of trusted documents: add it there"
                raise DocumentRefused(message, "PERSISTED_QUERY_NOT_IN_LIST", 403)
            return self.by_id[id_]
        if query not in self.texts and _stripped(query) not in self.stripped:
            message = "this server runs only the documents on its list, and this one is not there: add it there"
            raise DocumentRefused(message, "QUERY_NOT_IN_SAFELIST", 403)
        return query

    @classmethod
    def read(cls, path: Path, schema: GraphQLSchema) -> Self:
        """Reads a `.graphql` file, a manifest of Apollo's or Relay's tools (`.json`), or a folder of these.

        Raises `InvalidDocuments` if a document is invalid for the schema, or if there are none.
        """
        trusted = cls()
        for file in _files(path):
            for id_, text in _documents(file):
                trusted._add(id_, text, schema, file)
        if not trusted.texts:
            raise InvalidDocuments(f"{path} holds no documents: put .graphql files or a .json manifest there")
        return trusted

    def _add(self, id_: str, text: str, schema: GraphQLSchema, file: Path) -> None:
        try:
            problems = validate(schema, parse(text))
        except GraphQLError as error:
            problems = [error]
        if problems:
            raise InvalidDocuments(f"the document {id_} in {file} is not valid: {problems[0].message}")
        if self.by_id.setdefault(id_, text) != text:
            raise InvalidDocuments(f"two documents have the id {id_}, one of them in {file}")
        self.by_id[sha256(text.encode()).hexdigest()] = text
        self.texts.add(text)
        self.stripped.add(strip_ignored_characters(text))


def _stripped(text: str) -> str | None:
    try:
        return strip_ignored_characters(text)
    except GraphQLError:
        return None


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from sorted(file for file in path.rglob("*") if file.suffix in {".graphql", ".gql", ".json"})
    elif path.is_file():
        yield path
    else:
        raise InvalidDocuments(f"{path} does not exist: name a file or a folder")


def _documents(file: Path) -> Iterator[tuple[str, str]]:
    """Ids and texts of the documents in a file."""
    try:
        text = file.read_text(encoding="utf-8")
        if file.suffix != ".json":
            yield sha256(text.encode()).hexdigest(), text
            return
        manifest = orjson.loads(text)
    except (OSError, ValueError) as error:
        raise InvalidDocuments(f"{file} cannot be read: {error}") from None
    for id_, body in _listed(manifest):
        if not isinstance(id_, str) or not isinstance(body, str):
            raise InvalidDocuments(f"{file} is no manifest: {id_!r} must be the id of a text")
        yield id_, body


def _listed(manifest: object) -> Iterator[tuple[object, object]]:
    """Apollo's manifest contains a list of operations, Relay's an object of texts by id."""
    if isinstance(manifest, Mapping) and isinstance(manifest.get("operations"), list):
        for operation in manifest["operations"]:
            named = operation if isinstance(operation, Mapping) else {}
            yield named.get("id"), named.get("body")
    elif isinstance(manifest, Mapping):
        yield from manifest.items()
    else:
        yield None, None

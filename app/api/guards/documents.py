"""Documents that requests name instead of sending: those that a client registered, and the list of trusted ones.

Clients register documents by Apollo's protocol of automatic persisted queries: the hash alone, and the text with the
hash when the server does not know it. Where documents are trusted, nothing else runs.
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
"""Characters of a document that is remembered for its client; longer ones must be sent each time."""


class DocumentRefused(Exception):
    """A document that does not run; the message, code and HTTP status are those of Apollo's protocol."""

    def __init__(self, message: str, code: str, status: int) -> None:
        super().__init__(message)
        self.code, self.status = code, status


class InvalidDocuments(Exception):
    """Trusted documents that cannot be read; the message says which and why."""


class Documents:
    """Which text a request runs. Registered documents belong to an organisation: no other one can learn by a hash what
    it asks. Of `registered` documents in all, those used longest ago go first; 0 takes none."""

    def __init__(self, registered: int = 1_000, trusted: "TrustedDocuments | None" = None) -> None:
        self._most, self._trusted = registered, trusted
        self._texts: OrderedDict[tuple[str, str], str] = OrderedDict()

    def text(self, organisation: str, query: str | None, id_: str | None) -> str:
        """The document of a request that sends `query`, or names one by `id_`, or both. Raises `DocumentRefused`."""
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
    """The only documents that run: by id, or by their text, in which spaces, commas and comments do not count."""

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
        """From a `.graphql` file, a manifest as Apollo's or Relay's tools write it (`.json`), or a folder of these.

        Raises `InvalidDocuments` when one of them is not valid for the schema, or there is none.
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
    """Apollo's manifest has a list of operations; Relay's is one object of texts by id."""
    if isinstance(manifest, Mapping) and isinstance(manifest.get("operations"), list):
        for operation in manifest["operations"]:
            named = operation if isinstance(operation, Mapping) else {}
            yield named.get("id"), named.get("body")
    elif isinstance(manifest, Mapping):
        yield from manifest.items()
    else:
        yield None, None

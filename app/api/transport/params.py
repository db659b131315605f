"""Parses what a request or a WebSocket's `subscribe` asks to execute; knows no transport."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from app.storage.columns import StoredValues

_HASH = re.compile(r"[0-9a-f]{64}")
LONGEST_ID = 255


class BadRequest(Exception):
    """The request is not a valid GraphQL request; the message is sent to the client."""

    def __init__(
        self,
        status: int,
        message: str,
        headers: Mapping[str, str] | None = None,
        code: str | None = None,
        limit: str | None = None,
    ) -> None:
        super().__init__(message)
        self.limit = limit
        self.status = status
        self.headers = dict(headers or {})
        self.code = code or "BAD_REQUEST"


@dataclass(frozen=True, slots=True)
class Params:
    """What to execute: a document by text, by id, or both."""

    query: str | None
    document_id: str | None
    variables: StoredValues | None
    operation_name: str | None


def read_params(params: object) -> Params:
    """Parses a GraphQL request. Raises `BadRequest` if it is invalid."""
    if isinstance(params, list):
        raise BadRequest(400, "several operations in one request are not supported: send each by itself")
    if not isinstance(params, dict):
        raise BadRequest(
            400, "a GraphQL request is a JSON object with `query`, and perhaps `variables` and `operationName`"
        )
    query, variables, name = params.get("query"), params.get("variables"), params.get("operationName")
    if not isinstance(params.get("extensions"), dict | None):
        raise BadRequest(400, "`extensions` must be a JSON object")
    id_ = _document_id(params)
    if query is None and id_ is not None:
        pass
    elif not isinstance(query, str) or not query.strip():
        raise BadRequest(400, "the request has no `query`, which must be the text of a GraphQL document")
    if variables is not None and not isinstance(variables, dict):
        raise BadRequest(400, "`variables` must be a JSON object")
    if name is not None and not isinstance(name, str):
        raise BadRequest(400, "`operationName` must be a text")
    return Params(query, id_, variables, name or None)


def _document_id(params: StoredValues) -> str | None:
    """The id of a registered or trusted document: Apollo's `extensions.persistedQuery`, `documentId` (of GraphQL over
    HTTP, with or without `sha256:`), or Relay's `doc_id`."""
    persisted = (params.get("extensions") or {}).get("persistedQuery")
    if persisted is not None:
        if not isinstance(persisted, dict) or persisted.get("version") != 1:
            raise BadRequest(400, "`extensions.persistedQuery` must be an object with the `version` 1")
        hash_ = persisted.get("sha256Hash")
        if not isinstance(hash_, str) or not _HASH.fullmatch(hash_):
            message = "`extensions.persistedQuery.sha256Hash` must be a SHA-256 in 64 hexadecimal digits, in lower case"
            raise BadRequest(400, message)
        return hash_
    for name in ("documentId", "doc_id"):
        id_ = params.get(name)
        if id_ is not None:
            if not isinstance(id_, str) or not 0 < len(id_) <= LONGEST_ID:
                raise BadRequest(400, f"`{name}` must be a text of 1 to {LONGEST_ID} characters")
            return id_.removeprefix("sha256:")
    return None

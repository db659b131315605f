"""Erased people, as salted digests of their identities: sufficient to recognise an identity, but not to reveal it."""

import hashlib
import json
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from app.engine.store.lake import TenantLake, text_literal, write_atomically

Identity = tuple[str, str]
"""Namespace and id."""


@dataclass(frozen=True, slots=True)
class Erased:
    """The digests of a sandbox, with their salt."""

    salt: str
    digests: frozenset[str] = frozenset()

    def digest(self, identity: Identity) -> str:
        """The digest of an identity; `digest_sql` is the equivalent SQL.

        >>> Erased("salt").digest(("crm", "1"))[:8]
        '33a94aac'
        """
        return hashlib.sha256(f"{self.salt}{identity[0]}:{identity[1]}".encode()).hexdigest()

    def digest_sql(self, namespace: str, id: str) -> str:
        """The digest as SQL; both arguments are SQL expressions."""
        return f"sha256({text_literal(self.salt)} || {namespace} || ':' || {id})"


def read_erased(lake: TenantLake) -> Erased | None:
    """None if nobody was erased in the sandbox."""
    return read_erased_file(lake.erased)


def read_erased_file(path: Path) -> Erased | None:
    """None if the file does not exist."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    return Erased(content["salt"], frozenset(content["digests"]))


def note_erased(lake: TenantLake, identities: Iterable[Identity]) -> Erased:
    """Adds identities. Batches that start loading afterwards recognise them."""
    with lake.lock("erased"):
        erased = read_erased(lake) or Erased(secrets.token_hex(16))
        grown = Erased(erased.salt, erased.digests | {erased.digest(identity) for identity in identities})
        if grown.digests != erased.digests or not lake.erased.exists():
            _write(lake, grown)
        return grown


def note_digests(lake: TenantLake, later: Erased) -> None:
    """Adds the digests of a later state of the sandbox, which must have the same salt if this one has any digests."""
    with lake.lock("erased"):
        erased = read_erased(lake) or Erased(later.salt)
        _write(lake, Erased(erased.salt, erased.digests | later.digests))


def _write(lake: TenantLake, erased: Erased) -> None:
    lake.folder.mkdir(parents=True, exist_ok=True)
    content = {"salt": erased.salt, "digests": sorted(erased.digests)}
    write_atomically(lake.erased, json.dumps(content).encode())

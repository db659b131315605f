"""Who was erased, as salted digests of identities: enough to know somebody again, and to tell nobody who it was."""

import hashlib
import json
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from app.engine.store.lake import TenantLake, text_literal, write_atomically

Identity = tuple[str, str]
"""Namespace and id."""


@dataclass(frozen=True, slots=True)
class Erased:
    """The digests of a sandbox, with their salt."""

    salt: str
    digests: frozenset[str] = frozenset()

    def digest(self, identity: Identity) -> str:
        """`digest_sql` says the same in SQL.

        >>> Erased("salt").digest(("crm", "1"))[:8]
        '33a94aac'
        """
        return hashlib.sha256(f"{self.salt}{identity[0]}:{identity[1]}".encode()).hexdigest()

    def digest_sql(self, namespace: str, id: str) -> str:
        """The digest as SQL; both are SQL expressions."""
        return f"sha256({text_literal(self.salt)} || {namespace} || ':' || {id})"


def read_erased(lake: TenantLake) -> Erased | None:
    """None in a sandbox in which nobody was."""
    try:
        content = json.loads(lake.erased.read_bytes())
    except FileNotFoundError:
        return None
    return Erased(content["salt"], frozenset(content["digests"]))


def note_erased(lake: TenantLake, identities: Iterable[Identity]) -> Erased:
    """Adds identities. From then on batches that begin to be loaded know them."""
    with lake.lock("erased"):
        erased = read_erased(lake) or Erased(secrets.token_hex(16))
        grown = Erased(erased.salt, erased.digests | {erased.digest(identity) for identity in identities})
        if grown.digests != erased.digests or not lake.erased.exists():
            lake.folder.mkdir(parents=True, exist_ok=True)
            content = {"salt": grown.salt, "digests": sorted(grown.digests)}
            write_atomically(lake.erased, json.dumps(content).encode())
        return grown

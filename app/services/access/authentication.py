"""Authenticates callers in the configured mode and detects when their authentication ends; knows no HTTP."""

import asyncio
import hashlib
import ipaddress
import logging
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from app.clock import Clock
from app.services.access import keys
from app.services.access.identity import ANONYMOUS, Identity, TokenRules, Unauthenticated, is_name
from app.services.access.rates import Rate
from app.storage.database import Database, is_unavailable
from app.storage.wakeups import PATIENCE_SECONDS, Changes

if TYPE_CHECKING:
    from app.services.access.tokens import Tokens

log = logging.getLogger(__name__)

AUTHORIZATION = "authorization"
KEY_HEADER = "x-api-key"

CREDENTIALS_KEPT = 10_000
"""Number of digests of valid credentials that a process remembers."""

Mode = Literal["none", "keys", "jwt", "proxy"]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Proxy:
    """The trusted proxies, and the names of their headers in lower case."""

    peers: tuple[Network, ...]
    subject: str = "x-forwarded-user"
    organisation: str = "x-forwarded-organisation"
    permissions: str = "x-forwarded-permissions"
    sandboxes: str = "x-forwarded-sandboxes"

    @property
    def headers(self) -> tuple[str, ...]:
        return (self.subject, self.organisation, self.permissions, self.sandboxes)

    def trusts(self, peer: str | None) -> bool:
        try:
            address = ipaddress.ip_address(peer or "")
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        return any(address in network for network in self.peers)


@dataclass(frozen=True, slots=True)
class AuthenticationRules:
    """How callers are authenticated. API keys are accepted in every mode."""

    mode: Mode = "none"
    tokens: TokenRules | None = None
    proxy: Proxy | None = None

    @property
    def forwarded(self) -> tuple[str, ...]:
        """Headers that identify a caller, which only a proxy may send."""
        return self.proxy.headers if self.proxy else ()


class Authentication:
    """Authenticates callers by the rules, and monitors those with open streams."""

    def __init__(
        self,
        database: Database,
        changes: Changes,
        clock: Clock,
        rules: AuthenticationRules | None = None,
        failed_logins: int = 0,
    ) -> None:
        """`failed_logins` is the number of invalid credentials that one address may send per minute; 0 for no limit."""
        self.rules = rules or AuthenticationRules()
        self._database, self._changes, self._clock = database, changes, clock
        self._tokens = _verifier(self.rules.tokens) if self.rules.tokens else None
        self._failures = Rate("rate_failed_logins", "failed logins from this address", failed_logins)
        self._proven: OrderedDict[bytes, None] = OrderedDict()
        self._watched: dict[str, tuple[int, asyncio.Task[None]]] = {}
        self._notes: set[asyncio.Task[None]] = set()

    async def identify(self, headers: Mapping[str, str], peer: str | None) -> Identity:
        """Authenticates the caller with these headers (names in lower case), connected from the address `peer`.

        Raises `Unauthenticated`; `KeysUnavailable` if no caller can be authenticated at the moment; and `RateExceeded`
        for addresses that have sent too many invalid credentials, before checking anything. Credentials that were valid
        before are still checked, because many callers may share an address.
        """
        sent = [headers[name] for name in (KEY_HEADER, AUTHORIZATION) if name in headers]
        if not sent:
            return await self._identify(headers, peer)
        address, digest = _address(peer), hashlib.sha256("\n".join(sent).encode(errors="surrogatepass")).digest()
        if digest not in self._proven:
            self._failures.check(address)
        try:
            identity = await self._identify(headers, peer)
        except Unauthenticated:
            self._proven.pop(digest, None)
            self._failures.take(address)
            raise
        self._proven[digest] = None
        self._proven.move_to_end(digest)
        if len(self._proven) > CREDENTIALS_KEPT:
            self._proven.popitem(last=False)
        return identity

    async def _identify(self, headers: Mapping[str, str], peer: str | None) -> Identity:
        secret, authorization = headers.get(KEY_HEADER), headers.get(AUTHORIZATION)
        if secret is not None:
            if authorization is not None and self.rules.mode == "jwt":
                raise Unauthenticated(f"both {KEY_HEADER} and {AUTHORIZATION} are sent: send one of them")
            return await self._by_key(secret)
        if self.rules.proxy is not None:
            return _by_proxy(self.rules.proxy, headers, peer)
        if self._tokens is not None:
            scheme, _, token = (authorization or "").strip().partition(" ")
            if scheme.lower() != "bearer" or not token.strip():
                raise Unauthenticated(f"no credentials were sent: send `{AUTHORIZATION}: Bearer …`, or {KEY_HEADER}")
            return await self._tokens.verify(token.strip())
        if self.rules.mode == "keys":
            raise Unauthenticated(f"no credentials were sent: send {KEY_HEADER}")
        return ANONYMOUS

    async def _by_key(self, secret: str) -> Identity:
        async with self._database.session() as session:
            identity = await keys.identify(session, self._clock, secret)
        note = asyncio.create_task(self._note(identity.key_id or ""))
        self._notes.add(note)
        note.add_done_callback(self._notes.discard)
        return identity

    async def _note(self, key_id: str) -> None:
        try:
            await keys.note_use(self._database, self._clock, key_id)
        except Exception as error:
            log.warning("could not record the use of key %s: %r", key_id, error)

    async def close(self) -> None:
        """Waits for pending updates of `last_used_at`."""
        await asyncio.gather(*self._notes)

    # ---------------------------------------------------------------- callers who stay

    async def until_ended(self, identity: Identity) -> str:
        """Waits until the identity is no longer valid and returns the reason; never returns for a permanent one."""
        waits = []
        if identity.expires_at is not None:
            waits.append(asyncio.create_task(self._until_expired(identity)))
        if identity.key_id is not None:
            waits.append(asyncio.create_task(self._until_revoked(identity.key_id)))
        if not waits:
            await asyncio.Event().wait()
        try:
            finished, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            return finished.pop().result()
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def _until_expired(self, identity: Identity) -> str:
        assert identity.expires_at is not None
        # Sleep in steps: the wall clock may be adjusted, and one sleep has a maximum length.
        while (seconds := (identity.expires_at - self._clock()).total_seconds()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(min(seconds, 3600))
        return "the identity has expired: connect again with a new one"

    async def _until_revoked(self, key_id: str) -> str:
        """One task watches a key for all its streams."""
        users, watch = self._watched.get(key_id) or (0, asyncio.create_task(self._watch(key_id)))
        self._watched[key_id] = (users + 1, watch)
        try:
            await asyncio.shield(watch)
        finally:
            users, _ = self._watched[key_id]
            if users > 1:
                self._watched[key_id] = (users - 1, watch)
            else:
                del self._watched[key_id]
                watch.cancel()
                with suppress(asyncio.CancelledError):
                    await watch
        return "the API key was revoked: connect again with another"

    async def _watch(self, key_id: str) -> None:
        async with self._changes.subscribe(keys.key_topic(key_id)) as wakeups:
            while True:
                try:
                    async with self._database.session() as session:
                        if not await keys.is_good(session, key_id):
                            return
                except Exception as error:
                    if not is_unavailable(error):
                        raise
                await wakeups.wait(PATIENCE_SECONDS)


def _by_proxy(proxy: Proxy, headers: Mapping[str, str], peer: str | None) -> Identity:
    if not proxy.trusts(peer):
        message = f"identity headers are accepted only from the configured proxies, and {peer} is not one of them"
        raise Unauthenticated(f"{message}: go through the proxy, or send {KEY_HEADER}")
    subject, organisation = headers.get(proxy.subject), headers.get(proxy.organisation)
    for name, value in ((proxy.subject, subject), (proxy.organisation, organisation)):
        if not is_name(value):
            raise Unauthenticated(f"the proxy sent {name} as {value!r}: it must send a name")
    sandboxes = headers.get(proxy.sandboxes)
    return Identity(
        subject=str(subject).strip(),
        organisation=str(organisation).strip(),
        permissions=frozenset(_split(headers.get(proxy.permissions, ""))),
        sandboxes=None if sandboxes is None else frozenset(_split(sandboxes)),
    )


def _address(peer: str | None) -> Hashable:
    """The address used for rate limits: one host has 2^64 IPv6 addresses, so only the network part counts."""
    try:
        address = ipaddress.ip_address(peer or "")
    except ValueError:
        return peer
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return int(address) >> 64
    return str(getattr(address, "ipv4_mapped", None) or address)


def _split(value: str) -> list[str]:
    return value.replace(",", " ").split()


def _verifier(rules: TokenRules) -> "Tokens":
    # Only servers that accept tokens import the cryptography, which adds a tenth to the startup time.
    from app.services.access.tokens import Tokens

    return Tokens(rules)

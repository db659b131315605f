"""JSON Web Tokens: signature, times, issuer, audience and claims; knows no HTTP and no tenant."""

import asyncio
import json
import logging
import time
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jwt

from app.services.access.identity import Identity, KeysUnavailable, TokenRules, Unauthenticated, is_name
from app.storage.columns import StoredValues

log = logging.getLogger(__name__)

ALGORITHMS: dict[tuple[Any, Any], str] = {("RSA", None): "RS256", ("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}
"""The only algorithm for each type of public key; the algorithm in a token's header is never trusted."""

REFRESH_SECONDS = 300.0
"""Maximum age of keys from a URL before they are fetched again."""
RETRY_SECONDS = 5.0
"""Minimum time between fetches, so that tokens with invented key ids do not cause requests to the issuer."""
FETCH_SECONDS = 10.0
LARGEST_KEY_SET = 1024 * 1024


class Tokens:
    """Verifies tokens by the rules."""

    def __init__(self, rules: TokenRules) -> None:
        self._rules = rules
        self._keys = None if rules.jwks is None else KeySet(rules.jwks)

    async def verify(self, token: str) -> Identity:
        """The identity in a token. Raises `Unauthenticated` and `KeysUnavailable`."""
        try:
            header = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError as error:
            raise Unauthenticated(f"the token is not a JSON Web Token ({error}): send one as `Bearer …`") from None
        key, algorithm = await self._key(header)
        if header.get("alg") != algorithm:
            message = f"the token is signed with {header.get('alg')!r}, and its key signs with {algorithm} only"
            raise Unauthenticated(f"{message}: get a token from the configured issuer")
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self._rules.audience,
                issuer=self._rules.issuer,
                leeway=self._rules.leeway,
                options={"verify_aud": self._rules.audience is not None, "require": ["sub", "org"]},
            )
        except jwt.InvalidTokenError as error:
            raise Unauthenticated(f"the token is not valid ({error}): get a new one") from None
        return self._identity(claims)

    async def _key(self, header: Mapping[str, object]) -> tuple[Any, str]:
        if self._keys is None:
            return self._rules.secret, "HS256"
        key = await self._keys.find(header.get("kid"))
        return key.key, ALGORITHMS[key.key_type or "", key._jwk_data.get("crv")]

    def _identity(self, claims: Mapping[str, Any]) -> Identity:
        for name in ("sub", "org"):
            if not is_name(claims[name]):
                raise Unauthenticated(f"the token's claim {name!r} is {claims[name]!r}: it must be a name")
        expires = claims.get("exp")
        return Identity(
            subject=claims["sub"],
            organisation=claims["org"].strip(),
            permissions=frozenset(_names(claims, "permissions") or ()),
            sandboxes=None if (sandboxes := _names(claims, "sandboxes")) is None else frozenset(sandboxes),
            expires_at=None if expires is None else datetime.fromtimestamp(int(expires), UTC) + self._rules.leeway,
        )


def _names(claims: Mapping[str, object], name: str) -> list[str] | None:
    """A claim with a list of names, or a space-separated text as in OAuth scopes."""
    value = claims.get(name)
    if value is None:
        return None
    names = value.split() if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(each, str) for each in names):
        raise Unauthenticated(f"the token's claim {name!r} is {value!r}: it must be a list of names")
    return names


class KeySet:
    """The issuer's current public keys, from its file or URL; keys can change without a restart."""

    def __init__(self, source: str) -> None:
        self._url = source if urlsplit(source).scheme in {"http", "https"} else None
        self._path = Path(source)
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._version: Any = None
        self._read_at = float("-inf")
        self._turn = asyncio.Lock()

    async def find(self, kid: object) -> jwt.PyJWK:
        """The key with this id; a token without a key id is accepted if there is only one key. Raises
        `Unauthenticated`."""
        await self._refresh(REFRESH_SECONDS)
        if self._match(kid) is None:
            await self._refresh(RETRY_SECONDS)
        if (key := self._match(kid)) is None:
            what = "names no key" if kid is None else f"is signed with the unknown key {kid!r}"
            raise Unauthenticated(f"the token {what}: get one from the configured issuer")
        return key

    def _match(self, kid: object) -> jwt.PyJWK | None:
        if kid is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(kid) if isinstance(kid, str) else None

    async def _refresh(self, seconds: float) -> None:
        """Reads the keys again if they are older than this many seconds or their file has changed."""
        async with self._turn:
            version = None if self._url else await asyncio.to_thread(_version, self._path)
            if version == self._version and time.monotonic() - self._read_at < (seconds if self._url else float("inf")):
                return
            self._read_at = time.monotonic()
            try:
                self._keys = await asyncio.to_thread(self._read)
                self._version = version
            except (OSError, ValueError, jwt.PyJWTError) as error:
                if not self._keys:
                    self._read_at = time.monotonic() - max(0.0, REFRESH_SECONDS - RETRY_SECONDS)
                    log.error("cannot read the key set %s: %s", self._url or self._path, error)
                    raise KeysUnavailable("the keys that tokens are verified with cannot be read") from error
                log.warning("cannot read the key set %s; keeping the previous keys: %s", self._url, error)

    def _read(self) -> dict[str | None, jwt.PyJWK]:
        if self._url:
            with urllib.request.urlopen(self._url, timeout=FETCH_SECONDS) as answer:
                text = answer.read(LARGEST_KEY_SET)
        else:
            text = self._path.read_bytes()
        keys = {}
        for data in _key_list(json.loads(text)):
            algorithm = ALGORITHMS.get((data.get("kty"), data.get("crv")))
            if algorithm and data.get("use", "sig") == "sig":
                keys[data.get("kid")] = jwt.PyJWK(data, algorithm)
        if not keys:
            raise ValueError("it has no key for RS256, ES256 or EdDSA")
        return keys


def _key_list(document: object) -> list[StoredValues]:
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list) or not all(isinstance(key, dict) for key in keys):
        raise ValueError("it is not a JSON Web Key Set: an object with a list `keys`")
    return keys


def _version(path: Path) -> Any:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino

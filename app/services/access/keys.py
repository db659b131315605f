"""API keys: created, listed, revoked, and identified by their secret, of which only a digest is stored."""

import hashlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import Clock
from app.errors import ErrorCode, Refusal, refuse_all
from app.scope import Scope, Tenant
from app.services.access.identity import Identity, Unauthenticated, is_name
from app.services.lists.listing import Key, Listing, Order
from app.services.lists.paging import PageRequest, Slice
from app.services.lists.rows import as_row, rows_of_any
from app.services.lists.validation import refuse_bad_name
from app.storage.columns import columns
from app.storage.database import Database
from app.storage.ids import new_id
from app.storage.sessions.writing import insert_rows
from app.storage.tables.access import ApiKeyRow
from app.storage.tenancy import within
from app.storage.topics import Topic, publish

PREFIX = "sgk_"
"""Prefix of every secret, so that scanners detect published ones."""
SHOWN = len(PREFIX) + 8
"""Number of a secret's characters that are stored, to recognise it."""
USED_EVERY = timedelta(minutes=1)
"""Precision of `last_used_at`: a write for each request would cost more than the request."""

_KEYS = columns(ApiKeyRow)
_ORDER = Order("ID", (Key(_KEYS.id, descending=True),))


@dataclass(frozen=True, slots=True)
class NewKey:
    """Without `sandboxes` the key is valid for those that its creator may use."""

    name: str
    permissions: Sequence[str]
    sandboxes: Sequence[str] | None = None
    expires_at: datetime | None = None


def key_topic(id: str) -> Topic:
    """Topic of the revocation of one key."""
    return Topic("key", id=id)


def _keys_of(scope: Scope) -> Tenant:
    """The tenant under which the keys of the caller's organisation are stored. Raises `Refusal` if the caller may not
    see all of them."""
    if scope.sandboxes is not None:
        message = f"keys belong to the whole organisation, and this caller is limited to {sorted(scope.sandboxes)}"
        raise Refusal(ErrorCode.FORBIDDEN, f"{message}: use an identity without `sandboxes`")
    return Tenant(scope.organisation, "")


async def create(
    database: Database, clock: Clock, scope: Scope, new: NewKey, known: Callable[[str], bool]
) -> tuple[ApiKeyRow, str]:
    """Creates a key and returns it with its secret, which is stored nowhere. `known` are the existing permissions.

    Raises `Refusals`, and `Refusal` if the caller would grant more than it has.
    """
    now = clock()
    tenant = _keys_of(scope)
    refuse_all(_problems(scope, new, now, known))
    secret = PREFIX + secrets.token_urlsafe(32)
    row = ApiKeyRow(
        organisation=tenant.organisation,
        sandbox=tenant.sandbox,
        id=new_id(now),
        name=new.name,
        prefix=secret[:SHOWN],
        digest=_digest(secret),
        permissions=sorted(set(new.permissions)),
        sandboxes=None if new.sandboxes is None else sorted(set(new.sandboxes)),
        created_by=scope.user,
        created_at=now,
        expires_at=new.expires_at,
    )
    async with database.write() as session:
        await insert_rows(session, row)
    return row, secret


def _problems(scope: Scope, new: NewKey, now: datetime, known: Callable[[str], bool]) -> list[Refusal]:
    refusals: list[Refusal] = []
    refuse_bad_name(new.name, refusals)
    if not new.permissions:
        message = "the key has no permissions and could do nothing: grant it some, such as read"
        refusals.append(Refusal(ErrorCode.INVALID_INPUT, message, ("permissions",)))
    for at, permission in enumerate(new.permissions):
        path = ("permissions", str(at))
        if not known(permission):
            message = f"{permission!r} is not a permission: write read, write, run or admin, or one like audiences:read"
            refusals.append(Refusal(ErrorCode.INVALID_INPUT, message, path))
        elif not (scope.allows(permission) if ":" in permission else permission in scope.permissions):
            message = f"a key cannot have {permission!r}, which its creator does not have"
            refusals.append(Refusal(ErrorCode.FORBIDDEN, message, path))
    for at, sandbox in enumerate(new.sandboxes or ()):
        if not is_name(sandbox) or sandbox != sandbox.strip():
            message = f"the sandbox {sandbox!r} must be 1 to 128 printable characters"
            refusals.append(Refusal(ErrorCode.INVALID_INPUT, message, ("sandboxes", str(at))))
    if new.sandboxes is not None and not new.sandboxes:
        message = "the key is valid in no sandbox: name some, or omit `sandboxes` for all"
        refusals.append(Refusal(ErrorCode.INVALID_INPUT, message, ("sandboxes",)))
    if new.expires_at is not None and new.expires_at <= now:
        message = f"the key would have expired at {new.expires_at.isoformat()}: choose a time in the future"
        refusals.append(Refusal(ErrorCode.INVALID_INPUT, message, ("expires_at",)))
    return refusals


async def revoke(database: Database, clock: Clock, scope: Scope, id: str) -> ApiKeyRow:
    """Revokes a key at once, in every process; a key that has already ended is returned unchanged. Raises `Refusal`."""
    tenant = _keys_of(scope)
    async with database.write() as session:
        change = within(update(ApiKeyRow), ApiKeyRow, tenant).where(_KEYS.id == id, _KEYS.revoked_at.is_(None))
        await session.execute(change.values(revoked_at=clock()))
        await publish(session, key_topic(id))
        row = (await session.execute(within(select(*_KEYS), ApiKeyRow, tenant).where(_KEYS.id == id))).first()
        if row is None:
            raise Refusal(ErrorCode.NOT_FOUND, f"there is no API key {id!r} in this organisation", ("id",))
        return as_row(ApiKeyRow, row)


async def get(session: AsyncSession, scope: Scope, id: str) -> ApiKeyRow | None:
    statement = within(select(*_KEYS), ApiKeyRow, _keys_of(scope)).where(_KEYS.id == id)
    row = (await session.execute(statement)).first()
    return None if row is None else as_row(ApiKeyRow, row)


async def page(session: AsyncSession, scope: Scope, request: PageRequest) -> Slice[ApiKeyRow]:
    """The keys of the organisation, newest first, including ended ones."""
    listing = Listing(rows_of_any(ApiKeyRow), _ORDER, lambda row: as_row(ApiKeyRow, row))
    return await listing.page(session, _keys_of(scope), request)


async def count(session: AsyncSession, scope: Scope) -> int:
    statement = within(select(func.count()), ApiKeyRow, _keys_of(scope))
    return int((await session.execute(statement)).scalar_one())


async def identify(session: AsyncSession, clock: Clock, secret: str) -> Identity:
    """The identity that a secret belongs to. Raises `Unauthenticated`."""
    row = (await session.execute(select(*_KEYS).where(_KEYS.digest == _digest(secret)))).first()
    if row is None:
        raise Unauthenticated("the API key is unknown: create one with `segmentation key create`")
    if row.revoked_at is not None:
        raise Unauthenticated(f"the API key {row.prefix}… was revoked: use another")
    if row.expires_at is not None and row.expires_at <= clock():
        raise Unauthenticated(f"the API key {row.prefix}… has expired: use another")
    sandboxes = None if row.sandboxes is None else frozenset(row.sandboxes)
    subject = f"key:{row.id}"
    return Identity(subject, row.organisation, frozenset(row.permissions), sandboxes, row.expires_at, row.id)


async def is_good(session: AsyncSession, id: str) -> bool:
    """Whether the key exists and has not been revoked; does not check its expiry."""
    statement = select(_KEYS.id).where(_KEYS.id == id, _KEYS.revoked_at.is_(None))
    return (await session.execute(statement)).first() is not None


async def note_use(database: Database, clock: Clock, id: str) -> None:
    """Sets `last_used_at`, unless it was set recently."""
    now = clock()
    stale = or_(_KEYS.last_used_at.is_(None), _KEYS.last_used_at <= now - USED_EVERY)
    async with database.write() as session:
        await session.execute(update(ApiKeyRow).where(_KEYS.id == id, stale).values(last_used_at=now))


def _digest(secret: str) -> str:
    """A secret is 256 random bits, so a slow hash is unnecessary, and each request computes this one."""
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()

"""Search over audiences and folders: indexes that every process keeps in memory and brings up to date when asked.

The database is the only truth. Each search first looks at the tenant's version there (`storage/tables/search.py`); when
it has risen, the index takes in what changed since, and is made anew when that is too much or when the index does not
add up. So a search sees every change that was committed before it, whoever made it, and nothing has to be told.
"""

import asyncio
import hashlib
import logging
from bisect import bisect_left
from collections import Counter, OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from sqlalchemy import and_, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from app import lucene
from app.errors import ErrorCode, Refusal
from app.scope import Scope, Tenant
from app.services.lists.paging import PageRequest, Slice, decode_cursor, encode_cursor
from app.services.search import folders
from app.services.search.entries import Entry, Rank
from app.services.search.index import Index, Snapshot, score_of
from app.services.search.queries import FIELDS
from app.storage.columns import columns
from app.storage.tables.audiences import AudienceRow
from app.storage.tables.folders import FolderRow
from app.storage.tables.search import CHANGES_KEPT, SearchChangeRow, SearchVersionRow
from app.storage.tenancy import AnyRow, AnySelect, same_tenant, within

log = logging.getLogger(__name__)

MOST_INDEXES = 64
"""Tenants whose indexes a process keeps; the one used longest ago goes first, and is made anew when it is asked for."""

MOST_CHANGES = min(2_000, CHANGES_KEPT)
"""An index that is further behind is made anew, which takes less time then."""

DISPLAY_NAMES = {
    "AEPSegments": "Experience Platform segments",
    "AAM": "Audience Manager",
    "AAMSegments": "Audience Manager segments",
    "AAMTraits": "Audience Manager traits",
}

HEAVIEST = 10_000
"""More than a part of a query can weigh: what is in a cursor may be forged."""

_CURSORS = "SEARCH"
_AUDIENCES = columns(AudienceRow)
_FOLDERS = columns(FolderRow)
_CHANGES = columns(SearchChangeRow)
_VERSIONS = columns(SearchVersionRow)


@dataclass(slots=True)
class _Place:
    """Where the index of a tenant is kept; whoever changes it holds the lock."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    index: Index | None = None


@dataclass(frozen=True, slots=True)
class SearchIndexes:
    """The indexes of one process."""

    _places: OrderedDict[Tenant, _Place] = field(default_factory=OrderedDict)

    def place(self, tenant: Tenant) -> _Place:
        own_place = self._places.setdefault(tenant, _Place())
        self._places.move_to_end(tenant)
        if len(self._places) > MOST_INDEXES:
            self._places.popitem(last=False)
        return own_place


@dataclass(frozen=True, slots=True)
class Found:
    """What was found. `score` is comparable within one search only."""

    entry: Entry
    score: float


@dataclass(frozen=True, slots=True)
class FoundPage:
    page: Slice[Found]
    total: int


@dataclass(frozen=True, slots=True)
class NamespaceHits:
    namespace: str
    display_name: str
    count: int


async def find(
    indexes: SearchIndexes,
    session: AsyncSession,
    scope: Scope,
    term: str,
    request: PageRequest,
    namespace: str | None = None,
    folder_id: str | None = None,
) -> FoundPage:
    """The best first; `folder_id` looks in that folder and all that are within it, and finds nothing when unknown.

    Raises `ExpressionRefused` for bad syntax, and `Refusal` for a cursor of another search.
    """
    node = _parse(term)
    place = _read_cursor(request, term)
    snapshot = await _current(indexes, session, scope)
    hits, weights = await asyncio.to_thread(snapshot.hits, node, None if place is None else place.weights)
    filtered = hits
    if namespace is not None or folder_id is not None:
        filtered = [hit for hit in hits if _is_wanted(snapshot.entry(hit), snapshot, namespace, folder_id)]
    start, end = _bounds(filtered, place, snapshot, request)
    scored = [(score_of(hit), snapshot.entry(hit)) for hit in filtered[start:end]]
    return FoundPage(
        Slice(
            [Found(entry, score / 100) for score, entry in scored],
            [_write_cursor(term, weights, score, entry) for score, entry in scored],
            has_next=len(filtered) > end,
            has_previous=start > 0,
        ),
        len(filtered),
    )


async def namespaces(indexes: SearchIndexes, session: AsyncSession, scope: Scope, term: str) -> list[NamespaceHits]:
    """Every namespace that something is in, also without a hit; most hits first. Raises `ExpressionRefused`."""
    node = _parse(term)
    snapshot = await _current(indexes, session, scope)
    hits, _ = await asyncio.to_thread(snapshot.hits, node)
    counts = Counter(snapshot.entry(hit).namespace for hit in hits)
    every = {entry.namespace for entry in snapshot.entries.values()}
    namespace_hits = [NamespaceHits(name, DISPLAY_NAMES.get(name, name), counts[name]) for name in every]
    return sorted(namespace_hits, key=lambda each: (-each.count, each.namespace))


async def taxonomy(session: AsyncSession, scope: Scope, namespace: str, kinds: Collection[str], id: str) -> list[Entry]:
    """The folders from the root down to an object of one of these kinds, the object last; nothing when there is
    none."""
    for kind in kinds:
        if kind == "Folder":
            statement = _select_folders(scope).where(_FOLDERS.id == id, _FOLDERS.namespace == namespace)
        else:
            # By the id that an external audience has elsewhere as well, which is unique in its namespace.
            named = or_(_AUDIENCES.id == id, _AUDIENCES.audience_id == id)
            statement = _select_audiences(scope).where(named, _AUDIENCES.namespace == namespace)
        row = (await session.execute(statement)).first()
        if row is not None:
            last = _entry(kind, row)
            return [_folder_entry(each) for each in await folders.chain(session, scope, last.folder_id)] + [last]
    return []


def _parse(term: str) -> lucene.Node:
    return lucene.parse(term, [name for name in FIELDS if name is not None])


def _is_wanted(entry: Entry, snapshot: Snapshot, namespace: str | None, folder_id: str | None) -> bool:
    if namespace is not None and entry.namespace != namespace:
        return False
    if folder_id is None:
        return True
    folder = snapshot.entries.get(("Folder", folder_id))
    if folder is None or folder.namespace != entry.namespace:
        return False
    inside = f"{entry.location}/".startswith(f"{folder.location}/")
    return inside and entry.key != folder.key


# ---------------------------------------------------------------- cursors


@dataclass(frozen=True, slots=True)
class _Cursor:
    """A place among the hits, with the weights that the first page was found with: what is added to the index later
    changes weights, and must not change the order of the pages that follow."""

    weights: tuple[int, ...]
    score: int
    rank: Rank


def _digest(term: str) -> str:
    return hashlib.blake2b(term.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()


def _write_cursor(term: str, weights: Sequence[int], score: int, entry: Entry) -> str:
    return encode_cursor(_CURSORS, [_digest(term), list(weights), score, *entry.rank])


def _read_cursor(request: PageRequest, term: str) -> _Cursor | None:
    if request.cursor is None:
        return None
    values = decode_cursor(_CURSORS, request.cursor, request.argument)
    match values:
        case (digest, [*weights], int(score), int(length), str(name), str(key)) if digest == _digest(term) and all(
            isinstance(weight, int) and 0 < weight < HEAVIEST for weight in weights
        ):
            return _Cursor(tuple(weights), score, (length, name, key))
    message = (
        f"{request.cursor!r} is not a cursor of a search for {term!r}: send back one that a page of this search gave"
    )
    raise Refusal(ErrorCode.INVALID_INPUT, message, (request.argument,))


def _bounds(hits: Sequence[int], place: _Cursor | None, snapshot: Snapshot, request: PageRequest) -> tuple[int, int]:
    """Where a page begins and ends among the hits."""
    if request.backward:
        end = len(hits) if place is None else bisect_left(hits, snapshot.at(place.score, place.rank))
        return max(0, end - request.limit), end
    start = 0 if place is None else bisect_left(hits, snapshot.after(place.score, place.rank))
    return start, min(len(hits), start + request.limit)


# ---------------------------------------------------------------- freshness


async def _current(indexes: SearchIndexes, session: AsyncSession, scope: Scope) -> Snapshot:
    """The index as of what `session` sees, which is one state of the database throughout."""
    statement = within(select(_VERSIONS.version), SearchVersionRow, scope.tenant)
    version = int((await session.execute(statement)).scalar() or 0)
    place = indexes.place(scope.tenant)
    if place.index is not None and place.index.snapshot.version == version:
        return place.index.snapshot
    async with place.lock:
        if place.index is None or not await _catch_up(place.index, session, scope, version):
            place.index = None
            entries = await _read_all(session, scope)
            place.index = await asyncio.to_thread(Index, version, entries)
        return place.index.snapshot


async def _catch_up(index: Index, session: AsyncSession, scope: Scope, version: int) -> bool:
    """Whether the index is right now. One that knows more than the database does not: an older copy was put back."""
    version_read = index.snapshot.version
    if version_read == version:
        return True
    if not version_read < version <= version_read + MOST_CHANGES:
        return False
    statement = within(select(_CHANGES.kind, _CHANGES.object_id), SearchChangeRow, scope.tenant)
    keys = {(kind, id_) for kind, id_ in await session.execute(statement.where(_CHANGES.version > version_read))}
    changed = await _read_changed(session, scope, keys)
    try:
        await asyncio.to_thread(index.apply, version, changed, keys)
    except Exception:
        log.exception("rebuilding the search index of %s/%s", scope.organisation, scope.sandbox)
        return False
    return True


async def _read_all(session: AsyncSession, scope: Scope) -> list[Entry]:
    entries = [_entry("Folder", row) for row in await session.execute(_select_folders(scope))]
    return entries + [_entry("Audience", row) for row in await session.execute(_select_audiences(scope))]


async def _read_changed(session: AsyncSession, scope: Scope, keys: set[tuple[str, str]]) -> list[Entry]:
    """What has changed and is still there, with the audiences in changed folders: these show the folder's path."""
    in_folders = [id_ for kind, id_ in keys if kind == "Folder"]
    audiences = [id_ for kind, id_ in keys if kind == "Audience"]
    entries: list[Entry] = []
    if in_folders:
        rows = await session.execute(_select_folders(scope).where(_FOLDERS.id.in_(in_folders)))
        entries += [_entry("Folder", row) for row in rows]
    concerned = or_(_AUDIENCES.id.in_(audiences), _AUDIENCES.folder_id.in_(in_folders))
    rows = await session.execute(_select_audiences(scope).where(concerned))
    return entries + [_entry("Audience", row) for row in rows]


def _select_folders(scope: Scope) -> AnySelect:
    fields = (_FOLDERS.id, _FOLDERS.name, _FOLDERS.namespace, _FOLDERS.parent_id.label("folder_id"), _FOLDERS.path)
    return within(select(*fields), FolderRow, scope.tenant)


def _select_audiences(scope: Scope) -> AnySelect:
    own = ("id", "name", "namespace", "folder_id", "description", "audience_id")
    joined = and_(
        same_tenant(_FOLDERS, _AUDIENCES),
        _FOLDERS.id == _AUDIENCES.folder_id,
    )
    fields = [*(_AUDIENCES[name] for name in own), _FOLDERS.path]
    statement = select(*fields).select_from(AudienceRow).outerjoin(FolderRow, joined)
    return within(statement, AudienceRow, scope.tenant)


def _entry(kind: str, row: AnyRow) -> Entry:
    audience = kind == "Audience"
    return Entry(
        kind=kind,
        id=row.id,
        name=row.name,
        namespace=row.namespace,
        description=row.description if audience else None,
        folder_id=row.folder_id,
        location=row.path,
        other_id=row.audience_id if audience else None,
    )


def _folder_entry(row: FolderRow) -> Entry:
    return Entry("Folder", row.id, row.name, row.namespace, folder_id=row.parent_id, location=row.path)

"""Search over audiences and folders, with indexes that each process keeps in memory and updates on demand.

The database is the only source of truth. Each search first reads the tenant's version there
(`storage/tables/search.py`). If it has increased, the index applies the changes since then; if there are too many, or
the index is inconsistent, it is rebuilt. A search therefore sees every change committed before it, by any process,
without notifications.
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
from app.services.search.queries import FIELDS, OF_FOLDERS
from app.storage.columns import columns
from app.storage.tables.audiences import AudienceRow
from app.storage.tables.folders import FolderRow
from app.storage.tables.search import CHANGES_KEPT, SearchChangeRow, SearchVersionRow
from app.storage.tenancy import AnyRow, AnySelect, same_tenant, within

log = logging.getLogger(__name__)

MOST_INDEXES = 64
"""Number of tenants whose indexes a process keeps. The least recently used one is dropped, and rebuilt when needed
again."""

MOST_CHANGES = min(2_000, CHANGES_KEPT)
"""An index further behind than this is rebuilt, which is then faster."""

DISPLAY_NAMES = {
    "AEPSegments": "Experience Platform segments",
    "AAM": "Audience Manager",
    "AAMSegments": "Audience Manager segments",
    "AAMTraits": "Audience Manager traits",
}

HEAVIEST = 10_000
"""Upper bound of a query part's weight, because cursors may be forged."""

_CURSORS = "SEARCH"
_FOLDERS_PERMISSION = "folders:read"
_AUDIENCES = columns(AudienceRow)
_FOLDERS = columns(FolderRow)
_CHANGES = columns(SearchChangeRow)
_VERSIONS = columns(SearchVersionRow)


@dataclass(slots=True)
class _Place:
    """A slot for a tenant's index; its lock must be held to change the index."""

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
    """A result. Scores are comparable only within one search."""

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
    """The hits, best first. `folder_id` limits the search to a folder and its descendants; an unknown folder has no
    hits.

    Callers without `folders:read` find audiences only, and not by their folders. Raises `ExpressionRefused` for invalid
    syntax, and `Refusal` for a cursor of another search, or a folder that the caller may not read.
    """
    if folder_id is not None and not scope.allows(_FOLDERS_PERMISSION):
        message = f"looking in a folder needs the permission {_FOLDERS_PERMISSION}: omit `folderId`"
        raise Refusal(ErrorCode.FORBIDDEN, message, ("folder_id",))
    node = _parse(term, scope)
    place = _read_cursor(request, term)
    snapshot = await _current(indexes, session, scope)
    hits, weights = await asyncio.to_thread(snapshot.hits, node, None if place is None else place.weights)
    filtered = _readable(hits, snapshot, scope)
    if namespace is not None or folder_id is not None:
        filtered = [hit for hit in filtered if _is_wanted(snapshot.entry(hit), snapshot, namespace, folder_id)]
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
    """Every namespace in use with its number of hits, which may be 0; most hits first. Raises `ExpressionRefused`."""
    node = _parse(term, scope)
    snapshot = await _current(indexes, session, scope)
    hits, _ = await asyncio.to_thread(snapshot.hits, node)
    counts = Counter(snapshot.entry(hit).namespace for hit in _readable(hits, snapshot, scope))
    folders_too = scope.allows(_FOLDERS_PERMISSION)
    every = {entry.namespace for entry in snapshot.entries.values() if folders_too or entry.kind == "Audience"}
    namespace_hits = [NamespaceHits(name, DISPLAY_NAMES.get(name, name), counts[name]) for name in every]
    return sorted(namespace_hits, key=lambda each: (-each.count, each.namespace))


async def taxonomy(session: AsyncSession, scope: Scope, namespace: str, kinds: Collection[str], id: str) -> list[Entry]:
    """The path of folders from the root to an object of one of these kinds, the object last; empty if there is no such
    object."""
    for kind in kinds:
        if kind == "Folder":
            statement = _select_folders(scope).where(_FOLDERS.id == id, _FOLDERS.namespace == namespace)
        else:
            # Also matches the id of an external audience in its source system, which is unique in its namespace.
            named = or_(_AUDIENCES.id == id, _AUDIENCES.audience_id == id)
            statement = _select_audiences(scope).where(named, _AUDIENCES.namespace == namespace)
        row = (await session.execute(statement)).first()
        if row is not None:
            last = _entry(kind, row)
            return [_folder_entry(each) for each in await folders.chain(session, scope, last.folder_id)] + [last]
    return []


def _parse(term: str, scope: Scope) -> lucene.Node:
    hidden = frozenset() if scope.allows(_FOLDERS_PERMISSION) else OF_FOLDERS
    return lucene.parse(term, [name for name in FIELDS if name is not None and name not in hidden])


def _readable(hits: Sequence[int], snapshot: Snapshot, scope: Scope) -> Sequence[int]:
    if scope.allows(_FOLDERS_PERMISSION):
        return hits
    return [hit for hit in hits if snapshot.entry(hit).kind == "Audience"]


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
    """A place among the hits, with the weights of the first page: later additions to the index change the weights, but
    must not change the order of the following pages."""

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
    """Start and end of a page among the hits."""
    if request.backward:
        end = len(hits) if place is None else bisect_left(hits, snapshot.at(place.score, place.rank))
        return max(0, end - request.limit), end
    start = 0 if place is None else bisect_left(hits, snapshot.after(place.score, place.rank))
    return start, min(len(hits), start + request.limit)


# ---------------------------------------------------------------- freshness


async def _current(indexes: SearchIndexes, session: AsyncSession, scope: Scope) -> Snapshot:
    """The index as of the snapshot that `session` sees."""
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
    """Updates the index; returns false if it must be rebuilt. An index ahead of the database must be, since an older
    copy was restored."""
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
    """Changed entries that still exist, including audiences in changed folders, since these show the folder's path."""
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

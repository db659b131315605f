"""Folders: one tree per namespace, which organises audiences."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypedDict

from sqlalchemy import ColumnElement, func, literal, select
from sqlalchemy import delete as delete_rows
from sqlalchemy import update as update_rows
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import Clock
from app.errors import ErrorCode, HasDependents, Refusal, Refusals
from app.scope import Scope
from app.services.lists.listing import Key, Listing, Order
from app.services.lists.paging import PageRequest, Slice
from app.services.lists.rows import as_row, current_row, get_rows, rows_of_any, select_rows
from app.services.lists.validation import LONGEST_NAME, refuse_bad_name
from app.storage.columns import TenantRow, columns
from app.storage.database import Database
from app.storage.ids import new_id
from app.storage.sessions.writing import insert_rows, update_row
from app.storage.tables.audiences import AudienceRow
from app.storage.tables.folders import FolderRow
from app.storage.tenancy import within

DEEPEST = 20
MOST_NAMED = 20
"""Maximum number of contained objects that an error names."""

_FOLDERS = columns(FolderRow)
_AUDIENCES = columns(AudienceRow)
_BY_PATH = Order("PATH", (Key(_FOLDERS.path), Key(_FOLDERS.id)))


@dataclass(frozen=True, slots=True)
class NewFolder:
    """Without `parent_id` the folder is at the root of its namespace."""

    name: str
    namespace: str
    parent_id: str | None = None


class FolderChanges(TypedDict, total=False):
    """Only keys that are present change; a `parent_id` of None moves the folder to the root."""

    name: str
    parent_id: str | None


async def get_many(session: AsyncSession, scope: Scope, ids: Iterable[str]) -> dict[str, FolderRow]:
    return await get_rows(session, FolderRow, scope, ids)


@dataclass(frozen=True, slots=True)
class FolderFilter:
    """`parent_ids` are the parents of the folders to list, None being the root; an empty value lists all levels."""

    namespace: str | None = None
    parent_ids: tuple[str | None, ...] = ()

    def conditions(self) -> Iterator[ColumnElement[bool]]:
        if self.namespace is not None:
            yield _FOLDERS.namespace == self.namespace
        for parent_id in self.parent_ids:
            yield _FOLDERS.parent_id == parent_id


async def page(session: AsyncSession, scope: Scope, request: PageRequest, filter: FolderFilter) -> Slice[FolderRow]:
    """A page of folders, ordered by path."""
    listing = Listing(rows_of_any(FolderRow).where(*filter.conditions()), _BY_PATH, lambda row: as_row(FolderRow, row))
    return await listing.page(session, scope.tenant, request)


async def count(session: AsyncSession, scope: Scope, filter: FolderFilter) -> int:
    statement = within(select(func.count()).select_from(FolderRow), FolderRow, scope.tenant)
    return int((await session.execute(statement.where(*filter.conditions()))).scalar_one())


async def choose(session: AsyncSession, scope: Scope, id: str, namespace: str, field: str = "folder_id") -> FolderRow:
    """The folder with this id, for an object of this namespace. Raises `Refusal` with the path `field`.

    Call it in the transaction that puts the object into the folder, within `Database.write(tenant)`.
    """
    folder = (await get_many(session, scope, [id])).get(id)
    if folder is None:
        raise Refusal(ErrorCode.NOT_FOUND, f"there is no folder {id!r} in this sandbox", (field,))
    if folder.namespace != namespace:
        message = f"the folder {folder.path!r} is of the namespace {folder.namespace!r}, and this is of {namespace!r}"
        raise Refusal(ErrorCode.INVALID_INPUT, f"{message}: choose a folder of the same namespace", (field,))
    return folder


async def create(database: Database, clock: Clock, scope: Scope, new: NewFolder) -> FolderRow:
    """Creates a folder. Raises `Refusals` for invalid input, and `Refusal` if the name is taken or the parent does not
    exist."""
    _refuse_misfits(new.name, new.namespace)
    now = clock()
    id_ = new_id(now)
    async with database.write(scope.tenant) as session:
        parent = (
            None if new.parent_id is None else await choose(session, scope, new.parent_id, new.namespace, "parent_id")
        )
        path = await _free_path(session, scope, new.namespace, parent, new.name)
        row = FolderRow(
            organisation=scope.organisation,
            sandbox=scope.sandbox,
            id=id_,
            name=new.name,
            namespace=new.namespace,
            parent_id=new.parent_id,
            path=path,
            created_by=scope.user,
            last_modified_by=scope.user,
            created_at=now,
            updated_at=now,
        )
        await insert_rows(session, row)
        return (await get_many(session, scope, [id_]))[id_]


async def update(
    database: Database, clock: Clock, scope: Scope, id: str, etag: str | None, changes: FolderChanges
) -> FolderRow:
    """Renames or moves a folder with all its contents. Raises like `create`, and `StaleEtag`."""
    async with database.write(scope.tenant) as session:
        current = await _required(session, scope, id, etag)
        name, parent_id = changes.get("name", current.name), changes.get("parent_id", current.parent_id)
        _refuse_misfits(name, current.namespace)
        parent = None if parent_id is None else await choose(session, scope, parent_id, current.namespace, "parent_id")
        if parent is not None and f"{parent.path}/".startswith(f"{current.path}/"):
            message = f"{current.path!r} cannot be moved into {parent.path!r}, which is itself or within it"
            raise Refusal(ErrorCode.INVALID_INPUT, f"{message}: choose another folder", ("parent_id",))
        path = current.path
        if (name, parent_id) != (current.name, current.parent_id):
            path = await _free_path(session, scope, current.namespace, parent, name)
            await _move_inside(session, scope, current, path)
        values = {
            "name": name,
            "parent_id": parent_id,
            "path": path,
            "revision": current.revision + 1,
            "last_modified_by": scope.user,
            "updated_at": clock(),
        }
        await update_row(session, FolderRow, scope.tenant, id, values)
        return (await get_many(session, scope, [id]))[id]


async def delete(database: Database, scope: Scope, id: str, etag: str | None = None) -> None:
    """Deletes an empty folder. Raises `HasDependents`, which names the folders or audiences in it."""
    async with database.write(scope.tenant) as session:
        current = await _required(session, scope, id, etag)
        contents = [("Folder", row) for row in await _named(session, scope, FolderRow, _FOLDERS.parent_id == id)]
        contents += [("Audience", row) for row in await _named(session, scope, AudienceRow, _AUDIENCES.folder_id == id)]
        if contents:
            names = ", ".join(repr(row.name) for _, row in contents[:MOST_NAMED])
            more = " and more" if len(contents) > MOST_NAMED else ""
            message = f"the folder {current.path!r} holds {names}{more}: move or delete them first"
            raise HasDependents(message, [(kind, row.id) for kind, row in contents[:MOST_NAMED]], ("id",))
        await session.execute(within(delete_rows(FolderRow), FolderRow, scope.tenant).where(_FOLDERS.id == id))


async def chain(session: AsyncSession, scope: Scope, folder_id: str | None) -> list[FolderRow]:
    """The folders from the root down to this one, in one statement at any depth; empty for an unknown id."""
    if folder_id is None:
        return []
    upward = within(select(_FOLDERS.id, _FOLDERS.parent_id), FolderRow, scope.tenant)
    above = upward.where(_FOLDERS.id == folder_id).cte("above", recursive=True)
    above = above.union_all(upward.where(_FOLDERS.id == above.c.parent_id))
    statement = select_rows(FolderRow, scope).where(_FOLDERS.id.in_(select(above.c.id)))
    rows = await session.execute(statement)
    return sorted((as_row(FolderRow, row) for row in rows), key=lambda row: len(row.path))


# ---------------------------------------------------------------- rules


def _refuse_misfits(name: str, namespace: str) -> None:
    refusals: list[Refusal] = []
    refuse_bad_name(name, refusals)
    if "/" in name:
        message = f'the name {name!r} has a "/", which stands between folders in a path: use another character'
        refusals.append(Refusal(ErrorCode.INVALID_INPUT, message, ("name",)))
    if not namespace.strip() or namespace != namespace.strip() or len(namespace) > LONGEST_NAME:
        message = f"the namespace is {namespace!r}: write 1 to {LONGEST_NAME} characters without space around them"
        refusals.append(Refusal(ErrorCode.INVALID_INPUT, message, ("namespace",)))
    if refusals:
        raise Refusals(refusals)


async def _free_path(session: AsyncSession, scope: Scope, namespace: str, parent: FolderRow | None, name: str) -> str:
    path = f"{parent.path if parent else ''}/{name}"
    if path.count("/") > DEEPEST:
        raise Refusal(ErrorCode.LIMIT_EXCEEDED, f"folders are at most {DEEPEST} deep: use a higher one", ("parent_id",))
    statement = within(select(_FOLDERS.id), FolderRow, scope.tenant)
    same = statement.where(_FOLDERS.namespace == namespace, _FOLDERS.path == path)
    if (await session.execute(same)).first() is not None:
        raise Refusal(ErrorCode.ALREADY_EXISTS, f"folder {path!r} already exists: choose another name", ("name",))
    return path


async def _move_inside(session: AsyncSession, scope: Scope, current: FolderRow, path: str) -> None:
    """Updates the paths of the folders below a folder. `0` is the character after `/`."""
    inside = (
        _FOLDERS.namespace == current.namespace,
        _FOLDERS.path > f"{current.path}/",
        _FOLDERS.path < f"{current.path}0",
    )
    paths = await session.scalars(within(select(_FOLDERS.path), FolderRow, scope.tenant).where(*inside))
    depth = path.count("/") + max((each.count("/") for each in paths), default=0) - current.path.count("/")
    if depth > DEEPEST:
        message = (
            f"folders are at most {DEEPEST} deep, and what is in {current.path!r} would be {depth}: use a higher one"
        )
        raise Refusal(ErrorCode.LIMIT_EXCEEDED, message, ("parent_id",))
    rest = func.substr(_FOLDERS.path, len(current.path) + 1)
    moved = within(update_rows(FolderRow), FolderRow, scope.tenant).where(*inside)
    await session.execute(moved.values(path=literal(path) + rest))


async def _required(session: AsyncSession, scope: Scope, id: str, etag: str | None) -> FolderRow:
    return current_row((await get_many(session, scope, [id])).get(id), "folder", id, etag)


async def _named(
    session: AsyncSession, scope: Scope, row: type[TenantRow], condition: ColumnElement[bool]
) -> list[Any]:
    of = columns(row)
    statement = within(select(of.id, of.name), row, scope.tenant).where(condition)
    return list(await session.execute(statement.order_by(of.name, of.id).limit(MOST_NAMED + 1)))

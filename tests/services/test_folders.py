"""Folders: a tree that keeps its paths right, and that nothing is lost from."""

import asyncio

import pytest

from app.clock import FixedClock
from app.engine.store.lake import Lake
from app.errors import ErrorCode, HasDependents, Refusal, Refusals, StaleEtag
from app.scope import Scope
from app.services.audiences import computed as definitions
from app.services.audiences import definition_reads
from app.services.audiences.definition_rules import NewDefinition
from app.services.search import folders
from app.services.search.folders import FolderChanges, NewFolder
from app.storage.database import Database
from app.storage.tables.folders import FolderRow
from tests.services.conftest import SCOPE, Define, whole

OTHER = Scope("acme", "dev", "ann")


class Folders:
    def __init__(self, database: Database, clock: FixedClock) -> None:
        self.database = database
        self.clock = clock

    async def make(self, name: str, parent: FolderRow | None = None, namespace: str = "AEPSegments") -> FolderRow:
        new = NewFolder(name, namespace, None if parent is None else parent.id)
        return await folders.create(self.database, self.clock, SCOPE, new)

    async def change(self, folder: FolderRow, changes: FolderChanges, etag: str | None = None) -> FolderRow:
        return await folders.update(self.database, self.clock, SCOPE, folder.id, etag, changes)

    async def paths(self, *rows: FolderRow) -> list[str]:
        async with self.database.session() as session:
            found = await folders.get_many(session, SCOPE, [row.id for row in rows])
        return [found[row.id].path for row in rows if row.id in found]


@pytest.fixture
def tree(database: Database, clock: FixedClock) -> Folders:
    return Folders(database, clock)


async def test_paths_follow_renames_and_moves(tree: Folders) -> None:
    shop = await tree.make("Shop")
    summer = await tree.make("Summer", shop)
    june = await tree.make("Juni", summer)
    shopping = await tree.make("Shopping")
    foreign = await tree.make("Shop", namespace="AAM")
    every = (shop, summer, june, shopping, foreign)
    assert await tree.paths(*every) == ["/Shop", "/Shop/Summer", "/Shop/Summer/Juni", "/Shopping", "/Shop"]
    renamed = await tree.change(shop, {"name": "Läden"}, "1")
    assert (renamed.name, renamed.path, renamed.revision) == ("Läden", "/Läden", 2)
    assert await tree.paths(*every) == ["/Läden", "/Läden/Summer", "/Läden/Summer/Juni", "/Shopping", "/Shop"]
    await tree.change(summer, {"parent_id": shopping.id})
    assert await tree.paths(*every) == ["/Läden", "/Shopping/Summer", "/Shopping/Summer/Juni", "/Shopping", "/Shop"]
    await tree.change(june, {"parent_id": None})
    assert await tree.paths(*every) == ["/Läden", "/Shopping/Summer", "/Juni", "/Shopping", "/Shop"]


async def test_the_chain_goes_from_the_root_down(database: Database, tree: Folders) -> None:
    shop = await tree.make("Shop")
    summer = await tree.make("Summer", shop)
    june = await tree.make("June", summer)
    async with database.session() as session:
        assert [row.id for row in await folders.chain(session, SCOPE, june.id)] == [shop.id, summer.id, june.id]
        assert await folders.chain(session, OTHER, june.id) == []
        assert await folders.chain(session, SCOPE, None) == []


@pytest.mark.parametrize(
    ("name", "namespace", "paths"),
    [
        ("", "AEPSegments", [("name",)]),
        (" a", "AEPSegments", [("name",)]),
        ("a/b", "AEPSegments", [("name",)]),
        ("a", " ", [("namespace",)]),
        ("/", "", [("name",), ("namespace",)]),
        ("a" * 256, "AEPSegments", [("name",)]),
    ],
)
async def test_what_a_folder_cannot_be_called(
    tree: Folders, name: str, namespace: str, paths: list[tuple[str, ...]]
) -> None:
    with pytest.raises(Refusals) as caught:
        await tree.make(name, namespace=namespace)
    assert [(refusal.code, refusal.path) for refusal in caught.value.refusals] == [
        (ErrorCode.INVALID_INPUT, path) for path in paths
    ]


async def test_refusals_change_nothing(tree: Folders) -> None:
    shop = await tree.make("Shop")
    summer = await tree.make("Summer", shop)
    taken = await tree.make("Taken")
    foreign = await tree.make("Foreign", namespace="AAM")
    ghost = FolderRow(**{**{name: getattr(shop, name) for name in FolderRow.model_fields}, "id": "ghost"})
    for attempt, code, path in [
        (tree.make("Summer", shop), ErrorCode.ALREADY_EXISTS, ("name",)),
        (tree.make("New", ghost), ErrorCode.NOT_FOUND, ("parent_id",)),
        (tree.make("New", foreign), ErrorCode.INVALID_INPUT, ("parent_id",)),
        (tree.change(shop, {"name": "Taken"}), ErrorCode.ALREADY_EXISTS, ("name",)),
        (tree.change(shop, {"parent_id": shop.id}), ErrorCode.INVALID_INPUT, ("parent_id",)),
        (tree.change(shop, {"parent_id": summer.id}), ErrorCode.INVALID_INPUT, ("parent_id",)),
        (tree.change(shop, {"parent_id": foreign.id}), ErrorCode.INVALID_INPUT, ("parent_id",)),
        (tree.change(ghost, {"name": "New"}), ErrorCode.NOT_FOUND, ("id",)),
        (tree.change(shop, {"name": "New"}, "7"), ErrorCode.STALE_ETAG, ("etag",)),
    ]:
        with pytest.raises(Refusal) as caught:
            await attempt
        assert (caught.value.code, caught.value.path) == (code, path)
    assert await tree.paths(shop, summer, taken, foreign) == ["/Shop", "/Shop/Summer", "/Taken", "/Foreign"]


async def test_folders_are_at_most_twenty_deep(tree: Folders) -> None:
    deepest = await tree.make("1")
    for level in range(2, folders.DEEPEST + 1):
        deepest = await tree.make(str(level), deepest)
    with pytest.raises(Refusal) as caught:
        await tree.make("21", deepest)
    assert (caught.value.code, caught.value.path) == (ErrorCode.LIMIT_EXCEEDED, ("parent_id",))
    above = await tree.make("above")
    inside = await tree.make("inside", above)
    with pytest.raises(Refusal) as caught:
        await tree.change(above, {"parent_id": deepest.parent_id})
    assert caught.value.message == "folders are at most 20 deep, and what is in '/above' would be 21: use a higher one"
    assert await tree.paths(above, inside) == ["/above", "/above/inside"]


async def test_a_folder_goes_only_when_it_is_empty(
    database: Database, lake: Lake, clock: FixedClock, tree: Folders, define: Define
) -> None:
    shop = await tree.make("Shop")
    summer = await tree.make("Summer", shop)
    segment = await define("Buyers")
    moved = await definitions.update(database, lake, clock, SCOPE, segment.id, None, {"folder_id": shop.id})
    assert moved.folder_id == shop.id
    with pytest.raises(HasDependents) as caught:
        await folders.delete(database, SCOPE, shop.id)
    assert caught.value.message == "the folder '/Shop' holds 'Summer', 'Buyers': move or delete them first"
    assert caught.value.dependents == (("Folder", summer.id), ("Audience", segment.id))
    await folders.delete(database, SCOPE, summer.id)
    with pytest.raises(HasDependents):
        await folders.delete(database, SCOPE, shop.id)
    kept = await definitions.update(database, lake, clock, SCOPE, segment.id, None, {"description": "new"})
    assert kept.folder_id == shop.id
    await definitions.update(database, lake, clock, SCOPE, segment.id, None, {"folder_id": None})
    with pytest.raises(StaleEtag):
        await folders.delete(database, SCOPE, shop.id, "2")
    await folders.delete(database, SCOPE, shop.id, "1")
    assert await tree.paths(shop, summer) == []


async def test_a_definition_goes_into_a_folder_of_its_namespace(
    database: Database, lake: Lake, clock: FixedClock, tree: Folders, define: Define
) -> None:
    segment, foreign = await define("Buyers"), await tree.make("Foreign", namespace="AAM")
    for folder_id, code in ((foreign.id, ErrorCode.INVALID_INPUT), ("ghost", ErrorCode.NOT_FOUND)):
        with pytest.raises(Refusal) as caught:
            await definitions.update(database, lake, clock, SCOPE, segment.id, None, {"folder_id": folder_id})
        assert (caught.value.code, caught.value.path) == (code, ("folder_id",))
        new = NewDefinition(name="New", expression="true", folder_id=folder_id)
        with pytest.raises(Refusal) as caught:
            await definitions.create(database, lake, clock, SCOPE, new)
        assert (caught.value.code, caught.value.path) == (code, ("folder_id",))
    async with database.session() as session:
        assert await definition_reads.count(session, SCOPE) == 1
        (view,) = (await definition_reads.get_many(session, SCOPE, [segment.id])).values()
        assert whole(view) == whole(segment)


async def test_nothing_gets_into_a_folder_that_is_being_deleted(
    database: Database, lake: Lake, clock: FixedClock, tree: Folders, define: Define
) -> None:
    await define("First")
    for at in range(5):
        folder = await tree.make(f"Folder {at}")
        new = NewDefinition(name=f"In {at}", expression="true", folder_id=folder.id)
        outcomes = await asyncio.gather(
            folders.delete(database, SCOPE, folder.id),
            definitions.create(database, lake, clock, SCOPE, new),
            return_exceptions=True,
        )
        refused = [outcome for outcome in outcomes if isinstance(outcome, Refusal)]
        assert [type(one) for one in refused] in ([HasDependents], [Refusal])
        there = await tree.paths(folder)
        assert there == ([folder.path] if isinstance(refused[0], HasDependents) else [])


async def test_another_sandbox_has_none_of_it(database: Database, clock: FixedClock, tree: Folders) -> None:
    shop = await tree.make("Shop")
    for attempt in (
        folders.update(database, clock, OTHER, shop.id, None, {"name": "Mine"}),
        folders.delete(database, OTHER, shop.id),
        folders.create(database, clock, OTHER, NewFolder("Mine", "AEPSegments", shop.id)),
    ):
        with pytest.raises(Refusal) as caught:
            await attempt
        assert caught.value.code is ErrorCode.NOT_FOUND
    same = await folders.create(database, clock, OTHER, NewFolder("Shop", "AEPSegments"))
    await folders.update(database, clock, OTHER, same.id, None, {"name": "Mine"})
    assert await tree.paths(shop) == ["/Shop"]

"""Search sees every change that was committed before it, from whichever process; pages of hits hold still."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, text, update

from app.clock import FixedClock
from app.errors import Refusal
from app.scope import Scope
from app.services.lists.paging import PageRequest, Slice, decode_cursor, encode_cursor
from app.services.search import find as search
from app.services.search import folders
from app.services.search.find import SearchIndexes
from app.services.search.folders import NewFolder
from app.services.search.index import Index
from app.storage.columns import columns
from app.storage.database import Database
from app.storage.tables.audiences import AudienceRow
from app.storage.tables.search import SearchVersionRow
from tests.services.conftest import SCOPE
from tests.support.both_ways import both_ways
from tests.support.databases import count_statements

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
OTHER = Scope("acme", "dev", "ann")
_COLUMNS = columns(AudienceRow)


def audience(id_: str, name: str, scope: Scope = SCOPE, **more: Any) -> AudienceRow:
    return AudienceRow(
        organisation=scope.organisation,
        sandbox=scope.sandbox,
        id=id_,
        audience_id=id_,
        name=name,
        created_by="ann",
        last_modified_by="ann",
        created_at=NOW,
        updated_at=NOW,
        **more,
    )


class Process:
    """A process of ours: a database of its own, and indexes of its own."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.indexes = SearchIndexes()

    async def add(self, *rows: AudienceRow) -> None:
        async with self.database.write(SCOPE.tenant) as session:
            session.add_all(rows)

    async def rename(self, id_: str, name: str) -> None:
        async with self.database.write(SCOPE.tenant) as session:
            await session.execute(update(AudienceRow).where(_COLUMNS.id == id_).values(name=name))

    async def remove(self, *ids: str) -> None:
        async with self.database.write(SCOPE.tenant) as session:
            await session.execute(delete(AudienceRow).where(_COLUMNS.id.in_(ids)))

    async def find(
        self, term: str, request: PageRequest | None = None, scope: Scope = SCOPE, **where: Any
    ) -> search.FoundPage:
        async with self.database.session() as session:
            return await search.find(self.indexes, session, scope, term, request or PageRequest(), **where)

    async def names(self, term: str, scope: Scope = SCOPE, **where: Any) -> list[str]:
        return [found.entry.name for found in (await self.find(term, scope=scope, **where)).page.items]

    @property
    def index(self) -> Index:
        index = self.indexes.place(SCOPE.tenant).index
        assert index is not None
        return index


@pytest.fixture
def here(database: Database) -> Process:
    return Process(database)


@pytest.fixture
async def there(database_url: str) -> AsyncIterator[Process]:
    database = Database(database_url)
    yield Process(database)
    await database.dispose()


async def test_changes_of_another_process_are_seen_at_once(here: Process, there: Process) -> None:
    assert await there.names("*") == []
    await here.add(audience("a", "Blue"), audience("b", "Red"))
    assert await there.names("*") == ["Blue", "Red"]
    await here.rename("a", "Green")
    assert (await there.names("blue"), await there.names("green")) == ([], ["Green"])
    await here.remove("b")
    assert await there.names("*") == ["Green"]
    assert await here.names("*") == ["Green"]


async def test_a_search_without_changes_is_one_statement_and_touches_no_index(here: Process) -> None:
    await here.add(audience("a", "Blue"))
    await here.names("blue")
    index, snapshot = here.index, here.index.snapshot
    with count_statements(here.database) as statements:
        await here.names("blue")
    assert len(statements) == 1
    assert (here.index, here.index.snapshot) == (index, snapshot)


async def test_a_change_is_taken_in_without_making_the_index_anew(here: Process) -> None:
    await here.add(audience("a", "Blue"))
    await here.names("blue")
    index = here.index
    await here.add(audience("b", "Light blue"))
    with count_statements(here.database) as statements:
        assert await here.names("blue") == ["Blue", "Light blue"]
    assert len(statements) == 3
    assert here.index is index


async def test_an_index_that_is_far_behind_is_made_anew(here: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    await here.add(audience("a", "Blue"))
    await here.names("blue")
    index = here.index
    monkeypatch.setattr(search, "MOST_CHANGES", 1)
    await here.add(audience("b", "Light blue"), audience("c", "Dark blue"))
    assert await here.names("blue") == ["Blue", "Dark blue", "Light blue"]
    assert here.index is not index


async def test_a_database_that_was_put_back_is_followed(here: Process) -> None:
    await here.add(audience("a", "Blue"), audience("b", "Red"))
    assert await here.names("*") == ["Blue", "Red"]
    async with here.database.write() as session:
        await session.execute(text("DELETE FROM audience WHERE id = 'b'"))
        await session.execute(text("DELETE FROM search_change"))
        await session.execute(text("DELETE FROM search_version"))
    assert await here.names("*") == ["Blue"]


async def test_a_damaged_index_is_made_anew(here: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    await here.add(audience("a", "Blue"))
    await here.names("*")
    damaged = here.index
    monkeypatch.setattr(damaged, "_index", None)
    await here.add(audience("b", "Red"))
    assert await here.names("*") == ["Blue", "Red"]
    assert here.index is not damaged


async def test_what_was_there_before_the_log_is_found(here: Process) -> None:
    await here.add(audience("a", "Blue"))
    async with here.database.write() as session:
        await session.execute(text("DELETE FROM search_change"))
        await session.execute(text("DELETE FROM search_version"))
    assert await here.names("blue") == ["Blue"]


async def test_searches_while_others_write_never_fail_and_end_right(here: Process, there: Process) -> None:
    async def write() -> None:
        for at in range(20):
            await here.add(audience(f"{at:02}", f"Blue {at:02}"))

    async def look() -> None:
        seen = 0
        for _ in range(20):
            found = len(await there.names("blue"))
            assert found >= seen
            seen = found

    await asyncio.gather(write(), look(), look())
    assert await there.names("blue") == [f"Blue {at:02}" for at in range(20)]


async def test_a_sandbox_finds_its_own_only(here: Process) -> None:
    await here.add(audience("a", "Blue"), audience("b", "Blue too", OTHER))
    assert await here.names("blue") == ["Blue"]
    assert await here.names("blue", OTHER) == ["Blue too"]
    assert await here.names("*", Scope("other", "prod", "ann")) == []
    assert await here.names("segmentId:b") == []
    async with here.database.session() as session:
        assert await search.taxonomy(session, OTHER, "AEPSegments", ("Audience",), "a") == []
        found = await search.namespaces(here.indexes, session, Scope("acme", "empty", "ann"), "blue")
    assert found == []


async def test_as_many_indexes_are_kept_as_fit(here: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "MOST_INDEXES", 2)
    await here.add(*(audience("a", f"Blue {sandbox}", Scope("acme", sandbox, "ann")) for sandbox in "xyz"))
    for sandbox in "xyzx":
        assert await here.names("blue", Scope("acme", sandbox, "ann")) == [f"Blue {sandbox}"]
        assert len(here.indexes._places) <= 2


async def test_folders(here: Process, clock: FixedClock) -> None:
    async def make(name: str, parent: str | None = None, namespace: str = "AEPSegments") -> str:
        return (await folders.create(here.database, clock, SCOPE, NewFolder(name, namespace, parent))).id

    shop = await make("Shop")
    summer = await make("Summer", shop)
    shopping = await make("Shopping")
    foreign = await make("Shop", None, "AAM")
    await here.add(
        audience("a", "In summer", folder_id=summer),
        audience("b", "In shop", folder_id=shop),
        audience("c", "In shopping", folder_id=shopping),
        audience("d", "In AAM", folder_id=foreign, namespace="AAM"),
        audience("e", "Nowhere"),
    )
    assert await here.names("*", folder_id=shop) == ["Summer", "In shop", "In summer"]
    assert await here.names("in", folder_id=shop) == ["In shop", "In summer"]
    assert await here.names("*", folder_id=foreign) == ["In AAM"]
    assert await here.names("*", folder_id="ghost") == []
    assert await here.names("*", namespace="AAM") == ["Shop", "In AAM"]
    assert await here.names("folderLocation:shop AND in") == ["In AAM", "In shop", "In summer"]
    await folders.update(here.database, clock, SCOPE, shop, None, {"name": "Laden"})
    assert await here.names("folderLocation:laden") == ["Laden", "Summer", "In shop", "In summer"]
    assert await here.names("folderLocation:shop AND in") == ["In AAM"]
    assert await here.names("*", folder_id=shop) == ["Summer", "In shop", "In summer"]
    async with here.database.session() as session:
        chain = await search.taxonomy(session, SCOPE, "AEPSegments", ("Audience", "Folder"), "a")
        assert [entry.name for entry in chain] == ["Laden", "Summer", "In summer"]
        chain = await search.taxonomy(session, SCOPE, "AEPSegments", ("Audience", "Folder"), summer)
        assert [entry.name for entry in chain] == ["Laden", "Summer"]
        assert await search.taxonomy(session, SCOPE, "AAM", ("Audience", "Folder"), "a") == []
        assert await search.taxonomy(session, SCOPE, "AEPSegments", ("Folder",), "a") == []


async def test_namespaces_are_counted(here: Process) -> None:
    await here.add(
        audience("a", "Blue"),
        audience("b", "Blue too"),
        audience("c", "Blue as well", namespace="AAM"),
        audience("d", "Red", namespace="mine"),
    )
    async with here.database.session() as session:
        found = await search.namespaces(here.indexes, session, SCOPE, "blue")
    assert [(each.namespace, each.display_name, each.count) for each in found] == [
        ("AEPSegments", "Experience Platform segments", 2),
        ("AAM", "Audience Manager", 1),
        ("mine", "mine", 0),
    ]


# ---------------------------------------------------------------- pages


@pytest.mark.parametrize("term", ["", "blue", "blue OR audience"])
async def test_hits_are_read_from_both_ends(here: Process, term: str) -> None:
    await here.add(*(audience(f"a{n}", f"{'Blue ' * (n % 3)}audience {n % 4}") for n in range(11)))

    async def read(request: PageRequest) -> Slice[search.Found]:
        async with here.database.session() as session:
            return (await search.find(here.indexes, session, SCOPE, term, request)).page

    for size in (1, 3, 11):
        assert len(await both_ways(read, size)) == (7 if term == "blue" else 11)


async def test_pages_say_where_they_lie(here: Process) -> None:
    await here.add(*(audience(str(at), f"Blue {at}") for at in range(5)))
    first = await here.find("blue", PageRequest(2))
    assert [found.entry.name for found in first.page.items] == ["Blue 0", "Blue 1"]
    assert (first.total, first.page.has_previous, first.page.has_next) == (5, False, True)
    last = await here.find("blue", PageRequest(3, cursor=first.page.cursors[-1]))
    assert [found.entry.name for found in last.page.items] == ["Blue 2", "Blue 3", "Blue 4"]
    assert (last.total, last.page.has_previous, last.page.has_next) == (5, True, False)
    empty = await here.find("blue", PageRequest(0))
    assert (empty.page.items, empty.page.has_next, empty.total) == ([], True, 5)


@pytest.mark.parametrize("cursor", ["nonsense", "WyJTRUFSQ0giXQ", "WyJOQU1FIiwxXQ", "é"])
async def test_a_cursor_of_something_else_is_refused(here: Process, cursor: str) -> None:
    with pytest.raises(Refusal) as caught:
        await here.find("blue", PageRequest(2, cursor=cursor))
    assert caught.value.path == ("after",)


async def test_a_cursor_of_another_search_is_refused(here: Process) -> None:
    await here.add(audience("a", "Blue"))
    cursor = (await here.find("blue")).page.cursors[0]
    assert (await here.find("blue", PageRequest(2, cursor=cursor))).page.items == []
    order, *values = "SEARCH", *decode_cursor("SEARCH", cursor, "after")
    for weight in (10**400, -1, "1", 0):
        forged = encode_cursor(order, [values[0], [weight], *values[2:]])
        with pytest.raises(Refusal, match="is not a cursor of a search for 'blue'"):
            await here.find("blue", PageRequest(2, cursor=forged))
    with pytest.raises(Refusal, match="is not a cursor of a search for 'red'"):
        await here.find("red", PageRequest(2, cursor=cursor))


_WORDS = ("blue", "gold", "red")
_NAMES = st.lists(st.sampled_from(_WORDS), min_size=1, max_size=3).map(" ".join)
_STEPS = st.lists(
    st.one_of(st.tuples(st.just("add"), _NAMES), st.tuples(st.just("remove"), st.integers(0, 30))), max_size=10
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(_NAMES, max_size=10), steps=_STEPS, size=st.integers(1, 4))
async def test_each_old_hit_is_on_exactly_one_page_whatever_comes_and_goes(
    here: Process, there: Process, names: list[str], steps: list[tuple[str, Any]], size: int
) -> None:
    """Pages are asked of two processes in turn, with a change before each one after the first."""
    await here.remove(*(f"{at:03}" for at in range(100)))
    present = [f"{at:03}" for at in range(len(names))]
    await here.add(*(audience(id_, name, type="EXTERNAL_SEGMENT") for id_, name in zip(present, names, strict=True)))
    term, cursor, changes = "blue gold~1", None, iter(steps)
    seen: list[str] = []
    expected = {id_ for id_, name in zip(present, names, strict=True) if "blue" in name or "gold" in name}
    new = len(names)
    while True:
        process = (here, there)[len(seen) % 2]
        page = (await process.find(term, PageRequest(size, cursor=cursor))).page
        seen += [found.entry.id for found in page.items]
        if not page.has_next:
            break
        cursor = page.cursors[-1]
        match next(changes, None):
            case ("add", name):
                await here.add(audience(f"{new:03}", name, type="EXTERNAL_SEGMENT"))
                new += 1
            case ("remove", place) if present:
                gone = present.pop(place % len(present))
                expected.discard(gone)
                await here.remove(gone)
    assert len(seen) == len(set(seen))
    assert expected <= set(seen)


async def test_the_version_is_read_within_the_tenant(here: Process) -> None:
    await here.add(audience("a", "Blue"), audience("b", "Blue too", OTHER))
    await here.names("*")
    async with here.database.session() as session:
        versions = await session.execute(text(f"SELECT sandbox, version FROM {SearchVersionRow.__tablename__}"))
        assert {row.sandbox: row.version for row in versions} == {"prod": 1, "dev": 1}
    assert here.index.snapshot.version == 1

"""The audit log: every mutation is in it, in the transaction of its change, and nothing takes it out again."""

from typing import Any

import pytest
from sqlalchemy import delete, select, text, update
from sqlalchemy.exc import DBAPIError

from app.api.context import ApiServices
from app.services.access.audit import Entry
from app.storage.columns import columns
from app.storage.tables.access import AuditEventRow
from tests.api.conftest import CSV, Api
from tests.api.test_permissions import MUTATIONS, Holding, call, holding

__all__ = ["holding"]

EVENTS = columns(AuditEventRow)
FOLDER = 'mutation { createFolder(input: {name: "a", namespace: "N"}) { folder { folderId id } errors { code } } }'
LOG = """query ($filter: AuditFilter, $first: Int, $after: String) {
  auditEvents(filter: $filter, first: $first, after: $after) {
    totalCount pageInfo { endCursor hasNextPage }
    nodes { at subject action resourceId outcome requestId } } }"""

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


async def log(api: Api, **filter: Any) -> list[tuple[str, str | None, str]]:
    """Actions, ids and outcomes, sorted: the clock stands still, so they have no order."""
    nodes = (await api.query(LOG, filter=filter or None, first=500))["auditEvents"]["nodes"]
    return sorted(((node["action"], node["resourceId"], node["outcome"]) for node in nodes), key=str)


async def test_each_mutation_leaves_one_event(api: Api) -> None:
    expected = []
    for name, field in MUTATIONS.items():
        answer = await api.answer(f"mutation {{ done: {call(name, field)} {{ errors {{ code }} }} }}")
        errors = answer["data"]["done"]["errors"]
        expected.append((name, errors[0]["code"] if errors else "OK"))
    assert sorted((action, outcome) for action, _, outcome in await log(api)) == sorted(expected)


async def test_an_event_says_what_was_done_to_what(api: Api) -> None:
    response = await api.http.post("/graphql", json={"query": FOLDER}, headers={"x-request-id": "r1"})
    folder = response.json()["data"]["createFolder"]["folder"]
    await api.query(f'mutation {{ updateFolder(input: {{id: "{folder["id"]}", name: "b"}}) {{ errors {{ code }} }} }}')
    await api.query('mutation { deleteFolder(input: {id: "x"}) { errors { code } } }')
    await api.query(FOLDER.replace('"a"', '" "'))
    dataset = await api.dataset()
    await api.upload(dataset, CSV)
    definition = await api.define("d", "true")
    assert await log(api) == [
        ("createDataset", dataset, "OK"),
        ("createFolder", folder["folderId"], "OK"),
        ("createFolder", None, "INVALID_INPUT"),
        ("createSegmentDefinition", definition, "OK"),
        ("deleteFolder", "x", "NOT_FOUND"),
        ("updateFolder", folder["folderId"], "OK"),
        ("uploadBatch", dataset, "OK"),
    ]
    chosen = {"resourceId": folder["id"], "action": "createFolder"}
    (first,) = (await api.query(LOG, filter=chosen))["auditEvents"]["nodes"]
    assert first == {
        "at": "2026-06-15T12:00:00Z",
        "subject": "anonymous",
        "action": "createFolder",
        "resourceId": folder["folderId"],
        "outcome": "OK",
        "requestId": "r1",
    }
    assert await log(api, subject="somebody") == []
    assert await log(api, at={"gt": "2026-06-15T12:00:00Z"}) == []
    assert await log(api.within("dev")) == []


@on_sqlite
async def test_the_log_has_pages(api: Api) -> None:
    for name in "abc":
        await api.query(FOLDER.replace('"a"', f'"{name}"'))
    page = (await api.query(LOG, first=2))["auditEvents"]
    assert (page["totalCount"], page["pageInfo"]["hasNextPage"], len(page["nodes"])) == (3, True, 2)
    rest = (await api.query(LOG, first=2, after=page["pageInfo"]["endCursor"]))["auditEvents"]
    assert (len(rest["nodes"]), rest["pageInfo"]["hasNextPage"]) == (1, False)


async def test_nothing_is_changed_that_is_not_recorded(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any) -> None:
        raise RuntimeError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Entry, "write", broken)
        answer = await api.answer(FOLDER)
    assert answer["errors"][0]["extensions"]["code"] == "INTERNAL"
    assert (await api.query("{ folders { totalCount } }"))["folders"]["totalCount"] == 0
    assert await log(api) == []


async def test_what_is_rolled_back_leaves_its_outcome_only(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event of success is in the transaction, and goes with it."""
    write = Entry.write

    async def then_fail(entry: Entry, session: Any, outcome: str) -> None:
        await write(entry, session, outcome)
        if outcome == "OK":
            raise RuntimeError("lost the connection")

    monkeypatch.setattr(Entry, "write", then_fail)
    await api.answer(FOLDER)
    assert [(action, outcome) for action, _, outcome in await log(api)] == [("createFolder", "INTERNAL")]
    assert (await api.query("{ folders { totalCount } }"))["folders"]["totalCount"] == 0


@on_sqlite
async def test_what_was_denied_is_recorded(api: Api, holding: Holding) -> None:
    holding("folders:read", "audit:admin")
    await api.query('mutation { deleteFolder(input: {id: "x"}) { errors { code } } }')
    assert await log(api) == [("deleteFolder", "x", "FORBIDDEN")]
    holding("read", "write", "run")
    assert (await api.answer(LOG))["errors"][0]["extensions"]["code"] == "FORBIDDEN"


async def test_the_log_only_grows(api: Api, services: ApiServices) -> None:
    await api.query(FOLDER)
    statements = [update(AuditEventRow).values(subject="nobody"), delete(AuditEventRow)]
    if services.database.dialect == "postgresql":
        statements.append(text("TRUNCATE audit_event"))  # type: ignore[arg-type]
    for statement in statements:
        with pytest.raises(DBAPIError, match="append-only"):
            async with services.database.write() as session:
                await session.execute(statement)
    async with services.database.session() as session:
        assert (await session.execute(select(EVENTS.subject))).scalars().all() == ["anonymous"]


@on_sqlite
async def test_no_data_of_people_is_in_it(api: Api, services: ApiServices) -> None:
    dataset = await api.dataset()
    await api.upload(dataset, b"customer,when,dollars\nann@example.com,2026-01-01T10:00:00Z,12.5\n")
    await api.define("of Ann", 'xEvent.sum(dollars) > 1 and "ann@example.com" = "ann@example.com"')
    async with services.database.session() as session:
        rows = [tuple(row) for row in await session.execute(select(*EVENTS))]
    assert "ann@example.com" not in str(rows)
    assert len(rows) == 3

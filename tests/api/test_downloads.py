"""Members as files: the same people as the list has, for the same callers, in three formats."""

import csv
import io
import json
from datetime import timedelta

import pyarrow.parquet as pq
import pytest

from app.api.context import ApiServices
from app.api.global_ids import global_id
from app.api.scalars import write_time
from app.clock import FixedClock
from app.engine.insight import members_in_order
from app.services.jobs.segment.run import run_segment_job
from app.storage.queue.attempts import Attempt
from app.storage.queue.claims import claim_next
from app.storage.tables.jobs import JobKind
from tests.api.conftest import Api
from tests.api.test_permissions import Holding, holding
from tests.support.gateway import LEASE

__all__ = ["holding"]

PEOPLE = b"""{"customer": "1", "person": {"name": "Ann", "born": "2000-01-02"}, "tags": ["vip", "new"], "score": 5}
{"customer": "2", "person": {"name": "B, \\"b\\""}, "score": 7.5}
{"customer": "3", "score": 1}
"""


@pytest.fixture
async def audience(api: Api, services: ApiServices) -> str:
    people = await api.dataset("people", "PROFILE")
    assert (await api.upload(people, PEOPLE, "NDJSON")).json()["data"]["uploadBatch"]["errors"] == []
    id = await api.define("Scored", "score > 2")
    await run(api, services, id)
    return id


async def run(api: Api, services: ApiServices, id: str) -> None:
    await api.start(id)
    claim = await claim_next(services.database, services.clock, owner="test", lease=LEASE, kind=JobKind.SEGMENT)
    assert claim is not None
    await run_segment_job(Attempt(services.database, services.clock, claim), services.lake, 1)


async def test_three_formats_say_the_same(api: Api, audience: str) -> None:
    since = api.services.clock().isoformat().replace("+00:00", "Z")
    answer = await api.http.get(f"/audiences/{audience}/members.csv", headers=api.headers)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/csv; charset=utf-8; header=present")
    assert answer.headers["content-disposition"] == 'attachment; filename="members.csv"'
    rows = sorted(csv.DictReader(io.StringIO(answer.text)), key=lambda row: row["profileId"])
    assert [(row["profileId"], row["status"], row["person.name"], row["tags"], row["score"]) for row in rows] == [
        ("crm:1", "REALIZED", "Ann", '["vip","new"]', "5"),
        ("crm:2", "REALIZED", 'B, "b"', "", "7.5"),
    ]
    ids = {"id": global_id("Audience", audience)}
    answer = await api.http.get(f"/audiences/{ids['id']}/members.ndjson", headers=api.headers)
    lines = sorted((json.loads(line) for line in answer.text.splitlines()), key=lambda row: row["profileId"])
    assert lines[0]["person"] == {"name": "Ann", "born": "2000-01-02"}
    assert lines[0]["tags"] == ["vip", "new"]
    assert lines[1] == {
        "profileId": "crm:2",
        "status": "REALIZED",
        "lastQualificationTime": lines[1]["lastQualificationTime"],
        "customer": "2",
        "person": {"name": 'B, "b"'},
        "score": 7.5,
    }
    assert lines[0]["lastQualificationTime"][:19] == since[:19]
    answer = await api.http.get(f"/audiences/{audience}/members.parquet", headers=api.headers)
    table = pq.read_table(io.BytesIO(answer.content)).sort_by("profileId")
    assert table["profileId"].to_pylist() == ["crm:1", "crm:2"]
    assert table["person"].to_pylist()[0]["name"] == "Ann"


async def test_columns_and_statuses_are_chosen(api: Api, audience: str) -> None:
    answer = await api.http.get(
        f"/audiences/{audience}/members.ndjson?columns=person.name&status=REALIZED", headers=api.headers
    )
    lines = sorted((json.loads(line) for line in answer.text.splitlines()), key=lambda row: row["profileId"])
    assert [(line["profileId"], line["person"], "score" in line) for line in lines] == [
        ("crm:1", {"name": "Ann"}, False),
        ("crm:2", {"name": 'B, "b"'}, False),
    ]
    nobody = await api.http.get(f"/audiences/{audience}/members.csv?columns=score&status=EXITED", headers=api.headers)
    assert nobody.text.splitlines() == ['"profileId","status","lastQualificationTime","score"']


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_names_with_dots_are_written_in_backquotes(api: Api, services: ApiServices) -> None:
    """In files, in `attributes` and in exports alike, as in expressions."""
    people = await api.dataset("people", "PROFILE")
    rows = b'{"customer": "1", "total.net": 5, "home": {"zip code": "01234", "a.b": 1}, "total": {"net": 6}}'
    assert (await api.upload(people, rows, "NDJSON")).json()["data"]["uploadBatch"]["errors"] == []
    id = await api.define("All", "`total.net` = 5 and home.`a.b` = 1")
    await run(api, services, id)
    paths = ["`total.net`", "home.`a.b`", "home.zip code"]
    chosen = {"total.net": 5, "home": {"a.b": 1, "zip code": "01234"}}
    answer = await api.http.get(
        f"/audiences/{id}/members.ndjson", params={"columns": ",".join(paths)}, headers=api.headers
    )
    (line,) = map(json.loads, answer.text.splitlines())
    assert {name: line[name] for name in line.keys() - {"profileId", "status", "lastQualificationTime"}} == chosen
    members = """query ($id: ID!, $paths: [String!]) {
      audience(id: $id) { members { nodes { profile { attributes(paths: $paths) } } } } }"""
    (member,) = (await api.query(members, id=id, paths=paths))["audience"]["members"]["nodes"]
    assert member["profile"]["attributes"] == chosen
    create = 'mutation { createDataset(input: { name: "T", kind: EXPORT }) { dataset { datasetId } } }'
    target = (await api.query(create))["createDataset"]["dataset"]["datasetId"]
    export = """mutation ($input: CreateExportJobInput!) {
      createExportJob(input: $input) { job { fields } errors { message } } }"""
    asked = {"schemaName": "_xdm.context.profile", "destination": {"datasetId": target}, "fields": paths}
    created = (await api.query(export, input=asked))["createExportJob"]
    assert created == {"job": {"fields": paths}, "errors": []}


@pytest.mark.parametrize(
    ("path", "status", "code", "message"),
    [
        ("{id}/members.xlsx", 404, "NOT_FOUND", "members come as csv, ndjson, parquet, not as 'xlsx'"),
        ("{id}/members.csv?columns=person.nam", 400, "INVALID_INPUT", "profiles have no attribute 'person.nam'"),
        ("{id}/members.csv?columns=", 400, "INVALID_INPUT", "is not a path"),
        ("{id}/members.csv?status=IN", 400, "INVALID_INPUT", "'IN' is no status of a member"),
        ("{id}/members.csv?colums=a", 400, "INVALID_INPUT", "there is no parameter 'colums'"),
        ("{id}/members.csv?where=scor > 1", 400, "INVALID_EXPRESSION", "line 1, column 1: there is no"),
        ("{id}/members.csv?where=", 400, "INVALID_EXPRESSION", ""),
        ("{id}/members.csv?orderBy=tags", 400, "INVALID_EXPRESSION", "expected a single value, not array"),
        (
            "{id}/members.csv?orderBy=score&direction=UP",
            400,
            "INVALID_INPUT",
            "is ASC or DESC beside `orderBy`, not 'UP'",
        ),
        ("{id}/members.csv?asOf=yesterday", 400, "INVALID_INPUT", "'yesterday' is not a time: write it in ISO 8601"),
        ("{id}/members.csv?asOf=2999-01-01T00:00:00Z", 400, "INVALID_INPUT", "is still to come"),
        ("{id}/members.csv?direction=ASC", 400, "INVALID_INPUT", "`direction` is given without `orderBy`"),
        ("{id}/members.csv?status=EXITED&status=REALIZED", 400, "INVALID_INPUT", "'status' is given twice"),
        ("unknown/members.csv", 404, "NOT_FOUND", "there is no audience 'unknown' in this sandbox"),
    ],
)
async def test_what_is_wrong_is_said(api: Api, audience: str, path: str, status: int, code: str, message: str) -> None:
    answer = await api.http.get(f"/audiences/{path.format(id=audience)}", headers=api.headers)
    (error,) = answer.json()["errors"]
    assert (answer.status_code, error["extensions"]["code"]) == (status, code)
    assert message in error["message"]


async def test_other_sandboxes_have_no_file(api: Api, audience: str) -> None:
    other = api.within("test")
    answer = await api.http.get(f"/audiences/{audience}/members.csv", headers=other.headers)
    assert answer.status_code == 404


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_before_its_first_run_an_audience_has_nobody_in_list_and_file(api: Api, audience: str) -> None:
    """As `members(asOf:)` says of the time before; also of an uploaded audience without any batch."""
    create = """mutation ($dataset: ID!) {
      createAudience(input: { name: "Uploaded", type: EXTERNAL_SEGMENT, datasetId: $dataset }) {
        audience { id } errors { message } } }"""
    empty = (await api.query(create, dataset=await api.dataset("list", "AUDIENCE")))["createAudience"]
    assert empty["errors"] == []
    listed = "query ($id: ID!) { audience(id: $id) { members { totalCount nodes { status } } } }"
    for id in (await api.define("Fresh", "score > 3"), empty["audience"]["id"]):
        members = (await api.query(listed, id=id))["audience"]["members"]
        assert members == {"totalCount": 0, "nodes": []}
        for parameters in ("", "&orderBy=score", "&where=score > 0", "&asOf=2026-01-01T00:00:00Z"):
            answer = await api.http.get(f"/audiences/{id}/members.csv?columns=score{parameters}", headers=api.headers)
            assert (answer.status_code, answer.text) == (200, '"profileId","status","lastQualificationTime","score"\n')
            answer = await api.http.get(
                f"/audiences/{id}/members.ndjson?columns=score{parameters}", headers=api.headers
            )
            assert (answer.status_code, answer.content) == (200, b"")
            answer = await api.http.get(
                f"/audiences/{id}/members.parquet?columns=score{parameters}", headers=api.headers
            )
            assert pq.read_table(io.BytesIO(answer.content)).num_rows == 0


async def test_it_needs_what_the_list_needs(api: Api, holding: Holding) -> None:
    for permissions, status in ((("audiences:read", "profiles:read"), 404), (("audiences:read",), 403), ((), 403)):
        holding(*permissions)
        answer = await api.http.get("/audiences/x/members.csv", headers=api.headers)
        assert answer.status_code == status, permissions


async def test_who_takes_members_away_is_noted(api: Api, audience: str) -> None:
    assert (await api.http.get(f"/audiences/{audience}/members.csv", headers=api.headers)).status_code == 200
    assert (await api.http.get("/audiences/none/members.csv", headers=api.headers)).status_code == 404
    events = 'auditEvents(filter: { action: "downloadMembers" }) { nodes { resourceId outcome subject } }'
    nodes = (await api.query(f"{{ {events} }}"))["auditEvents"]["nodes"]
    assert sorted(nodes, key=lambda event: str(event["outcome"])) == [
        {"resourceId": "none", "outcome": "NOT_FOUND", "subject": "anonymous"},
        {"resourceId": audience, "outcome": "OK", "subject": "anonymous"},
    ]


CROWD = [
    {
        "customer": f"{number:03}",
        "score": 3,
        **({} if number % 7 == 0 else {"age": number % 10}),
        **({} if number % 5 == 0 else {"city": ["Rome", "Oslo", "Ärzen", "a", "Z"][number % 5 - 1]}),
        "joined": f"2026-01-{number % 28 + 1:02}",
        "vip": number % 3 == 0,
        "long": 2**60 + number % 11,
        "person": {"name": f"n{number}"},
    }
    for number in range(300)
]
MEMBERS = """query ($id: ID!, $where: String, $order: ProfileOrder, $after: String) { audience(id: $id) {
  members(where: $where, orderBy: $order, first: 200, after: $after) {
    pageInfo { hasNextPage endCursor } nodes { profile { profileId } } } } }"""


async def listed(api: Api, audience: str, where: str | None, order: dict[str, str] | None) -> list[str]:
    ids: list[str] = []
    after: str | None = None
    while True:
        answer = await api.query(MEMBERS, id=audience, where=where, order=order, after=after)
        page = answer["audience"]["members"]
        ids += [node["profile"]["profileId"] for node in page["nodes"]]
        if not page["pageInfo"]["hasNextPage"]:
            return ids
        after = page["pageInfo"]["endCursor"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_where_and_order_mean_what_they_mean_in_the_list(
    api: Api, audience: str, services: ApiServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With so few rows at once that parts of a file begin and end within buckets."""
    monkeypatch.setattr(members_in_order, "ROWS", 16)
    monkeypatch.setattr(members_in_order, "_FEWEST", 3)
    content = "\n".join(json.dumps(person) for person in CROWD).encode()
    dataset = await api.dataset("crowd", "PROFILE")
    assert (await api.upload(dataset, content, "NDJSON")).json()["data"]["uploadBatch"]["errors"] == []
    await run(api, services, audience)
    members = await listed(api, audience, None, None)
    assert len(members) == 302
    for where, order in SELECTIONS:
        expected = await listed(api, audience, where, order)
        parameters = {"columns": "person.name", **({"where": where} if where else {})}
        if order:
            parameters |= {"orderBy": order["expression"], "direction": order["direction"]}
        answer = await api.http.get(f"/audiences/{audience}/members.csv", params=parameters, headers=api.headers)
        rows = list(csv.DictReader(io.StringIO(answer.text)))
        assert [row["profileId"] for row in rows] == expected, (where, order)
        assert len(rows) == (302 if where is None else sum(int(str(person.get("age", 0))) > 4 for person in CROWD))
        assert all(row["person.name"] == f"n{int(row['profileId'][4:])}" for row in rows if len(row["profileId"]) > 5)
    assert [list(folder.iterdir()) for folder in services.lake.root.rglob("scratch")] == [[]]


SELECTIONS: list[tuple[str | None, dict[str, str] | None]] = [
    ("age > 4", None),
    (None, {"expression": "age", "direction": "DESC"}),
    ("age > 4", {"expression": "age", "direction": "ASC"}),
    (None, {"expression": "city", "direction": "ASC"}),
    (None, {"expression": "city", "direction": "DESC"}),
    ("age > 4", {"expression": "joined", "direction": "DESC"}),
    (None, {"expression": "vip", "direction": "DESC"}),
    (None, {"expression": "long", "direction": "ASC"}),
    (None, {"expression": "long", "direction": "DESC"}),
    ("age > 4", {"expression": "age * 0.5", "direction": "DESC"}),
    (None, {"expression": "5", "direction": "ASC"}),
]


@pytest.mark.parametrize("format", ["csv", "ndjson", "parquet"])
async def test_nobody_is_an_empty_file_in_any_order(api: Api, audience: str, format: str) -> None:
    for order in ({}, {"orderBy": "score"}):
        parameters = {"where": "score > 100", "columns": "score", **order}
        answer = await api.http.get(f"/audiences/{audience}/members.{format}", params=parameters, headers=api.headers)
        assert answer.status_code == 200
        if format == "parquet":
            assert pq.read_table(io.BytesIO(answer.content)).num_rows == 0
        else:
            assert len(answer.text.splitlines()) == (format == "csv")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_members_of_an_earlier_moment(api: Api, audience: str, services: ApiServices, clock: FixedClock) -> None:
    before, first = "2026-01-01T00:00:00Z", write_time(clock())
    clock.advance(timedelta(hours=1))
    dataset = await api.dataset("more", "PROFILE")
    await api.upload(dataset, b'{"customer": "1", "score": 1}\n{"customer": "3", "score": 9}', "NDJSON")
    await run(api, services, audience)
    for moment, ids in ((before, []), (first, ["crm:1", "crm:2"]), (write_time(clock()), ["crm:2", "crm:3"])):
        for parameters in ({}, {"orderBy": "score"}, {"where": "score > 0"}):
            answer = await api.http.get(
                f"/audiences/{audience}/members.csv", params={"asOf": moment, **parameters}, headers=api.headers
            )
            rows = sorted(row["profileId"] for row in csv.DictReader(io.StringIO(answer.text)))
            assert rows == ids, (moment, parameters)
        listed = await api.query(AS_OF, id=audience, at=moment, before=before)
        members = listed["audience"]["members"]
        assert sorted(node["profile"]["profileId"] for node in members["nodes"]) == ids
        assert members["totalCount"] == len(ids)
        assert listed["audience"]["difference"] == {
            "before": 0,
            "after": len(ids),
            "enter": len(ids),
            "leave": 0,
            "stay": 0,
            "exact": True,
            "error": None,
            "leaving": {"totalCount": 0},
            "entering": {"totalCount": len(ids)},
        }
    refused = await api.query(AS_OF, id=audience, at=before, before=first)
    assert refused["audience"]["difference"]["error"] == {
        "code": "INVALID_INPUT",
        "path": ["to"],
        "message": f"`to` ({before[:-1]}+00:00) is before `from` ({first[:-1]}+00:00): give the earlier first",
    }


AS_OF = """query ($id: ID!, $at: DateTime!, $before: DateTime!) { audience(id: $id) {
  members(asOf: $at) { totalCount nodes { profile { profileId } } }
  difference(from: $before, to: $at) { before after stay enter leave exact error { code path message }
    entering { totalCount } leaving { totalCount } } } }"""

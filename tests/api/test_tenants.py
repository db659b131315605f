"""Nothing of one sandbox is seen or changed from another."""

from typing import Any

import pytest

from app.api.global_ids import global_id
from tests.api.conftest import CSV, Api

EVERYTHING = """{
  audiences { totalCount nodes { id name etag metrics { totalProfiles } } }
  segmentDefinitions { totalCount nodes { id name etag } }
  segmentJobs { totalCount nodes { id status progress { sequence } } } datasets { totalCount nodes { id rowCount } }
  schedules { totalCount nodes { id etag state audiences { totalCount } jobs { totalCount } } }
  exportJobs { totalCount nodes { id status progress { sequence } } }
  jobs { totalCount nodes { id status } } previews { totalCount nodes { id state } }
  folders { totalCount nodes { id etag } }
  mergePolicies { totalCount nodes { id etag } } }"""

READS = [
    ("audience", "Audience"),
    ("segmentDefinition", "SegmentDefinition"),
    ("segmentJob", "SegmentJob"),
    ("schedule", "Schedule"),
    ("preview", "Preview"),
    ("estimate", "Estimate"),
    ("exportJob", "ExportJob"),
    ("dataset", "Dataset"),
]

WRITES: list[tuple[str, str, dict[str, Any]]] = [
    ("updateSegmentDefinition(input: {id: $id, name: $name})", "SegmentDefinition", {"name": "mine"}),
    ("deleteSegmentDefinition(input: {id: $id})", "SegmentDefinition", {}),
    ("updateAudience(input: {id: $id, name: $name})", "Audience", {"name": "mine"}),
    (
        'replaceAudience(input: {id: $id, audience: {name: $name, expression: "true"}})',
        "Audience",
        {"name": "mine"},
    ),
    ("deleteAudience(input: {id: $id})", "Audience", {}),
    ("deleteDataset(input: {id: $id})", "Dataset", {}),
    ("updateAudienceMetrics(input: [{audienceId: $id, totalProfiles: 1}])", "Audience", {}),
    ("createSegmentJob(input: {definitionIds: [$id]})", "SegmentDefinition", {}),
    ("cancelSegmentJob(id: $id)", "SegmentJob", {}),
    ("createSchedule(input: {name: $name, audienceIds: [$id]})", "Audience", {"name": "mine"}),
    ("updateSchedule(input: {id: $id, name: $name})", "Schedule", {"name": "mine"}),
    ("deleteSchedule(input: {id: $id})", "Schedule", {}),
    ("addScheduleAudiences(id: $id, audienceIds: [])", "Schedule", {}),
    ("removeScheduleAudiences(id: $id, audienceIds: [])", "Schedule", {}),
    ("triggerSchedule(id: $id)", "Schedule", {}),
    ("cancelPreview(id: $id)", "Preview", {}),
    ("cancelExportJob(id: $id)", "ExportJob", {}),
    (
        'createExportJob(input: {destination: {datasetId: $id}, schemaName: "_xdm.context.profile"})',
        "Export",
        {},
    ),
]


class Mine:
    """One of each, in the sandbox `prod`."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.ids: dict[str, str] = {}

    async def make(self) -> "Mine":
        self.ids["Dataset"] = await self.api.loaded()
        self.ids["SegmentDefinition"] = self.ids["Audience"] = await self.api.define("A")
        self.ids["SegmentJob"] = await self.api.start()
        self.ids["Schedule"] = await self._schedule(self.ids["Audience"])
        self.ids["Preview"] = self.ids["Estimate"] = await self.api.preview("true")
        self.ids["Export"] = await self.api.export_dataset()
        self.ids["ExportJob"] = await self.api.export(self.ids["Export"])
        return self

    async def _schedule(self, audience: str) -> str:
        document = """mutation ($input: CreateScheduleInput!) { createSchedule(input: $input) {
          schedule { scheduleId } errors { message } } }"""
        payload = (await self.api.query(document, input={"name": "S", "audienceIds": [audience]}))["createSchedule"]
        assert payload["errors"] == []
        id_: str = payload["schedule"]["scheduleId"]
        return id_


@pytest.fixture
async def mine(api: Api) -> Mine:
    return await Mine(api).make()


async def test_lists_of_another_sandbox_are_empty(api: Api, mine: Mine) -> None:
    found = await api.within("dev").query(EVERYTHING)
    assert all(connection == {"totalCount": 0, "nodes": []} for connection in found.values())


async def test_an_id_of_another_sandbox_finds_nothing(api: Api, mine: Mine, subtests: pytest.Subtests) -> None:
    node = "query ($id: ID!) { node(id: $id) { id } }"
    for field, type_name in READS:
        with subtests.test(field):
            raw = mine.ids[type_name]
            found = {field: {"id": global_id(type_name, raw)}}
            document = f"query ($id: ID!) {{ {field}(id: $id) {{ id }} }}"
            for id_ in (raw, global_id(type_name, raw)):
                assert await api.query(document, id=id_) == found
                assert await api.within("dev").query(document, id=id_) == {field: None}
            assert await api.within("dev").query(node, id=global_id(type_name, raw)) == {"node": None}


async def test_a_person_of_another_sandbox_is_nobody(api: Api, mine: Mine) -> None:
    document = 'query { profile(id: "crm:00001") { profileId } }'
    assert (await api.query(document))["profile"] == {"profileId": "crm:00001"}
    assert (await api.within("dev").query(document))["profile"] is None


async def test_a_write_to_another_sandbox_is_refused_and_changes_nothing(
    api: Api, mine: Mine, subtests: pytest.Subtests
) -> None:
    before = await api.query(EVERYTHING)
    for mutation, type_name, variables in WRITES:
        with subtests.test(mutation):
            head = "mutation ($id: ID!, $name: String!)" if variables else "mutation ($id: ID!)"
            answer = await api.within("dev").query(
                f"{head} {{ done: {mutation} {{ errors {{ code }} }} }}", id=mine.ids[type_name], **variables
            )
            assert answer["done"]["errors"] == [{"code": "NOT_FOUND"}]
            assert await api.query(EVERYTHING) == before


async def test_an_upload_to_another_sandbox_is_refused_and_changes_nothing(api: Api, mine: Mine) -> None:
    before = await api.query(EVERYTHING)
    payload = (await api.within("dev").upload(mine.ids["Dataset"], CSV)).json()["data"]["uploadBatch"]
    assert [error["code"] for error in payload["errors"]] == ["NOT_FOUND"]
    assert await api.query(EVERYTHING) == before


async def test_an_expression_cannot_refer_to_another_sandbox(api: Api, mine: Mine) -> None:
    document = "query ($e: String!) { pql { check(expression: $e) { ok diagnostics { kind } } } }"
    expression = f'inSegment("{mine.ids["Audience"]}")'
    assert (await api.query(document, e=expression))["pql"]["check"]["ok"] is True
    other = (await api.within("dev").query(document, e=expression))["pql"]["check"]
    assert other == {"ok": False, "diagnostics": [{"kind": "UNKNOWN_SEGMENT"}]}


async def test_the_same_names_may_be_in_two_sandboxes(api: Api, mine: Mine) -> None:
    other = api.within("dev")
    await other.loaded()
    await other.define("A")
    assert (await other.query("{ audiences { totalCount } }"))["audiences"] == {"totalCount": 1}

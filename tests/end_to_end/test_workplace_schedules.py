"""Schedules of exports in the workplace: created, shown, changed and run."""

import pytest
from playwright.async_api import Browser, expect

from tests.end_to_end.conftest import RunningServer
from tests.end_to_end.test_workplace import choose, watched
from tests.end_to_end.test_workplace_numbers import evaluated
from tests.support.client import Gateway

SPEC = """{ schedules { nodes { name type state cronExpression export { fields segmentPerBatch
  filter { segments { segmentId status } fromIngestTimestamp emptyProfiles segmentQualificationTime { start end } }
  additionalFields { fields from to } mergePolicy { name } destination { name kind } } } } }"""
UPDATE = "mutation ($input: UpdateScheduleInput!) { updateSchedule(input: $input) { errors { message } } }"

pytestmark = [pytest.mark.timeout(240), pytest.mark.asyncio(loop_scope="session")]


async def test_a_schedule_of_exports_is_created_changed_and_run(
    running_server: RunningServer, browser: Browser
) -> None:
    gateway = Gateway(running_server.url, "workplace-schedules")
    audience = evaluated(gateway, "Grown", "age >= 30")
    async with watched(browser, running_server.url, "workplace-schedules") as seen:
        page = seen.page
        await seen.go(f"{running_server.url}/schedules")
        await page.get_by_role("button", name="New schedule").first.click()
        dialog = page.get_by_role("dialog")
        await dialog.get_by_label("Name", exact=True).fill("To the shop")
        await choose(page, "What it does", "Export people")
        await dialog.get_by_text("Grown").click()
        await dialog.get_by_label("Name of the dataset").fill("shop")
        await dialog.get_by_label("Attributes").fill("home.city age")
        await dialog.get_by_role("button", name="Create schedule").click()
        await page.get_by_role("link", name="To the shop").click()
        facts = page.locator("aside .facts")
        await expect(facts.get_by_role("link", name="Grown")).to_have_attribute("href", f"/audiences/{audience}")
        await expect(facts.get_by_role("link", name="shop")).to_be_visible()
        await expect(facts).to_contain_text("home.city age")

        # What the form has no fields for stays as another client wrote it.
        schedule = gateway.query("{ schedules { nodes { id export { destination { id } } } } }")["schedules"]["nodes"][
            0
        ]
        written = {
            "schemaName": "_xdm.context.profile",
            "fields": ["home.city", "age"],
            "destination": {"datasetId": schedule["export"]["destination"]["id"]},
            "filter": {
                "segments": [{"segmentId": audience, "status": ["REALIZED"]}],
                "segmentQualificationTime": {"start": "2020-01-01T00:00:00Z"},
            },
            "additionalFields": {"fields": ["timestamp"], "from": "2021-01-01T00:00:00Z"},
        }
        changed = gateway.query(UPDATE, input={"id": schedule["id"], "export": written})
        assert changed["updateSchedule"]["errors"] == []
        await page.reload()

        await page.get_by_role("button", name="Edit").click()
        await dialog.get_by_label("Name", exact=True).fill("To the warehouse")
        await expect(dialog.get_by_role("checkbox", name="Grown")).to_be_checked()
        await dialog.get_by_label("Attributes").fill("name")
        await dialog.get_by_text("One batch for each audience").click()
        await dialog.get_by_role("button", name="Save").click()
        await expect(page.get_by_role("heading", name="To the warehouse")).to_be_visible()
        await expect(facts).to_contain_text("one for each audience")
        assert gateway.query(SPEC)["schedules"]["nodes"] == [
            {
                "name": "To the warehouse",
                "type": "EXPORT",
                "state": "ACTIVE",
                "cronExpression": "0 30 2 ? * *",
                "export": {
                    "fields": ["name"],
                    "segmentPerBatch": True,
                    "filter": {
                        "segments": [{"segmentId": audience, "status": ["REALIZED"]}],
                        "fromIngestTimestamp": None,
                        "emptyProfiles": False,
                        "segmentQualificationTime": {"start": "2020-01-01T00:00:00Z", "end": None},
                    },
                    "additionalFields": {"fields": ["timestamp"], "from": "2021-01-01T00:00:00Z", "to": None},
                    "mergePolicy": None,
                    "destination": {"name": "shop", "kind": "EXPORT"},
                },
            }
        ]

        await page.get_by_role("button", name="Run now").click()
        await page.get_by_role("link", name="Watch").click()
        await expect(page.locator("main .badge", has_text="Succeeded")).to_be_visible(timeout=30_000)
        await expect(page.locator(".figure", has_text="People written")).to_contain_text("3")

"""Every view of the workplace for callers who may read a part: it shows that part, and says what is missing."""

from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from tests.end_to_end.conftest import RunningServer
from tests.end_to_end.test_workplace import PEOPLE, wait_for_job
from tests.support.browser import workplace
from tests.support.client import Gateway

pytestmark = [pytest.mark.timeout(240), pytest.mark.asyncio(loop_scope="session")]

SCHEDULE = """mutation ($input: CreateScheduleInput!) {
  createSchedule(input: $input) { schedule { scheduleId } errors { message } } }"""
EXPORT = """mutation ($input: CreateExportJobInput!) {
  createExportJob(input: $input) { job { jobId } errors { message } } }"""
NEW_EXPORTS = """mutation { createDataset(input: {name: "out", kind: EXPORT}) { dataset { datasetId } } }"""
FOLDER = """mutation ($name: String!) {
  createFolder(input: {name: $name, namespace: "AEPSegments"}) { folder { id } errors { message } } }"""


@pytest.fixture(scope="session")
def places(running_server: RunningServer) -> dict[str, str]:
    """Ids of one thing of each kind, in the sandbox `part`."""
    gateway = Gateway(running_server.url, "part")
    dataset = gateway.create_dataset("people", "PROFILE", "customer")
    gateway.upload(dataset, "people.ndjson", PEOPLE, "NDJSON")
    audience = gateway.define("Ann", 'name = "Ann Lee"')
    job = gateway.start_job()
    wait_for_job(gateway, job)

    def create(document: str, field: str, **variables: Any) -> dict[str, Any]:
        payload: dict[str, Any] = gateway.query(document, **variables)[field]
        assert payload["errors"] == []
        return payload

    create(FOLDER, "createFolder", name="Shop")
    nightly = {"name": "Nightly", "type": "BATCH_SEGMENTATION", "cronExpression": "0 30 2 ? * *", "state": "ACTIVE"}
    schedule = create(SCHEDULE, "createSchedule", input={**nightly, "audienceIds": [audience]})["schedule"]
    target = gateway.query(NEW_EXPORTS)["createDataset"]["dataset"]["datasetId"]
    export = create(
        EXPORT, "createExportJob", input={"schemaName": "_xdm.context.profile", "destination": {"datasetId": target}}
    )["job"]
    return {
        "audience": audience,
        "job": job,
        "dataset": dataset,
        "schedule": schedule["scheduleId"],
        "export": export["jobId"],
    }


def lack(*resources: str) -> list[str]:
    """The sentences for what may not be read, by permission."""
    words = {"mergePolicies": "merge policies"}
    return [f"You may not read {words.get(each, each)}: ask for the permission {each}:read." for each in resources]


AUDIENCE = "/audiences/{audience}"
EVERYBODY = "From everybody to who can be reached"
CHANGE = "You may not change audiences: ask for the permission audiences:write."
VIEWS: dict[str, list[str]] = {
    "/audiences": ["Ann", "no permission", *lack("folders")],
    "/audiences?q=Ann": ["Ann", "1 of 1"],
    "/audiences/new": ["The same in PQL", CHANGE, *lack("mergePolicies")],
    AUDIENCE: ["1 person, counted", *lack("definitions", "mergePolicies", "datasets", "folders")],
    f"{AUDIENCE}/members": lack("profiles"),
    f"{AUDIENCE}/numbers": [EVERYBODY, "Everybody", *lack("definitions", "profiles")],
    f"{AUDIENCE}/history": ["People over time", "Runs", *lack("definitions", "profiles")],
    f"{AUDIENCE}/overlap": lack("profiles"),
    f"{AUDIENCE}/use": ["No other audience refers to it.", *lack("schedules", "jobs")],
    f"{AUDIENCE}/edit": ["Edit Ann", *lack("definitions")],
    "/jobs": lack("jobs", "exports"),
    "/jobs/{job}": lack("jobs"),
    "/schedules": ["What runs by itself", *lack("schedules")],
    "/schedules/{schedule}": lack("schedules"),
    "/exports": ["Members written to Delta tables", *lack("exports")],
    "/exports/{export}": lack("exports"),
    "/data": ["People, what they did", *lack("datasets")],
    "/data/{dataset}": lack("datasets"),
    "/people": ["Look up", *lack("profiles")],
    "/people/customer:001": lack("profiles"),
    "/erasures/{export}": lack("erasures"),
}
"""What is to be read in each view with the permission `audiences:read` alone."""

WITH_JOBS: dict[str, list[str]] = {
    f"{AUDIENCE}/use": ["Succeeded", *lack("schedules")],
    "/jobs": ["Every audience (1)", "Succeeded", *lack("exports")],
    "/jobs/{job}": ["Job over every audience", "Succeeded", *lack("definitions")],
}
"""With `jobs:read`, too, where that makes a difference."""

READERS = {
    "audiences": (["audiences:read"], VIEWS),
    "jobs": (["audiences:read", "jobs:read"], VIEWS | WITH_JOBS),
    "schedules": (
        ["audiences:read", "schedules:read", "exports:read"],
        {
            "/audiences": ["Ann", "Nightly", *lack("folders")],
            f"{AUDIENCE}/use": ["Nightly", *lack("jobs")],
            "/schedules": ["Nightly"],
            "/schedules/{schedule}": ["Nightly", "Ann", *lack("jobs")],
            "/exports": ["by job {export}"],
            "/exports/{export}": ["Export {export}", *lack("datasets", "mergePolicies")],
        },
    ),
    "people": (
        ["profiles:read", "datasets:read"],
        {
            "/people/customer:001": ["Ann Lee", *lack("audiences")],
            "/data/{dataset}": ["people", "home.city", "2 rows"],
        },
    ),
}


@pytest.mark.parametrize("reader", READERS)
async def test_each_view_shows_what_its_caller_may_read_and_says_what_not(
    running_server: RunningServer, browser: Browser, places: dict[str, str], reader: str
) -> None:
    permissions, views = READERS[reader]
    key = Gateway(running_server.url, "part").create_key(*permissions)
    async with workplace(browser, "part", key=key, width=1700) as seen:
        for address, sentences in views.items():
            await seen.page.goto(running_server.url + address.format_map(places))
            await shows(seen.page, [sentence.format_map(places) for sentence in sentences])
        # What the browser itself notes of an answer with status 400 is all that is on the console.
        assert [each for each in seen.problems if not each.startswith("Failed to load resource")] == []


async def shows(page: Page, sentences: list[str]) -> None:
    main = page.locator("main")
    for sentence in sentences:
        await expect(main).to_contain_text(sentence)
    await expect(main.get_by_label("Loading")).to_have_count(0)
    assert "needs the permission" not in await main.inner_text()


async def test_what_an_editor_of_a_schedule_may_not_read_stays_as_it_is(
    running_server: RunningServer, browser: Browser
) -> None:
    gateway = Gateway(running_server.url, "part-edited")
    gateway.upload(gateway.create_dataset("people", "PROFILE", "customer"), "people.ndjson", PEOPLE, "NDJSON")
    target = gateway.query(NEW_EXPORTS)["createDataset"]["dataset"]["datasetId"]
    export = {"schemaName": "_xdm.context.profile", "fields": ["name"], "destination": {"datasetId": target}}
    input_ = {"name": "Shop", "type": "EXPORT", "cronExpression": "0 30 2 ? * *", "state": "ACTIVE", "export": export}
    created = gateway.query(SCHEDULE, input=input_)["createSchedule"]
    assert created["errors"] == []
    schedule = created["schedule"]["scheduleId"]
    key = gateway.create_key("schedules:read", "schedules:write")
    async with workplace(browser, "part-edited", key=key) as seen:
        page = seen.page
        await seen.go(f"{running_server.url}/schedules/{schedule}")
        await page.get_by_role("button", name="Edit", exact=True).click()
        dialog = page.get_by_role("dialog")
        await expect(dialog).to_contain_text("You may not read datasets and merge policies: ask for the permissions")
        await dialog.get_by_label("Name", exact=True).fill("Warehouse")
        await dialog.get_by_role("button", name="Save").click()
        await expect(page.get_by_role("heading", name="Warehouse")).to_be_visible()
    read = "query ($id: ID!) { schedule(id: $id) { name export { fields destination { datasetId } } } }"
    assert gateway.query(read, id=schedule)["schedule"] == {
        "name": "Warehouse",
        "export": {"fields": ["name"], "destination": {"datasetId": target}},
    }


ACTIONS: dict[str, dict[str, str]] = {
    "/audiences": {"New folder": "write", "New audience": "write"},
    AUDIENCE: {"Edit": "write", "Run now": "run"},
    f"{AUDIENCE}/edit": {"Save": "write", "Save and run": "run write"},
    "/audiences/new": {"Create": "write", "Create and run": "run write"},
    "/jobs/{job}": {"Run again": "run"},
    "/schedules": {"New schedule": "write"},
    "/schedules/{schedule}": {"Pause": "write", "Edit": "write", "Delete": "write", "Run now": "run"},
    "/exports": {"New export": "run"},
    "/data": {"New dataset": "write"},
    "/data/{dataset}": {"Delete": "write", "Choose a file": "write"},
    "/people/customer:001": {"Erase…": "admin"},
}
"""What can be done in each view, by the verbs that it takes."""


@pytest.mark.parametrize("verbs", ["", "write", "run", "admin", "admin run write"])
async def test_what_a_caller_may_not_do_has_no_button(
    running_server: RunningServer, browser: Browser, places: dict[str, str], verbs: str
) -> None:
    held = {"read", *verbs.split()}
    key = Gateway(running_server.url, "part").create_key(*sorted(held))
    async with workplace(browser, "part", key=key, width=1700) as seen:
        for address, actions in ACTIONS.items():
            await seen.go(running_server.url + address.format_map(places))
            main = seen.page.locator("main")
            await expect(main.get_by_label("Loading")).to_have_count(0)
            for name, needs in actions.items():
                button = main.get_by_role("button", name=name, exact=True)
                link = main.get_by_role("link", name=name, exact=True)
                allowed = held.issuperset(needs.split())
                await expect(button.or_(link), f"{name} at {address}").to_have_count(int(allowed))
        await seen.go(running_server.url + AUDIENCE.format_map(places))
        await seen.page.get_by_role("button", name="More actions").click()
        menu = ["Deactivate", "Copy its id", "Delete…"] if "write" in held else ["Copy its id"]
        await expect(seen.page.get_by_role("menuitem")).to_have_text(menu)
        await seen.page.goto(f"{running_server.url}/audiences")
        choosable = int(bool(held & {"write", "run"}))
        await expect(seen.page.get_by_role("row", name="Ann").get_by_role("checkbox")).to_have_count(choosable)
        assert seen.problems == []


@pytest.mark.parametrize("permission", ["jobs:read", "exports:read"])
async def test_the_jobs_of_one_kind_are_live_for_those_who_may_read_them_alone(
    running_server: RunningServer, browser: Browser, permission: str
) -> None:
    section = permission.partition(":")[0]
    gateway = Gateway(running_server.url, f"live-{section}")
    gateway.upload(gateway.create_dataset("people", "PROFILE", "customer"), "people.ndjson", PEOPLE, "NDJSON")
    gateway.define("Ann", 'name = "Ann Lee"')
    target = gateway.query(NEW_EXPORTS)["createDataset"]["dataset"]["datasetId"]
    input_ = {"schemaName": "_xdm.context.profile", "destination": {"datasetId": target}}
    async with workplace(browser, f"live-{section}", key=gateway.create_key(permission)) as seen:
        await seen.go(f"{running_server.url}/{section}")
        await expect(seen.page.locator("main")).to_contain_text("yet")
        rows = seen.page.locator("main tbody tr")
        started = 0
        # The stream is there when a job appears without a look of ours.
        while await rows.count() == 0:
            wait_for_job(gateway, gateway.start_job())
            assert gateway.query(EXPORT, input=input_)["createExportJob"]["errors"] == []
            started += 1
            assert started < 60
            await seen.page.wait_for_timeout(200)
        await expect(rows.filter(has_text="Succeeded").first).to_be_visible()
        assert seen.problems == []

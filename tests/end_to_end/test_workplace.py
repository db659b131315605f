"""The workplace in a real browser, against the real server: from an upload to an export, and what a restart does."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Page, expect

from app.api.transport.page import missing_reason
from tests.end_to_end.conftest import ROOT, RunningServer, free_port, wait_until_ready
from tests.support.browser import Workplace, chromium, workplace
from tests.support.client import Gateway
from tests.support.web import NotInstalled, installed

PURCHASES = b"""customer,at,dollars,kind
001,2024-01-05,120.50,view
001,2024-02-01,30.00,buy
002,2024-02-02,8.25,buy
003,never,1.00,buy
004,2024-03-09,99.99,view
"""
PEOPLE = b"""{"customer": "001", "name": "Ann Lee", "home": {"city": "Reno"}}
{"customer": "002", "name": "Bob Ray", "home": {"city": "Bonn"}}
"""

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(autouse=True)
def browser() -> None:
    """Skipped without a browser or pages; a failure where SEGMENTATION_TEST_REQUIRE has `browser`."""
    reason = "there is no Chromium (Debian: apt-get install chromium)" if chromium() is None else missing_reason()
    if reason:
        required = "browser" in os.environ.get("SEGMENTATION_TEST_REQUIRE", "").split(",")
        (pytest.fail if required else pytest.skip)(reason)


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core."""
    try:
        return (installed() / "node_modules" / "axe-core" / "axe.min.js").read_text()
    except NotInstalled as reason:
        pytest.skip(f"npm cannot install axe-core here: {str(reason)[-300:]}")


@asynccontextmanager
async def watched(url: str, sandbox: str, width: int = 1280, dark: bool = False) -> AsyncIterator[Workplace]:
    """The workplace; at the end it must have asked nobody else and reported no problem."""
    async with workplace(sandbox, width=width, dark=dark) as seen:
        yield seen
        host = urlsplit(url).netloc
        strangers = [each for each in seen.addresses if urlsplit(each).netloc not in {host, ""}]
        assert strangers == []
        assert seen.problems == []


async def choose(page: Page, button: str, option: str) -> None:
    await page.get_by_role("button", name=button).click()
    await page.get_by_role("option").filter(has_text=option).click()


async def test_from_an_upload_to_an_export(running_server: RunningServer, tmp_path: Path) -> None:
    url = running_server.url
    file = tmp_path / "purchases.csv"
    file.write_bytes(PURCHASES)
    async with watched(url, "workplace-path") as seen:
        page = seen.page
        await seen.go(f"{url}/data")
        await page.get_by_role("button", name="New dataset").first.click()
        dialog = page.get_by_role("dialog")
        await dialog.get_by_label("Name", exact=True).fill("purchases")
        await choose(page, "Kind", "Events")
        await dialog.get_by_label("Identity column").fill("customer")
        await dialog.get_by_label("Identity namespace").fill("crm")
        await dialog.get_by_label("Time column").fill("at")
        await dialog.get_by_role("button", name="Create dataset").click()
        await expect(page.get_by_role("heading", name="purchases")).to_be_visible()
        await page.locator("input[type=file]").set_input_files(file)
        await expect(page.get_by_text("4 rows would land, 1 row would be left out.")).to_be_visible()
        await expect(page.get_by_role("heading", name="Batches")).to_be_visible()
        await expect(page.locator(".batches li")).to_have_count(0)
        await page.get_by_role("button", name="Load 4 rows").click()
        await expect(page.get_by_text("4 rows landed, 1 row left out.")).to_be_visible()
        await expect(page.locator("[role=status] tbody tr")).to_contain_text("never")

        await page.get_by_role("link", name="Audiences", exact=True).click()
        await page.get_by_role("link", name="New audience").first.click()
        await page.get_by_label("Name", exact=True).fill("Buyers")
        await page.locator(".pql .monaco-editor").first.click()
        await page.keyboard.type("xEvent.sum(dolars) > 9")
        await page.get_by_role("button", name="Use dollars").click()
        await expect(page.get_by_text("Valid", exact=True)).to_be_visible()
        await expect(page.get_by_test_id("estimate")).to_have_text("2")
        await page.get_by_role("button", name="Create and run").click()

        await expect(page.locator("main .badge", has_text="Succeeded")).to_be_visible()
        row = page.get_by_role("row", name="Buyers")
        await expect(row.get_by_role("cell").nth(1)).to_have_text("2")
        await row.get_by_role("link", name="Buyers").click()
        await page.get_by_role("link", name="Members").click()
        await expect(page.locator("tbody tr")).to_have_count(2)
        await page.get_by_role("link", name="crm:001").click()
        await expect(page.get_by_role("heading", name="2 events")).to_be_visible()
        await expect(page.locator("aside").get_by_role("link", name="Buyers")).to_be_visible()

        await page.get_by_role("link", name="Exports", exact=True).click()
        await page.get_by_role("button", name="New export").click()
        await page.get_by_role("dialog").get_by_text("Buyers").click()
        await page.get_by_label("Name of the dataset").fill("buyers out")
        await page.get_by_role("dialog").get_by_role("button", name="Export", exact=True).click()
        await expect(page.locator("main .badge", has_text="Succeeded")).to_be_visible()
        await expect(page.locator(".figure", has_text="People written")).to_contain_text("2")


ROUND_TRIPS = [
    'name = "Ann Lee"\nand home.city in ["Reno", "Bonn"]',
    'xEvent[kind = "buy" and timestamp occurs <= 30 days before now].count() >= 2\nor not (inSegment("x"))',
    'xEvent.sum(dollars) > 9.5\nand (name.startsWith("A")\n  or home.city.isNull())',
    'CHAIN(xEvent, timestamp, [S1: WHAT(kind = "view"), S2: WHAT(kind = "buy") WHEN(<= 7 days after S1)])\n'
    'and name != "\\"\\\\"',
]


async def test_the_builder_reads_and_writes_the_same_expression(running_server: RunningServer) -> None:
    url, gateway = running_server.url, Gateway(running_server.url, "workplace-builder")
    gateway.upload(gateway.create_dataset("people", "PROFILE", "customer"), "people.ndjson", PEOPLE, "NDJSON")
    gateway.upload(gateway.create_dataset("purchases", "EVENT", "customer", "at"), "p.csv", PURCHASES, "CSV")
    # Wide enough that no line of an expression is broken.
    async with watched(url, "workplace-builder", width=2560) as seen:
        page = seen.page
        await seen.go(f"{url}/audiences/new")
        await page.locator(".pql .monaco-editor").first.wait_for()
        builder = page.get_by_label("Builder")
        for expression in ROUND_TRIPS:
            await replace(page, expression)
            conditions = builder.locator(".condition")
            await expect(conditions.first).to_be_visible()
            added = builder.get_by_role("button", name="Add a condition").last
            # A condition more and less: the builder has then written the whole expression.
            await added.click()
            await page.get_by_role("menuitem", name="An attribute").click()
            await builder.get_by_role("button", name="Remove the condition").last.click()
            await expect(page.locator(".pql .view-lines")).to_be_visible()
            assert await text(page) == expression
        await replace(page, 'xEvent.topN(timestamp, 1).kind = "buy"')
        await expect(builder.get_by_text("The builder cannot show this expression")).to_be_visible()
        assert await text(page) == 'xEvent.topN(timestamp, 1).kind = "buy"'


async def replace(page: Page, expression: str) -> None:
    await page.locator(".pql .monaco-editor").first.click()
    await page.keyboard.press("ControlOrMeta+a")
    await page.keyboard.press("Delete")
    await expect(page.get_by_text("Control Space completes")).to_be_visible()
    await page.keyboard.insert_text(expression)
    await page.keyboard.press("Escape")


async def text(page: Page) -> str:
    lines: list[str] = await page.locator(".pql .view-line").evaluate_all(
        """lines => lines.map(line => [parseFloat(line.style.top), line.textContent])
                         .sort((a, b) => a[0] - b[0]).map(line => line[1])"""
    )
    return "\n".join(lines).replace("\N{NO-BREAK SPACE}", " ")


def wait_for_job(gateway: Gateway, job: str) -> None:
    while gateway.job(job)["status"] not in {"SUCCEEDED", "FAILED"}:
        time.sleep(0.05)


VIEWS = {
    "audiences": "/audiences",
    "audience": "/audiences/{audience}",
    "members": "/audiences/{audience}/members",
    "numbers": "/audiences/{audience}/numbers?of=%5B%22name%22%2C%22xEvent.sum(dollars)%22%5D",
    "history": "/audiences/{audience}/history",
    "overlap": "/audiences/{audience}/overlap?with={other}",
    "use": "/audiences/{audience}/use",
    "edit": "/audiences/{audience}/edit",
    "jobs": "/jobs",
    "job": "/jobs/{job}",
    "schedules": "/schedules",
    "schedule": "/schedules/{schedule}",
    "exports": "/exports",
    "data": "/data",
    "dataset": "/data/{dataset}",
    "people": "/people",
    "person": "/people/customer:001",
    "erasure": "/erasures/{erasure}",
}


@pytest.fixture(scope="session")
def filled(running_server: RunningServer) -> dict[str, str]:
    """A sandbox in which every view has something to show; the ids in its addresses."""
    gateway = Gateway(running_server.url, "workplace-views")
    dataset = gateway.create_dataset("people", "PROFILE", "customer")
    gateway.upload(dataset, "people.ndjson", PEOPLE, "NDJSON")
    gateway.upload(gateway.create_dataset("purchases", "EVENT", "customer", "at"), "p.csv", PURCHASES, "CSV")
    audience, other = gateway.define("Buyers", "xEvent.sum(dollars) > 9"), gateway.define("Named", 'name like "%"')
    job = gateway.start_job(audience, other)
    wait_for_job(gateway, job)
    schedule = gateway.query(
        """mutation { createSchedule(input: {name: "Nightly", cronExpression: "0 30 2 ? * MON-FRI", state: ACTIVE,
             allAudiences: true}) { schedule { scheduleId } } }"""
    )["createSchedule"]["schedule"]["scheduleId"]
    named = gateway.query('{ audiences(filter: {name: {eq: "Named"}}) { nodes { id } } }')["audiences"]["nodes"][0][
        "id"
    ]
    # Of a person whom no file has, so that the others stay.
    erasure = gateway.query(
        """mutation { eraseProfile(input: {identity: {namespace: "customer", id: "nobody"}}) { job { jobId }
             errors { message } } }"""
    )["eraseProfile"]["job"]["jobId"]
    ids = {"audience": audience, "other": named, "job": job, "schedule": schedule, "dataset": dataset}
    return ids | {"erasure": erasure}


@pytest.mark.parametrize(("width", "dark"), [(360, False), (1280, True), (1280, False), (2560, True)])
async def test_every_view_is_accessible_and_fits(
    running_server: RunningServer, filled: dict[str, str], axe: str, width: int, dark: bool
) -> None:
    async with watched(running_server.url, "workplace-views", width=width, dark=dark) as seen:
        for view, address in VIEWS.items():
            await seen.go(running_server.url + address.format(**filled))
            await expect(seen.page.get_by_label("Loading")).to_have_count(0)
            if view == "edit":
                await seen.page.locator(".pql .monaco-editor").first.wait_for()
            assert await seen.violations(axe) == [], view
            assert await seen.overflow() == 0, view


async def test_folders_search_and_several_at_once(running_server: RunningServer) -> None:
    """A folder is opened, and its audience left out of the root's others; what a search finds is run at once."""
    url, gateway = running_server.url, Gateway(running_server.url, "workplace-folders")
    gateway.upload(gateway.create_dataset("people", "PROFILE", "customer"), "people.ndjson", PEOPLE, "NDJSON")
    inside, outside = gateway.define("Inside", 'name like "A%"'), gateway.define("Outside", 'name like "B%"')
    async with watched(url, "workplace-folders") as seen:
        page = seen.page
        await seen.go(f"{url}/audiences")
        await page.get_by_role("button", name="New folder").click()
        await page.get_by_role("dialog").get_by_label("Name").fill("Spring")
        await page.get_by_role("dialog").get_by_role("button", name="Create folder").click()
        await expect(page.get_by_role("button", name="Spring")).to_be_visible()
        folder = gateway.query("{ folders { nodes { id } } }")["folders"]["nodes"][0]["id"]
        moved = gateway.query(
            """mutation ($input: UpdateAudienceInput!) { updateAudience(input: $input) { errors { message } } }""",
            input={"id": inside, "folderId": folder},
        )
        assert moved["updateAudience"]["errors"] == []
        await page.get_by_role("button", name="Spring").click()
        await expect(page.locator("tbody tr")).to_have_count(1)
        await expect(page.get_by_role("row", name="Inside")).to_be_visible()
        await page.reload()
        await expect(page.locator("tbody tr")).to_have_count(1)

        await page.get_by_role("link", name="Audiences", exact=True).click()
        await page.get_by_label("Search audiences").fill("outsde~1")
        await expect(page.locator("tbody tr")).to_have_count(1)
        await page.get_by_role("row", name="Outside").get_by_role("checkbox").check(force=True)
        await page.get_by_role("button", name="Run", exact=True).click()
        await page.get_by_role("link", name="Watch").click()
        await expect(page.locator("main .badge", has_text="Succeeded")).to_be_visible()
        await expect(page.locator("tbody tr")).to_have_count(1)
        await expect(page.get_by_role("link", name="Outside")).to_have_attribute("href", f"/audiences/{outside}")


async def test_the_keyboard_alone_suffices(running_server: RunningServer, filled: dict[str, str]) -> None:
    """Tab reaches the search, the table's rows open by Enter, and Tab leaves the editor of expressions."""
    async with watched(running_server.url, "workplace-views") as seen:
        page = seen.page
        await seen.go(f"{running_server.url}/audiences")
        await tab_to(page, "document.activeElement.closest('[role=grid], table') !== null")
        await page.keyboard.press("ArrowDown")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", name="Who is in it")).to_be_visible()
        await seen.go(f"{running_server.url}/audiences/{filled['audience']}/edit")
        await page.locator(".pql .monaco-editor").first.click()
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.closest('.pql') === null")


async def tab_to(page: Page, there: str) -> None:
    for _ in range(40):
        await page.keyboard.press("Tab")
        if await page.evaluate(there):
            return
    pytest.fail("forty Tabs do not get there")


@pytest.fixture
def own_server(tmp_path: Path) -> "OwnServer":
    return OwnServer(tmp_path)


class OwnServer:
    """A server that a test stops and starts again on the same port."""

    def __init__(self, folder: Path) -> None:
        self.running = RunningServer(f"http://127.0.0.1:{free_port()}", folder / "data", folder / "server.log")
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SEGMENTATION_")}
        environment |= {"SEGMENTATION_DATA_DIR": str(self.running.data_dir), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "app.cli", "serve", "--port", self.running.url.rsplit(":", 1)[1]]
        with self.running.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self._folder, env=environment, stdout=log, stderr=subprocess.STDOUT
            )
        wait_until_ready(self._process, self.running)

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(30)


async def test_a_lost_server_is_said_and_everything_goes_on(own_server: OwnServer) -> None:
    own_server.start()
    try:
        url, gateway = own_server.running.url, Gateway(own_server.running.url)
        gateway.upload(gateway.create_dataset("people", "PROFILE", "customer"), "people.ndjson", PEOPLE, "NDJSON")
        named = gateway.define("Named", 'name like "%"')
        async with workplace("prod") as first, workplace("prod") as second:
            await first.go(f"{url}/audiences")
            await second.go(f"{url}/jobs")
            await expect(second.page.get_by_text("No jobs yet")).to_be_visible()
            own_server.stop()
            await expect(first.page.get_by_text("The server does not answer")).to_be_visible()
            await expect(second.page.get_by_text("The server does not answer")).to_be_visible()

            own_server.start()
            await expect(first.page.get_by_text("The server does not answer")).to_have_count(0, timeout=15_000)
            await expect(second.page.get_by_text("The server does not answer")).to_have_count(0, timeout=15_000)
            wait_for_job(gateway, gateway.start_job(named))

            # Neither page was touched: both have heard of the job by their streams.
            await expect(second.page.get_by_role("link", name="Named")).to_be_visible()
            await expect(first.page.get_by_role("row", name="Named")).to_contain_text("2")
    finally:
        own_server.stop()

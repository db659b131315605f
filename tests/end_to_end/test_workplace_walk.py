"""The whole walk through the workplace: from a file to an export and a download, with a restart, in two tabs."""

import csv
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect

from tests.end_to_end.conftest import ROOT, RunningServer, free_port, wait_until_ready
from tests.end_to_end.test_workplace import PEOPLE, PURCHASES, choose, wait_for_job
from tests.support.browser import GraphiQL, Workplace, graphiql, workplace
from tests.support.client import Gateway

pytestmark = [pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="session")]


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


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[OwnServer]:
    server = OwnServer(tmp_path)
    server.start()
    try:
        yield server
    finally:
        server.stop()


async def test_from_a_file_to_an_export_with_a_restart(own_server: OwnServer, browser: Browser, tmp_path: Path) -> None:
    url, gateway = own_server.running.url, Gateway(own_server.running.url)
    gateway.upload(gateway.create_dataset("people", "PROFILE", "customer"), "people.ndjson", PEOPLE, "NDJSON")
    gateway.define("Named", 'name like "%"')
    async with (
        workplace(browser, "prod") as first,
        workplace(browser, "prod") as second,
        graphiql(browser, url) as third,
    ):
        page, other = first.page, second.page
        await second.go(f"{url}/jobs")
        await expect(other.get_by_text("No jobs yet")).to_be_visible()
        await first.go(f"{url}/data")
        await uploads(page, tmp_path)
        await creates(page)

        # The job is watched to its end where it was started, and in the other tab, which nobody touched.
        await expect(page.locator("main .badge", has_text="Succeeded")).to_be_visible(timeout=30_000)
        row = page.get_by_role("row", name="Buyers")
        await expect(row.get_by_role("cell").nth(1)).to_have_text("2")
        await expect(other.locator("tbody tr", has_text="Buyers")).to_contain_text("Succeeded")
        await row.get_by_role("link", name="Buyers").click()

        await watches_jobs(third)
        await loses_the_server(own_server, first, second)
        await goes_on(third, gateway)
        await expect(other.locator("tbody tr", has_text="Every audience (2)").first).to_contain_text("Succeeded")

        await sees_who_is_in_it(page)
        await exports(page)
        await downloads(page, tmp_path)
    for seen in (first, second, third):
        assert [address for address in seen.addresses if not is_of(url, address)] == []
        assert [problem for problem in seen.problems if not says_that_the_server_is_lost(problem)] == []


def is_of(url: str, address: str) -> bool:
    host = url.removeprefix("http://")
    return address.startswith((f"http://{host}/", f"ws://{host}/", "data:", "blob:"))


def says_that_the_server_is_lost(problem: str) -> bool:
    """What the browser itself writes on the console while nobody listens."""
    return "net::ERR_CONNECTION_REFUSED" in problem or "net::ERR_CONNECTION_RESET" in problem


async def uploads(page: Page, folder: Path) -> None:
    file = folder / "purchases.csv"
    file.write_bytes(PURCHASES)
    await page.get_by_role("button", name="New dataset").first.click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Name", exact=True).fill("purchases")
    await choose(page, "Kind", "Events")
    await dialog.get_by_label("Identity column").fill("customer")
    await dialog.get_by_label("Identity namespace").fill("customer")
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


async def creates(page: Page) -> None:
    """An audience whose expression is first wrong, then mended by completion."""
    await page.get_by_role("link", name="Audiences", exact=True).click()
    await page.get_by_role("link", name="New audience").first.click()
    await page.get_by_label("Name", exact=True).fill("Buyers")
    await page.locator(".pql .monaco-editor").first.click()
    await page.keyboard.type("xEvent.sum(dolars) > 9")
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("button", name="Use dollars")).to_be_visible()
    await expect(page.locator(".pql .squiggly-error")).to_be_visible()
    for _ in "ars) > 9":
        await page.keyboard.press("ArrowLeft")
    await page.keyboard.press("ControlOrMeta+Space")
    await page.locator(".suggest-widget .monaco-list-row", has_text="dollars").first.click()
    await expect(page.get_by_text("Valid", exact=True)).to_be_visible()
    await expect(page.get_by_test_id("estimate")).to_have_text("2")
    await page.get_by_role("button", name="Create and run").click()


async def watches_jobs(seen: GraphiQL) -> None:
    await seen.write("Watch", "subscription Watch { segmentJobsUpdated { jobId status } }")
    await seen.page.keyboard.press("ControlOrMeta+Enter")
    await seen.page.get_by_label("Stop query").wait_for()


async def goes_on(seen: GraphiQL, gateway: Gateway) -> None:
    """The stream shows what happens after the restart, though nobody asked for it again."""
    shown = seen.page.locator(".result-window .view-lines")
    job = ""
    # Jobs that ended before GraphiQL was connected again are not shown.
    while not job or job not in await shown.inner_text():
        job = gateway.start_job()
        wait_for_job(gateway, job)
        await seen.page.wait_for_timeout(200)
    await expect(seen.page.get_by_label("Stop query")).to_be_visible()


async def loses_the_server(server: OwnServer, *pages: Workplace) -> None:
    lost = [seen.page.get_by_text("The server does not answer") for seen in pages]
    server.stop()
    for line in lost:
        await expect(line).to_be_visible(timeout=15_000)
    server.start()
    for line in lost:
        await expect(line).to_have_count(0, timeout=15_000)


async def sees_who_is_in_it(page: Page) -> None:
    await page.get_by_role("link", name="Members").click()
    await expect(page.locator("tbody tr")).to_have_count(2)
    await page.get_by_role("link", name="customer:001").click()
    await expect(page.get_by_role("heading", name="2 events")).to_be_visible()
    await expect(page.locator("aside").get_by_role("link", name="Buyers")).to_be_visible()
    await page.get_by_role("combobox", name="Audience").click()
    await page.get_by_role("option", name="Buyers").click()
    why = page.get_by_label("Why", exact=True)
    await expect(why.get_by_text("In it", exact=True)).to_be_visible()
    await expect(why.get_by_text("xEvent.sum(dollars) > 9")).to_be_visible()
    await page.locator("aside").get_by_role("link", name="Buyers").click()
    await page.get_by_role("link", name="Overlap").click()
    await page.get_by_role("combobox", name="Compare with").click()
    await page.get_by_role("option", name="Named").click()
    await page.get_by_text("As a table").click()
    await expect(page.locator("tbody tr")).to_have_text(["Buyers133%", "Named133%", "Buyers and Named133%"])


async def exports(page: Page) -> None:
    await page.get_by_role("link", name="Exports", exact=True).click()
    await page.get_by_role("button", name="New export").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_text("Buyers").click()
    await dialog.get_by_label("Name of the dataset").fill("buyers out")
    await dialog.get_by_role("button", name="Export", exact=True).click()
    await expect(page.locator("main .badge", has_text="Succeeded")).to_be_visible(timeout=30_000)
    await expect(page.locator(".figure", has_text="People written")).to_contain_text("2")


async def downloads(page: Page, folder: Path) -> None:
    await page.get_by_role("link", name="Audiences", exact=True).click()
    await page.get_by_role("row", name="Buyers").get_by_text("Buyers").click()
    await page.get_by_role("link", name="Members").click()
    await page.get_by_role("button", name="Download", exact=True).click()
    async with page.expect_download() as download:
        await page.get_by_role("menuitem", name="CSV").click()
    file = folder / "members.csv"
    await (await download.value).save_as(file)
    _, *rows = csv.reader(file.read_text(encoding="utf-8").splitlines())
    assert sorted(row[0] for row in rows) == ["customer:001", "customer:004"]

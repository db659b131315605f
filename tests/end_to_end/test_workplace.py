"""The workplace in a real browser, against the real server: the builder, folders, search and several at once."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, Page, expect

from tests.end_to_end.conftest import RunningServer
from tests.support.browser import Workplace, workplace
from tests.support.client import Gateway

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

pytestmark = [pytest.mark.timeout(240), pytest.mark.asyncio(loop_scope="session")]


@asynccontextmanager
async def watched(browser: Browser, url: str, sandbox: str, width: int = 1280) -> AsyncIterator[Workplace]:
    """The workplace; at the end it must have asked nobody else and reported no problem."""
    async with workplace(browser, sandbox, width=width) as seen:
        yield seen
        host = urlsplit(url).netloc
        strangers = [each for each in seen.addresses if urlsplit(each).netloc not in {host, ""}]
        assert strangers == []
        assert seen.problems == []


async def choose(page: Page, button: str, option: str) -> None:
    await page.get_by_role("button", name=button).click()
    await page.get_by_role("option").filter(has_text=option).click()


ROUND_TRIPS = [
    'name = "Ann Lee"\nand home.city in ["Reno", "Bonn"]',
    'xEvent[kind = "buy" and timestamp occurs <= 30 days before now].count() >= 2\nor not (inSegment("x"))',
    '`first name` = "Ann"\nand xEvent.sum(`net``price`) > 1',
    'xEvent.sum(dollars) > 9.5\nand (name.startsWith("A")\n  or home.city.isNull())',
    'CHAIN(xEvent, timestamp, [S1: WHAT(kind = "view"), S2: WHAT(kind = "buy") WHEN(<= 7 days after S1)])\n'
    'and name != "\\"\\\\"',
]


async def test_the_builder_reads_and_writes_the_same_expression(
    running_server: RunningServer, browser: Browser
) -> None:
    url, gateway = running_server.url, Gateway(running_server.url, "workplace-builder")
    gateway.upload(gateway.create_dataset("people", "PROFILE", "customer"), "people.ndjson", PEOPLE, "NDJSON")
    gateway.upload(gateway.create_dataset("purchases", "EVENT", "customer", "at"), "p.csv", PURCHASES, "CSV")
    # Wide enough that no line of an expression is broken.
    async with watched(browser, url, "workplace-builder", width=2560) as seen:
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
        await replace(page, " or ".join(f'name = "{number}"' for number in range(1_201)))
        limit = "it has 1,201 conditions, and the builder shows up to 200"
        await expect(builder.get_by_text(limit)).to_be_visible()


async def test_fields_and_their_values_show_how_often_they_occur(
    running_server: RunningServer, browser: Browser
) -> None:
    url, gateway = running_server.url, Gateway(running_server.url, "workplace-values")
    dataset = gateway.create_dataset("purchases", "EVENT", "customer", "at")
    gateway.upload(dataset, "p.csv", PURCHASES, "CSV")
    async with watched(browser, url, "workplace-values", width=1440) as seen:
        page = seen.page
        await seen.go(f"{url}/data/{dataset}")
        row = page.get_by_role("row").filter(has_text="xEvent.kind")
        # Of the four rows that landed two are of each kind.
        await expect(row.get_by_role("cell")).to_have_text(["xEvent.kind", "string", "100%", "2", "buy 2view 2"])
        different = page.get_by_role("row").filter(has_text="xEvent.dollars").get_by_role("cell").last
        await expect(different).to_have_text("each different")
        await seen.go(f"{url}/audiences/new")
        await page.locator(".pql .monaco-editor").first.wait_for()
        await replace(page, 'xEvent[kind = "b"].count() > 0')
        await page.get_by_label("Builder").get_by_role("combobox", name="Value").fill("bu")
        await expect(page.get_by_role("option")).to_have_text(["buy2 times"])


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


async def test_folders_search_and_several_at_once(running_server: RunningServer, browser: Browser) -> None:
    """A folder is opened, and its audience left out of the root's others; what a search finds is run at once."""
    url, gateway = running_server.url, Gateway(running_server.url, "workplace-folders")
    gateway.upload(gateway.create_dataset("people", "PROFILE", "customer"), "people.ndjson", PEOPLE, "NDJSON")
    inside, outside = gateway.define("Inside", 'name like "A%"'), gateway.define("Outside", 'name like "B%"')
    async with watched(browser, url, "workplace-folders") as seen:
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

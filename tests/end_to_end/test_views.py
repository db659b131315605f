"""Every view of the pages on the demo's data: accessible, fitting, by keyboard alone; and their pictures.

With SEGMENTATION_WRITE_PICTURES set, the pictures of the README and of the documentation are written anew.
"""

import os
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, Page, expect

from tests.end_to_end.conftest import ROOT
from tests.end_to_end.test_demo import demo
from tests.support.browser import graphiql, workplace
from tests.support.client import Gateway

__all__ = ["demo"]

pytestmark = [pytest.mark.timeout(400), pytest.mark.asyncio(loop_scope="session")]

VIEWS = {
    "audiences": "/audiences?sort=size.desc",
    "audience": "/audiences/{audience}",
    "members": "/audiences/{audience}/members",
    "numbers": "/audiences/{audience}/numbers"
    "?of=%5B%22homeAddress.city%22%2C%22xEvent.sum(commerce.order.priceTotal)%22%5D",
    "history": "/audiences/{audience}/history",
    "overlap": "/audiences/{audience}/overlap?with={other}",
    "use": "/audiences/{audience}/use",
    "edit": "/audiences/{audience}/edit",
    "jobs": "/jobs",
    "job": "/jobs/{job}",
    "schedules": "/schedules",
    "schedule": "/schedules/{schedule}",
    "schedule of exports": "/schedules/{mailing}",
    "exports": "/exports",
    "export": "/exports/{export}",
    "data": "/data",
    "dataset": "/data/{dataset}",
    "people": "/people",
    "person": "/people/{person}?why={audience}",
    "erasure": "/erasures/{erasure}",
}
LOOKS = [(360, True), (2560, True), (1280, True), (360, False), (1280, False)]
"""Width, and whether dark."""

PICTURES = os.environ.get("SEGMENTATION_WRITE_PICTURES") is not None
WORKPLACE_PICTURES = {
    "audiences": ROOT / "app" / "web" / "workplace.png",
    **{view: ROOT / "app" / "docs" / "images" / f"{view}.png" for view in ("numbers", "edit", "person")},
}
GRAPHIQL_PICTURE = ROOT / "app" / "web" / "graphiql.png"
# On one line, since the editor indents and closes brackets by itself as one types; GraphiQL then lays it out.
OPERATION = (
    "query Audiences { segmentDefinitions(first: 2) { totalCount nodes { name version "
    "audience { metrics { totalProfiles } } } } }"
)


@pytest.fixture(scope="module")
def ids(demo: Gateway) -> dict[str, str]:
    """What the addresses of the views name; an erasure is added to what the demo has."""
    # Of a person whom no file has, so that the others stay.
    erasure = demo.query(
        """mutation { eraseProfile(input: {identity: {namespace: "email", id: "nobody@example.com"}}) {
             job { jobId } errors { message } } }"""
    )["eraseProfile"]
    assert erasure["errors"] == []
    data = demo.query("""{
      carts: audiences(filter: {name: {eq: "Abandoned carts"}}) {
        nodes { audienceId members(first: 1) { nodes { profile { profileId } } } } }
      spenders: audiences(filter: {name: {eq: "Big spenders"}}) { nodes { id } }
      segmentJobs(first: 1) { nodes { jobId } }
      exportJobs(first: 1) { nodes { jobId } }
      schedules { nodes { name scheduleId } }
      datasets(kind: PROFILE) { nodes { datasetId } }
    }""")
    audience = data["carts"]["nodes"][0]
    schedules = {each["name"]: each["scheduleId"] for each in data["schedules"]["nodes"]}
    return {
        "audience": audience["audienceId"],
        "other": data["spenders"]["nodes"][0]["id"],
        "person": audience["members"]["nodes"][0]["profile"]["profileId"],
        "job": data["segmentJobs"]["nodes"][0]["jobId"],
        "schedule": schedules["Nightly"],
        "mailing": schedules["Mailing list"],
        "dataset": data["datasets"]["nodes"][0]["datasetId"],
        "export": data["exportJobs"]["nodes"][0]["jobId"],
        "erasure": erasure["job"]["jobId"],
    }


async def test_every_view_is_accessible_fits_and_shows_something(
    demo: Gateway, ids: dict[str, str], browser: Browser, axe: str
) -> None:
    async with workplace(browser, "prod") as seen:
        for view, address in VIEWS.items():
            await seen.go(demo.url + address.format(**ids))
            await expect(seen.page.get_by_label("Loading")).to_have_count(0, timeout=20_000)
            if view == "edit":
                await seen.page.locator(".pql .monaco-editor").first.wait_for()
                await expect(seen.page.get_by_test_id("estimate")).to_be_visible(timeout=20_000)
            if view == "schedules":  # one runs each night, to the last day that is shown
                await expect(seen.page.locator(".calendar > span").last).to_have_class("due")
            assert await seen.page.locator("main .empty").all_text_contents() == [], view
            for width, dark in LOOKS:
                await seen.page.set_viewport_size({"width": width, "height": 800})
                await seen.page.emulate_media(color_scheme="dark" if dark else "light")
                assert await seen.violations(axe) == [], (view, width, dark)
                assert await seen.overflow() == 0, (view, width, dark)
            if PICTURES and view in WORKPLACE_PICTURES:
                WORKPLACE_PICTURES[view].parent.mkdir(exist_ok=True)
                await seen.page.screenshot(path=WORKPLACE_PICTURES[view])
        assert [address for address in seen.addresses if urlsplit(address).netloc != urlsplit(demo.url).netloc] == []
        assert seen.problems == []


@pytest.mark.skipif(not PICTURES, reason="SEGMENTATION_WRITE_PICTURES is not set")
async def test_a_picture_of_graphiql_is_taken(demo: Gateway, browser: Browser) -> None:
    async with graphiql(browser, demo.url, width=1200, height=760) as seen:
        await seen.run("Audiences", OPERATION, "totalProfiles")
        await seen.page.get_by_label("Prettify query").click()
        await seen.page.mouse.move(600, 750)
        await expect(seen.page.locator(".graphiql-query-editor .view-line")).to_have_count(15)
        await seen.page.screenshot(path=GRAPHIQL_PICTURE)


async def test_the_keyboard_alone_suffices(demo: Gateway, ids: dict[str, str], browser: Browser) -> None:
    """From the list to an audience, its tabs, its menu, its editor and a run: no mouse, and Tab leaves the editor."""
    async with workplace(browser, "prod") as seen:
        page = seen.page
        await seen.go(f"{demo.url}/audiences?sort=size.desc")
        await expect(page.get_by_label("Loading")).to_have_count(0)
        await tab_to(page, "Skip to content")
        await tab_to(page, "Search audiences")
        await tab_to(page, "Audiences", "document.activeElement.closest('[role=grid]') !== null")
        await page.keyboard.press("ArrowDown")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", name="Who is in it")).to_be_visible()
        await tab_to(page, "More actions")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("menuitem", name="Deactivate")).to_be_focused()
        await page.keyboard.press("Escape")
        await tab_to(page, "Members")
        await page.keyboard.press("Enter")
        await expect(page.locator("tbody tr").first).to_be_visible()
        await page.keyboard.press("Shift+Tab")
        await tab_back_to(page, "Edit")
        await page.keyboard.press("Enter")
        await page.locator(".pql .monaco-editor").first.wait_for()
        await tab_to(page, "Expression in PQL. Control Space completes, Tab leaves.")
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.closest('.pql') === null")
        await tab_to(page, "Compare")
        await page.keyboard.press("Enter")
        await expect(page.locator(".figure", has_text="Then")).to_be_visible(timeout=20_000)
        await tab_back_to(page, "Save and run")
        await page.keyboard.press("Enter")
        await expect(page.locator("main .badge", has_text="Succeeded")).to_be_visible(timeout=30_000)


NAME = "(element => element.getAttribute('aria-label') || element.labels?.[0]?.textContent || element.textContent)"


async def tab_to(page: Page, name: str, there: str | None = None, key: str = "Tab") -> None:
    """Presses Tab until the focus is on what has this name, or where `there` holds."""
    reached = there or f"{NAME}(document.activeElement).trim() === {name!r}"
    for _ in range(60):
        await page.keyboard.press(key)
        if await page.evaluate(reached):
            return
    pytest.fail(f"sixty times {key} do not get to {name}")


async def tab_back_to(page: Page, name: str) -> None:
    await tab_to(page, name, key="Shift+Tab")

"""The workplace with more audiences than a list shows: wherever some are chosen, they are found by name."""

import asyncio

import pytest
from playwright.async_api import Browser, Page, Route, expect

from tests.end_to_end.conftest import RunningServer
from tests.end_to_end.test_workplace import PEOPLE, watched
from tests.support.client import Gateway

pytestmark = [pytest.mark.timeout(240), pytest.mark.asyncio(loop_scope="session")]

LISTED = 50


@pytest.fixture(scope="session")
def first(running_server: RunningServer) -> str:
    """Id of the first of more audiences than a list of choices has, in the sandbox `many`; the last is `Zebra`."""
    gateway = Gateway(running_server.url, "many")
    gateway.upload(gateway.create_dataset("people", "PROFILE", "customer"), "people.ndjson", PEOPLE, "NDJSON")
    names = [*(f"Audience {number:02}" for number in range(LISTED)), "Zebra"]
    first, *_ = [gateway.define(name, f'name != "{name}"') for name in names]
    return first


async def find(page: Page, label: str, listed: int = LISTED) -> None:
    """Types a part of a name that the list did not show, and takes what is found."""
    box = page.get_by_role("combobox", name=label)
    await box.focus()
    await expect(page.get_by_role("option")).to_have_count(listed)
    rest = f"The first {listed} of {listed + 1}: type a part of the name to find others."
    await expect(page.get_by_text(rest)).to_be_visible()
    await page.keyboard.type("nobody")
    await expect(page.get_by_text("nobody", exact=False).filter(has_text="in its name.")).to_be_visible()
    await page.keyboard.press("ControlOrMeta+a")
    await page.keyboard.type("zeb")
    await expect(page.get_by_role("option")).to_have_text(["Zebra"])
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("Enter")


async def test_one_audience_is_chosen_among_more_than_are_listed(
    running_server: RunningServer, browser: Browser, first: str
) -> None:
    url = running_server.url
    async with watched(browser, url, "many") as seen:
        page = seen.page
        answered = asyncio.Event()

        async def hold(route: Route) -> None:
            if "ConvertExpression" in (route.request.post_data or ""):
                await answered.wait()
            await route.continue_()

        await page.route("**/graphql*", hold)
        await seen.go(f"{url}/audiences/{first}/edit")
        add = page.get_by_role("button", name="Add a condition")
        await expect(page.get_by_role("heading", name="Who is in it")).to_be_visible()
        # Until the builder has read the expression, what is done in it would be lost, or would take its place.
        await expect(page.locator("[inert]").get_by_role("button", name="Add a condition")).to_be_attached()
        answered.set()
        await expect(page.locator("[inert]")).to_have_count(0)
        await expect(page.locator(".condition")).to_have_count(1)
        await add.press("Enter")
        await page.get_by_role("menuitem", name="Another audience").press("Enter")
        # Who adds a condition goes on in it.
        await expect(page.locator(".condition").nth(1).get_by_role("button").first).to_be_focused()
        # It cannot refer to itself.
        await find(page, "Audience", LISTED - 1)
        await expect(page.get_by_role("combobox", name="Audience")).to_have_value("Zebra")
        await expect(page.locator(".pql .view-lines")).to_contain_text("inSegment")

        await page.goto(f"{url}/people/customer:001")
        await find(page, "Audience")
        await expect(page.get_by_label("Why", exact=True).get_by_text("In it", exact=True)).to_be_visible()
        await page.reload()
        await expect(page.get_by_role("combobox", name="Audience")).to_have_value("Zebra")


async def test_several_audiences_are_chosen_among_more_than_are_listed(
    running_server: RunningServer, browser: Browser, first: str
) -> None:
    url = running_server.url
    async with watched(browser, url, "many") as seen:
        page, dialog = seen.page, seen.page.get_by_role("dialog")
        await seen.go(f"{url}/audiences/{first}/overlap")
        await find(page, "Compare with", LISTED - 1)
        await expect(page.get_by_role("button", name="Remove Zebra")).to_be_visible()

        await seen.go(f"{url}/schedules")
        await page.get_by_role("button", name="New schedule").first.press("Enter")
        await page.keyboard.type("Nightly")
        await dialog.get_by_text("Every audience").click()
        search, choices = dialog.get_by_label("Find an audience"), dialog.get_by_role("group", name="Audiences")
        await expect(choices.get_by_role("checkbox")).to_have_count(LISTED)
        await search.fill("zebra")
        await expect(choices.get_by_role("checkbox")).to_have_count(1)
        # Enter in a search finds, and sends no form.
        await search.press("Enter")
        await choices.get_by_text("Zebra").click()
        await search.fill("audience 0")
        await expect(choices.get_by_role("checkbox")).to_have_count(10)
        await choices.get_by_text("Audience 03").click()
        await expect(dialog.get_by_role("button", name="Remove Zebra")).to_be_visible()
        # Enter in a field sends the form.
        await dialog.get_by_label("Name", exact=True).press("Enter")
        await page.get_by_role("link", name="Nightly").click()
        await expect(page.locator("aside").get_by_role("link")).to_have_text(["Audience 03", "Zebra"])
        # A new view is where the keyboard goes on.
        await expect(page.locator("main")).to_be_focused()

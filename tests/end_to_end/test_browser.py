"""GraphiQL in a real browser, against the real server: it loads, answers, watches a job, and asks no other host."""

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from tests.support.browser import GraphiQL, graphiql
from tests.support.client import Gateway

PURCHASES = (
    b"customer,at,dollars\n001,2024-01-05,120.50\n001,2024-02-01,30.00\n002,2024-02-02,8.25\n003,2024-03-09,99.99\n"
)


pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def page(running_server: Any, browser: Browser) -> AsyncIterator[GraphiQL]:
    async with graphiql(browser, running_server.url) as opened:
        yield opened
        host = urlsplit(running_server.url).netloc
        strangers = [url for url in opened.addresses if urlsplit(url).netloc != host and not is_local(url)]
        assert strangers == []
        assert opened.problems == []


def is_local(url: str) -> bool:
    """Data within the page itself, no request."""
    return urlsplit(url).scheme in {"data", "blob"}


async def test_a_first_visitor_sees_a_query_that_works(page: GraphiQL) -> None:
    assert "query FirstLook {" in await page.query()
    await page.page.get_by_label("Execute query").click()
    await page.page.locator(".result-window .view-lines", has_text="organisation").wait_for()
    assert '"errors"' not in await page.page.locator(".result-window").inner_text()


async def test_a_typed_query_is_answered(page: GraphiQL, running_server: Any) -> None:
    response = await page.run("Who", "query Who { viewer { organisation sandbox } }", "organisation")

    assert response["data"] == {"viewer": {"organisation": "default", "sandbox": "prod"}}
    assert page.addresses.count(f"{running_server.url}/graphql") >= 3  # the page, the schema, the query


async def test_a_job_is_watched_to_its_end(page: GraphiQL, running_server: Any) -> None:
    gateway = Gateway(running_server.url)  # the page's own tenant: nothing in its headers editor
    dataset = gateway.create_dataset("browser purchases", "EVENT", "customer", "at")
    assert gateway.upload(dataset, "purchases.csv", PURCHASES, "CSV")["errors"] == []
    definition = gateway.define("Browser: over 50", "xEvent.sum(dollars) > 50")
    job = gateway.start_job(definition)

    response = await page.run(
        "Watch",
        f'subscription Watch {{ segmentJobUpdated(id: "{job}") {{ status progress {{ fraction sequence }} }} }}',
        "SUCCEEDED",
    )

    states = [frame["payload"]["data"]["segmentJobUpdated"] for frame in page.frames if frame["type"] == "next"]
    sequences = [state["progress"]["sequence"] for state in states]
    assert sequences == sorted(set(sequences))
    assert (states[-1]["status"], states[-1]["progress"]["fraction"]) == ("SUCCEEDED", 1)
    assert response["data"] == {"segmentJobUpdated": states[-1]}
    # The stream ended by itself: the page offers to run again instead of to stop.
    await page.page.get_by_label("Execute query").wait_for()
    assert page.frames[-1]["type"] == "complete"
    assert running_server.url.replace("http", "ws") + "/graphql" in page.addresses


async def test_a_sandbox_that_holds_nothing_is_named(page: GraphiQL, running_server: Any) -> None:
    gateway = Gateway(running_server.url)
    dataset = gateway.create_dataset("browser people", "PROFILE", "customer", None)
    assert gateway.upload(dataset, "people.csv", b"customer\n001\n", "CSV")["errors"] == []
    warning = page.page.locator(".unknown-sandbox")
    await page.page.get_by_role("button", name="Headers", exact=True).click()
    for sandbox in ("prodd", "prod"):
        await page.page.locator(".graphiql-editor-tool .monaco-editor:visible").click()
        await page.page.keyboard.press("ControlOrMeta+a")
        await page.page.keyboard.press("Delete")
        await page.page.keyboard.insert_text(f'{{"x-sandbox-name": "{sandbox}')  # The editor closes what is open.
        await page.page.get_by_label("Execute query").click()
        await page.page.locator(".result-window .view-lines", has_text=f'"{sandbox}"').wait_for()
        if sandbox == "prodd":
            await warning.filter(has_text="Nothing is stored in the sandbox prodd of default.").wait_for()
            assert "prod" in (await warning.inner_text()).split("Sandboxes with data: ")[1].rstrip(".").split(", ")
    await warning.wait_for(state="hidden")


async def test_pql_is_completed_inside_an_expression(page: GraphiQL) -> None:
    written = '{ pql { check(expression: "xEv'
    await page.page.locator(".graphiql-query-editor .monaco-editor").click()
    await page.page.keyboard.press("ControlOrMeta+a")
    await page.page.keyboard.insert_text(f'{written}") {{ ok }} }} }}')
    await page.page.keyboard.press("ControlOrMeta+Home")
    for _ in written:
        await page.page.keyboard.press("ArrowRight")
    await page.page.keyboard.press("ControlOrMeta+Space")
    await page.page.locator(".suggest-widget .monaco-list-row", has_text="xEvent").first.click()

    assert (await page.query()).startswith('{ pql { check(expression: "xEvent")')


async def test_the_theme_changes_while_the_page_is_open(page: GraphiQL) -> None:
    await page.page.emulate_media(color_scheme="dark")
    await page.page.locator("body.graphiql-dark .graphiql-query-editor .monaco-editor.vs-dark").wait_for()
    await page.page.emulate_media(color_scheme="light")
    await page.page.locator("body.graphiql-light .graphiql-query-editor .monaco-editor.vs").wait_for()


async def test_tab_leaves_the_editor(page: GraphiQL) -> None:
    await page.page.locator(".graphiql-query-editor .monaco-editor").click()
    await page.page.keyboard.press("Tab")

    assert await page.page.evaluate("document.activeElement.closest('.monaco-editor') === null")


async def test_the_headers_are_there_to_be_changed(page: GraphiQL) -> None:
    await page.page.get_by_role("button", name="Headers", exact=True).click()
    editor = page.page.locator(".graphiql-editor-tool .monaco-editor:visible")
    await expect(editor).to_contain_text('"x-gw-ims-org-id"')
    await expect(editor).to_contain_text('"x-sandbox-name"')


async def test_the_buttons_hide_no_line_of_the_first_query(page: GraphiQL) -> None:
    """At 1280 pixels: how far each line goes, and where the buttons begin."""
    lines = await page.page.locator(".graphiql-query-editor .view-line > span").evaluate_all(
        "spans => spans.map(span => span.getBoundingClientRect().right)"
    )
    buttons = await page.page.get_by_label("Execute query").bounding_box()
    assert buttons is not None
    assert len(lines) > 10
    assert max(lines) < buttons["x"]


async def test_links_lead_to_the_workplace_and_back(page: GraphiQL, running_server: Any) -> None:
    await page.page.get_by_role("link", name="← Workplace").click()
    await page.page.get_by_role("heading", name="Audiences", exact=True).wait_for()
    assert page.page.url.startswith(f"{running_server.url}/audiences")
    await page.page.get_by_role("link", name="GraphiQL").click()
    await page.page.get_by_label("Execute query").wait_for()
    assert page.page.url == f"{running_server.url}/graphql"


async def test_an_example_opens_in_a_tab_of_its_own(page: GraphiQL) -> None:
    await page.page.get_by_label("Show Examples").click()
    await page.page.get_by_role("button", name="LargestAudiences").click()
    await page.page.locator(".graphiql-tab-active", has_text="LargestAudiences").wait_for()

    assert "query LargestAudiences {" in await page.query()


async def test_a_server_that_cannot_be_reached_is_said_in_words(page: GraphiQL, running_server: Any) -> None:
    await page.page.route("**/graphql", lambda route: route.abort())
    await page.page.get_by_label("Execute query").click()
    await page.page.locator(".result-window .view-lines", has_text="cannot be reached").wait_for()

    assert page.problems == ["Failed to load resource: net::ERR_FAILED"]
    page.problems.clear()

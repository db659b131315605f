"""What the workplace says when something cannot be: each time what is wrong, and what to do."""

import pytest
from playwright.async_api import Browser, Page, Route, expect

from tests.end_to_end.conftest import RunningServer
from tests.end_to_end.test_workplace import PEOPLE, replace, wait_for_job, watched
from tests.support.browser import workplace
from tests.support.client import Gateway

pytestmark = [pytest.mark.timeout(240), pytest.mark.asyncio(loop_scope="session")]


READ = ("audiences", "definitions", "folders", "schedules", "mergePolicies", "jobs", "datasets", "exports")
"""Everything that the views of an audience show, but people."""


def with_people(server: RunningServer, sandbox: str) -> Gateway:
    gateway = Gateway(server.url, sandbox)
    gateway.upload(gateway.create_dataset("people", "PROFILE", "customer"), "people.ndjson", PEOPLE, "NDJSON")
    return gateway


async def test_a_caller_without_the_permission_is_told_which_one(
    running_server: RunningServer, browser: Browser
) -> None:
    gateway = with_people(running_server, "errors-key")
    audience = gateway.define("Ann", 'name = "Ann Lee"')
    key = gateway.create_key(*(f"{resource}:read" for resource in READ))
    async with workplace(browser, "errors-key", key=key) as seen:
        page = seen.page
        await page.goto(f"{running_server.url}/people")
        alert = page.get_by_role("alert")
        await expect(alert).to_contain_text("You may not read profiles: ask for the permission profiles:read.")
        await expect(alert).to_contain_text("Another token or key is given by the button with organisation and sandbox")
        await page.goto(f"{running_server.url}/audiences/{audience}/members?columns=name")
        await expect(page.locator("main")).to_contain_text("You may not read profiles")
        await expect(page.get_by_role("heading", name="Ann")).to_be_visible()
        await page.goto(f"{running_server.url}/audiences/{audience}")
        await expect(page.get_by_role("heading", name="Who is in it")).to_be_visible()
        await expect(page.get_by_role("button", name="Run now")).to_have_count(0)


async def test_what_a_limit_refuses_names_the_limit(running_server: RunningServer, browser: Browser) -> None:
    audience = with_people(running_server, "errors-limit").define("Ann", 'name = "Ann Lee"')
    async with workplace(browser, "errors-limit") as seen:  # a refusal is a 400, which Chromium notes on its console
        page = seen.page
        await seen.go(f"{running_server.url}/audiences/{audience}/members")
        await page.get_by_label("For whom (PQL)").fill("x" * 100_001)
        await page.get_by_role("button", name="Apply").click()
        await expect(page.get_by_role("alert")).to_contain_text(
            "has 100,001 characters, and at most 100,000 are allowed: shorten it"
        )


async def test_a_job_that_failed_says_what_to_do(running_server: RunningServer, browser: Browser) -> None:
    gateway = with_people(running_server, "errors-job")
    first = gateway.define("First", 'name = "Ann Lee"')
    rest = gateway.define("Rest", f'not inSegment("{first}")')
    job = gateway.start_job(rest)
    wait_for_job(gateway, job)
    async with watched(browser, running_server.url, "errors-job") as seen:
        await seen.go(f"{running_server.url}/jobs/{job}")
        alert = seen.page.get_by_role("alert")
        await expect(alert).to_contain_text("which has never been evaluated; run it first, or both in one job")
        await alert.get_by_role("link", name="Edit Rest").click()
        await expect(seen.page.get_by_role("heading", name="Edit Rest")).to_be_visible()


async def test_a_file_of_which_nothing_lands_names_its_first_row(
    running_server: RunningServer, browser: Browser
) -> None:
    gateway = Gateway(running_server.url, "errors-batch")
    dataset = gateway.create_dataset("purchases", "EVENT", "customer", "at")
    async with watched(browser, running_server.url, "errors-batch") as seen:
        page = seen.page
        await seen.go(f"{running_server.url}/data/{dataset}")
        files = page.locator("input[type=file]")
        alert = page.get_by_role("alert")
        for name, content, words in (
            ("bad.csv", b"customer,at\n001,never\n", "none of the 1 rows can be used; row 1:"),
            ("other.csv", b"person,at\n001,2026-01-01\n", "customer"),
            ("table.xlsx", b"x", "table.xlsx is no CSV, NDJSON or Parquet file by its name"),
        ):
            await files.set_input_files({"name": name, "mimeType": "text/csv", "buffer": content})
            await expect(alert).to_contain_text(words)


async def test_why_one_person_is_in_or_out_beside_the_editor(running_server: RunningServer, browser: Browser) -> None:
    with_people(running_server, "errors-why")
    async with watched(browser, running_server.url, "errors-why", width=1440) as seen:
        page = seen.page
        await seen.go(f"{running_server.url}/audiences/new")
        await page.locator(".pql .monaco-editor").first.wait_for()
        await replace(page, 'home.city = "Reno" and name.startsWith("A")')
        await expect(page.get_by_text("Valid", exact=True)).to_be_visible()
        box = page.get_by_label("One person")
        await explain(page, "customer:001")
        await expect(box.get_by_text("In it", exact=True)).to_be_visible()
        await explain(page, "customer:002")
        await expect(box.get_by_text("Not in it", exact=True)).to_be_visible()
        parts = box.locator("ul.why li:has(> .row code)")
        await expect(parts.filter(has_text='home.city = "Reno"').get_by_label("does not hold").first).to_be_visible()
        await explain(page, "customer:009")
        await expect(box).to_contain_text("no profile of this sandbox has the identity '009'")
        await expect(box).to_contain_text("check the namespace and the id")


async def explain(page: Page, person: str) -> None:
    await page.get_by_label("Person", exact=True).fill(person)
    await page.get_by_role("button", name="Explain").click()


async def test_an_answer_of_a_proxy_and_none_at_all_are_told_apart(
    running_server: RunningServer, browser: Browser
) -> None:
    gateway = with_people(running_server, "errors-lost")
    gateway.define("Ann", 'name = "Ann Lee"')
    async with workplace(browser, "errors-lost", width=1440) as seen:
        page = seen.page
        await seen.go(f"{running_server.url}/audiences/new")
        await page.locator(".pql .monaco-editor").first.wait_for()

        async def too_large(route: Route) -> None:
            await route.fulfill(status=413, content_type="text/html", body="<h1>Too large</h1>")

        await page.route("**/graphql", too_large)
        await replace(page, 'name = "B"')
        alert = page.get_by_label("Expression").get_by_role("alert")
        await expect(alert).to_contain_text("What answered was not the API (413 ")
        await expect(alert).to_contain_text("look at its limits")
        await page.unroute("**/graphql")
        # Without any answer, until the server is back: what was typed meanwhile is then checked by itself.
        for address in ("**/graphql", "**/health/*"):
            await page.route(address, lambda route: route.abort("connectionrefused"))
        await replace(page, 'name = "C"')
        await expect(alert).to_contain_text("The server cannot be reached. This page asks again by itself")
        await expect(page.get_by_text("The server does not answer")).to_be_visible()
        await page.unroute_all()
        await expect(page.get_by_text("Valid", exact=True)).to_be_visible(timeout=20_000)
        await expect(alert).to_have_count(0)


async def test_a_batch_says_which_rows_it_left_out_and_why_however_old_it_is(
    running_server: RunningServer, browser: Browser
) -> None:
    gateway = Gateway(running_server.url, "errors-batch")
    dataset = gateway.create_dataset("visits", "EVENT", "customer", "at")
    late = b"customer,at\n1,2024-01-05\n2,never\n3,soon\n"
    reasons = [row["message"] for row in gateway.upload(dataset, "late.csv", late, "CSV")["rejected"]]
    many = b"customer,at\n1,2024-01-06\n" + b"2,never\n" * 25
    assert gateway.upload(dataset, "many.csv", many, "CSV")["errors"] == []
    (error,) = gateway.upload(dataset, "none.csv", b"customer,at\n1,never\n", "CSV")["errors"]
    async with watched(browser, running_server.url, "errors-batch") as seen:
        await seen.go(f"{running_server.url}/data/{dataset}")
        batches = seen.page.locator(".batches > li")
        await expect(batches).to_have_count(3)
        await expect(batches.nth(0)).to_contain_text(error["message"])
        await batches.nth(1).get_by_text("25 rows left out").click()
        await expect(batches.nth(1)).to_contain_text("20 of 25 are kept.")
        await batches.nth(2).get_by_text("2 rows left out").click()
        rows = batches.nth(2).locator("tbody tr")
        await expect(rows).to_have_text([f"{2}{reasons[0]}", f"{3}{reasons[1]}"])

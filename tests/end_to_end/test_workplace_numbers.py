"""What the workplace says of an audience in numbers, its members as a file, and a person who is erased."""

import csv
import json
import re
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.async_api import Browser, Page, expect

from tests.end_to_end.conftest import RunningServer
from tests.end_to_end.test_workplace import wait_for_job, watched
from tests.support.client import Gateway

PEOPLE = [
    {"customer": "001", "name": "Ann Lee", "age": 20, "home": {"city": "Reno"}},
    {"customer": "002", "name": "Bob Ray", "age": 30, "home": {"city": "Bonn"}},
    {"customer": "003", "name": "Cy Oh", "age": 40, "home": {"city": "Reno"}},
    {"customer": "004", "name": "Di Ono", "age": 60, "home": {"city": "Rome"}},
]
LINES = "\n".join(json.dumps(person) for person in PEOPLE).encode()

pytestmark = [pytest.mark.timeout(240), pytest.mark.asyncio(loop_scope="session")]


def evaluated(gateway: Gateway, name: str, expression: str) -> str:
    gateway.upload(gateway.create_dataset("people", "PROFILE", "customer"), "people.ndjson", LINES, "NDJSON")
    audience = gateway.define(name, expression)
    wait_for_job(gateway, gateway.start_job(audience))
    return audience


async def test_each_part_of_an_expression_has_its_count(running_server: RunningServer, browser: Browser) -> None:
    gateway = Gateway(running_server.url, "workplace-numbers")
    expression = 'age >= 30 and (home.city = "Reno" or not (name like "B%"))'
    audience = evaluated(gateway, "Grown", expression)
    async with watched(browser, running_server.url, "workplace-numbers") as seen:
        page = seen.page
        await seen.go(f"{running_server.url}/audiences/{audience}")
        await page.get_by_role("link", name="Numbers").click()
        parts = page.get_by_label("Parts").locator(".bars li")
        await expect(parts).to_have_count(6)
        assert [await part.locator("code").text_content() for part in await parts.all()][1:] == [
            "age >= 30",
            'home.city = "Reno" or not name like "B%"',
            'home.city = "Reno"',
            'not name like "B%"',
            'name like "B%"',
        ]
        counts = await parts.locator(".numeric").all_text_contents()
        assert counts == ["2", "3", "3", "2", "3", "1"]
        waterfall = page.locator(".card", has_text="From everybody to who can be reached").locator("li")
        assert await waterfall.locator(".numeric").all_text_contents() == ["4", "2", "2", "2"]


async def test_fields_of_the_members_have_statistics(running_server: RunningServer, browser: Browser) -> None:
    gateway = Gateway(running_server.url, "workplace-statistics")
    audience = evaluated(gateway, "Grown", "age >= 30")
    chosen = quote(json.dumps(["home.city", "nosuch"]))
    async with watched(browser, running_server.url, "workplace-statistics") as seen:
        page = seen.page
        await seen.go(f"{running_server.url}/audiences/{audience}/numbers?of={chosen}")
        await page.get_by_label("Any value in PQL").fill("age")
        await page.get_by_role("button", name="Add", exact=True).click()
        card = page.get_by_label("age", exact=True)
        await expect(card.locator(".figure", has_text="Average")).to_contain_text("43.3333")
        await expect(card.locator(".figure", has_text="Median")).to_contain_text("40")
        await expect(card.get_by_text("From 30 to 60; half of them between 35 and 50; 130 together.")).to_be_visible()
        await expect(card.get_by_role("img", name="Histogram of age")).to_be_visible()
        await expect(page.get_by_label("nosuch", exact=True).locator(".note")).to_contain_text("nosuch")
        # The address has what was chosen.
        await page.reload()
        await expect(card.locator(".figure", has_text="Average")).to_contain_text("43.3333")
        cities = page.get_by_label("home.city", exact=True).locator("li")
        await expect(cities).to_have_count(3)
        await page.get_by_role("button", name="Remove nosuch").click()
        await expect(page.get_by_label("nosuch", exact=True)).to_have_count(0)


async def test_members_are_filtered_ordered_and_downloaded(
    running_server: RunningServer, browser: Browser, tmp_path: Path
) -> None:
    gateway = Gateway(running_server.url, "workplace-download")
    audience = evaluated(gateway, "Grown", "age >= 30")
    async with watched(browser, running_server.url, "workplace-download") as seen:
        page = seen.page
        await seen.go(f"{running_server.url}/audiences/{audience}/members?columns=age%20home.city")
        people = page.locator("tbody tr td:first-child")
        await page.get_by_label("For whom (PQL)").fill('home.city != "Bonn"')
        await page.get_by_label("In the order of (PQL)").fill("age * -1")
        await page.get_by_role("button", name="Apply").click()
        await expect(people).to_have_text(["customer:004", "customer:003"])
        await page.reload()
        await expect(people).to_have_text(["customer:004", "customer:003"])
        await page.get_by_label("For whom (PQL)").fill("home.town = 1")
        await page.get_by_role("button", name="Apply").click()
        await expect(page.get_by_role("alert")).to_contain_text("there is no field `town` here")
        await expect(page.get_by_role("heading", name="Grown")).to_be_visible()
        await page.get_by_label("For whom (PQL)").fill("")
        await page.get_by_role("button", name="Apply").click()
        await page.get_by_role("button", name="age", exact=True).click()
        await expect(people).to_have_text(["customer:002", "customer:003", "customer:004"])
        await page.get_by_role("button", name="age ↑").click()
        await expect(people).to_have_text(["customer:004", "customer:003", "customer:002"])
        await expect(page.get_by_role("columnheader", name="age")).to_have_attribute("aria-sort", "descending")

        # As the table shows them: in its order, with its columns, and then with its condition too.
        assert await downloaded(page, tmp_path) == [
            ["profileId", "age", "home.city"],
            ["customer:004", "60", "Rome"],
            ["customer:003", "40", "Reno"],
            ["customer:002", "30", "Bonn"],
        ]
        await page.get_by_label("For whom (PQL)").fill('home.city != "Rome"')
        await page.get_by_role("button", name="Apply").click()
        await expect(people).to_have_text(["customer:003", "customer:002"])
        assert await downloaded(page, tmp_path) == [
            ["profileId", "age", "home.city"],
            ["customer:003", "40", "Reno"],
            ["customer:002", "30", "Bonn"],
        ]


async def downloaded(page: Page, folder: Path) -> list[list[str]]:
    """The file that the page saves as CSV, without what differs from run to run."""
    await page.get_by_role("button", name="Download", exact=True).click()
    async with page.expect_download() as download:
        await page.get_by_role("menuitem", name="CSV").click()
    file = folder / "members.csv"
    await (await download.value).save_as(file)
    header, *rows = csv.reader(file.read_text(encoding="utf-8").splitlines())
    assert header[:3] == ["profileId", "status", "lastQualificationTime"]
    return [[row[0], *row[3:]] for row in (header, *rows)]


async def test_members_of_an_earlier_run(running_server: RunningServer, browser: Browser, tmp_path: Path) -> None:
    gateway = Gateway(running_server.url, "workplace-as-of")
    audience = evaluated(gateway, "Grown", "age >= 30")
    people = gateway.query("{ datasets { nodes { datasetId } } }")["datasets"]["nodes"][0]["datasetId"]
    gateway.upload(people, "people.ndjson", b'{"customer": "002", "age": 29}', "NDJSON")
    wait_for_job(gateway, gateway.start_job(audience))
    async with watched(browser, running_server.url, "workplace-as-of") as seen:
        page = seen.page
        await seen.go(f"{running_server.url}/audiences/{audience}/members?columns=age&sort=age")
        members = page.locator("tbody tr td:first-child")
        await expect(members).to_have_text(["customer:003", "customer:004"])
        await page.get_by_role("button", name="As of").click()
        options = page.get_by_role("option")
        await expect(options).to_have_count(3)
        await options.last.click()
        # With the attributes of now.
        await expect(members).to_have_text(["customer:002", "customer:003", "customer:004"])
        await expect(page.get_by_role("row").nth(1)).to_contain_text("29")
        await page.reload()
        await expect(members).to_have_text(["customer:002", "customer:003", "customer:004"])
        assert [row[0] for row in await downloaded(page, tmp_path)] == [
            "profileId", "customer:002", "customer:003", "customer:004",
        ]  # fmt: skip
        await page.get_by_role("link", name="History").click()
        await page.get_by_title("Who was in it then").first.click()
        await expect(members).to_have_count(2)


async def test_a_person_is_erased_by_name(running_server: RunningServer, browser: Browser) -> None:
    gateway = Gateway(running_server.url, "workplace-erase")
    evaluated(gateway, "Grown", "age >= 30")
    async with watched(browser, running_server.url, "workplace-erase") as seen:
        page = seen.page
        await seen.go(f"{running_server.url}/people/customer:003")
        await page.get_by_role("button", name="Erase…").click()
        dialog = page.get_by_role("dialog", name="Erase Cy Oh?")
        await expect(dialog.get_by_text("customer:003")).to_be_visible()
        await dialog.get_by_role("button", name="Keep it").click()
        await page.get_by_role("button", name="Erase…").click()
        await dialog.get_by_role("button", name="Erase Cy Oh").click()
        await expect(page.get_by_role("heading", name="Erasure of a person")).to_be_visible()
        await expect(page.locator("main .badge", has_text="Succeeded")).to_be_visible(timeout=30_000)
        await expect(page.locator(".figure", has_text="Second look")).to_contain_text("nothing left")
        await expect(page.locator("tbody tr", has_text="people").first).to_contain_text("1")
        await page.reload()
        await expect(page.locator(".figure", has_text="Second look")).to_contain_text("nothing left")
        await page.get_by_role("link", name="← People").click()
        await expect(page.get_by_role("link", name="customer:001")).to_be_visible()
        await expect(page.get_by_role("link", name="customer:003")).to_have_count(0)
        await page.get_by_role("link", name="Erasures").click()
        await expect(page.locator("tbody tr")).to_have_text([re.compile("^Erasure of a personSucceeded")])
        await page.get_by_role("button", name="Kind").click()
        await page.get_by_role("option", name="Evaluations").click()
        await expect(page.locator("tbody tr")).to_have_text([re.compile("^GrownSucceeded")])

"""The workplace where data and addresses are not as usual: odd names, links to nothing, two editors, no room."""

import pytest
from playwright.async_api import Browser, Page, expect

from app.api.global_ids import global_id
from tests.end_to_end.conftest import RunningServer
from tests.end_to_end.test_workplace import replace, wait_for_job, watched
from tests.support.browser import workplace
from tests.support.client import Gateway

pytestmark = [pytest.mark.timeout(240), pytest.mark.asyncio(loop_scope="session")]

PEOPLE = """customer,first name,a.tick`,مدينة
001,Ann,1,الرياض
002,Bob,2,الرياض
""".encode()


@pytest.fixture(scope="session")
def audience(running_server: RunningServer) -> str:
    """One of two people whose fields have odd names, in the sandbox `edges`, evaluated."""
    gateway = Gateway(running_server.url, "edges")
    gateway.upload(gateway.create_dataset("people", "PROFILE", "customer"), "people.csv", PEOPLE, "CSV")
    audience = gateway.define("שלום", "`first name`.isNotNull()")
    wait_for_job(gateway, gateway.start_job())
    return audience


async def settled(page: Page) -> None:
    await expect(page.get_by_label("Loading")).to_have_count(0)


async def test_an_address_that_names_nothing_is_as_if_it_named_none(
    running_server: RunningServer, browser: Browser, audience: str
) -> None:
    url, rows = running_server.url, {"/audiences": 1, "/jobs": 1, f"/audiences/{audience}/members": 2}
    async with watched(browser, url, "edges") as seen:
        for address in (
            "/audiences?state=LOST&sort=lost.up",
            "/jobs?status=LOST&kind=LOST",
            f"/audiences/{audience}/members?status=LOST&at=yesterday",
        ):
            await seen.go(url + address)
            await expect(seen.page.locator("main tbody tr"), address).to_have_count(rows[address.partition("?")[0]])
        await seen.go(f"{url}/exports?status=LOST")
        await expect(seen.page.get_by_text("No exports yet")).to_be_visible()
        await seen.go(f"{url}/audiences?folder=lost")
        await expect(seen.page.get_by_text("There is no such folder")).to_be_visible()


async def test_fields_with_any_name_are_shown_ordered_and_counted(
    running_server: RunningServer, browser: Browser, audience: str
) -> None:
    url = running_server.url
    async with watched(browser, url, "edges", width=1700) as seen:
        page = seen.page
        await seen.go(f"{url}/audiences/{audience}/members")
        for name, values in (("first name", ["Ann", "Bob"]), ("a.tick`", ["1", "2"])):
            await page.get_by_role("button", name=name, exact=True).click()
            column = page.get_by_role("columnheader", name=name)
            await expect(column).to_have_attribute("aria-sort", "ascending")
            place = await column.evaluate("cell => cell.cellIndex + 1")
            await expect(page.locator(f"tbody td:nth-child({place})")).to_have_text(values)
        await page.get_by_role("button", name="Columns").click()
        await page.get_by_role("dialog").get_by_text("customer", exact=True).click()
        await page.reload()
        await expect(page.get_by_role("columnheader")).to_have_text(
            ["Person", "first name", "a.tick` ↑", "مدينة", "Status", "Qualified"]
        )
        await seen.go(f"{url}/audiences/{audience}/numbers")
        await expect(page.get_by_role("region", name="`first name`")).to_contain_text("From Ann to Bob.")


async def test_an_expression_names_the_audiences_to_which_it_refers(
    running_server: RunningServer, browser: Browser
) -> None:
    url, gateway = running_server.url, Gateway(running_server.url, "edges-refers")
    gateway.upload(gateway.create_dataset("people", "PROFILE", "customer"), "people.csv", PEOPLE, "CSV")
    first, second = gateway.define("שלום", "customer.isNotNull()"), gateway.define("Named", 'customer = "001"')
    both = gateway.define("Both", f'inSegment("{first}") and inSegment("{second}")')
    async with watched(browser, url, "edges-refers") as seen:
        await seen.go(f"{url}/audiences/{both}")
        await expect(seen.page.get_by_text("Refers to Named, שלום.")).to_be_visible()
        await seen.page.get_by_role("link", name="Named").click()
        await expect(seen.page.get_by_role("heading", name="Named")).to_be_visible()


async def test_of_two_who_edit_an_audience_the_second_chooses(running_server: RunningServer, browser: Browser) -> None:
    url, gateway = running_server.url, Gateway(running_server.url, "edges-two")
    gateway.upload(gateway.create_dataset("people", "PROFILE", "customer"), "people.csv", PEOPLE, "CSV")
    audience = gateway.define("Both", "customer.isNotNull()")
    async with watched(browser, url, "edges-two") as seen:
        page, description = seen.page, seen.page.get_by_label("Description")
        await seen.go(f"{url}/audiences/{audience}/edit")
        for turn, choice in enumerate(("Discard mine, show theirs", "Save mine over theirs")):
            await description.fill(f"mine {turn}")
            change = "mutation ($input: UpdateAudienceInput!) { updateAudience(input: $input) { errors { message } } }"
            gateway.query(change, input={"id": audience, "description": f"theirs {turn}"})
            await page.get_by_role("button", name="Save", exact=True).click()
            await expect(page.get_by_text("Somebody else has saved this audience")).to_be_visible()
            if turn == 0:
                await page.get_by_role("link", name="Jobs", exact=True).click()
                await page.get_by_role("button", name="Stay").click()
                await expect(description).to_have_value("mine 0")
            await page.get_by_role("button", name=choice).click()
            if turn == 0:
                await expect(description).to_have_value("theirs 0")
        await expect(page.locator(".head .about")).to_contain_text("mine 1")
        await page.get_by_role("link", name="Edit").click()
        await description.fill("lost")
        await page.get_by_role("link", name="Jobs", exact=True).click()
        await page.get_by_role("button", name="Leave").click()
        await expect(page.get_by_role("heading", name="Jobs", exact=True)).to_be_visible()


async def test_where_there_is_little_room_everything_is_still_reached_and_read(
    running_server: RunningServer, browser: Browser, audience: str
) -> None:
    url = running_server.url
    async with watched(browser, url, "edges", width=360) as seen:
        page = seen.page
        await seen.go(f"{url}/audiences/{audience}/use")
        await expect(page.locator(".tabs [data-status=active]")).to_be_in_viewport(ratio=0.9)
        await seen.go(f"{url}/audiences/{audience}/members")
        await settled(page)
        fields = await page.locator("main input").evaluate_all("all => all.map(each => each.offsetWidth)")
        assert min(fields) >= 200
        await seen.go(f"{url}/people")
        fields = await page.locator("main input").evaluate_all("all => all.map(each => each.offsetWidth)")
        assert min(fields) >= 150
        await page.get_by_role("button", name="Navigation").click()
        await page.get_by_role("link", name="Data", exact=True).click()
        await page.get_by_role("link", name="people").click()
        # The number stands behind its value, though that is written from right to left.
        chip = page.locator(".label-tag", has_text="الرياض")
        await chip.wait_for()
        assert await chip.locator("bdi").evaluate(
            "value => value.getBoundingClientRect().right <= value.nextElementSibling.getBoundingClientRect().left"
        )


async def test_a_state_is_looked_for_beyond_the_first_page_of_a_search(
    running_server: RunningServer, browser: Browser
) -> None:
    url, gateway = running_server.url, Gateway(running_server.url, "edges-search")
    create = """mutation ($input: CreateAudienceInput!) {
      createAudience(input: $input) { audience { name } errors { message } } }"""
    for number in range(51):
        state, name = ("PUBLISHED", f"Big {number}") if number < 50 else ("DRAFT", "Big last")
        input_ = {"name": name, "type": "SEGMENT_DEFINITION", "lifecycleState": state}
        payload = gateway.query(create, input={**input_, "expression": f"xEvent.count() > {number}"})["createAudience"]
        assert payload["errors"] == []
    async with watched(browser, url, "edges-search") as seen:
        await seen.go(f"{url}/audiences?q=big&state=DRAFT")
        await expect(seen.page.get_by_text("Nothing matches")).to_be_visible()
        await seen.page.get_by_role("button", name="Load more").click()
        await expect(seen.page.locator("main tbody tr")).to_have_count(1)
        await expect(seen.page.locator("main tbody tr")).to_contain_text("Big last")


LONGEST = (
    "x" * 200,
    "\N{GRINNING FACE}" * 60,
    "\u05e9\u05dc\u05d5\u05dd " * 30 + "end",
    "<script>document.title = 'mine'</script>",
)
VIEWS = ("", "/members", "/numbers", "/history", "/overlap", "/use", "/edit")
VISIT = b'{"customer": "001", "at": "2024-01-05", "items": [{"sku": "a"}]}'


async def test_the_longest_and_oddest_names_fit_a_window_of_320_pixels(
    running_server: RunningServer, browser: Browser
) -> None:
    url, gateway = running_server.url, Gateway(running_server.url, "edges-names")
    people = PEOPLE.replace(b"first name", b"k" * 150)
    gateway.upload(gateway.create_dataset("people", "PROFILE", "customer"), "people.csv", people, "CSV")
    gateway.upload(gateway.create_dataset("visits", "EVENT", "customer", "at"), "v.ndjson", VISIT, "NDJSON")
    audiences = [
        gateway.define(name, f'customer != "{index}" and xEvent.count() = 1') for index, name in enumerate(LONGEST)
    ]
    wait_for_job(gateway, gateway.start_job())
    async with watched(browser, url, "edges-names", width=320) as seen:
        for audience, name in zip(audiences, LONGEST, strict=True):
            # All views of the first; of each other the head, which is the same in all of them.
            for view in VIEWS if audience == audiences[0] else ("",):
                await seen.go(f"{url}/audiences/{audience}{view}")
                await settled(seen.page)
                assert await inner_overflow(seen.page) == 0, view
            assert name in await seen.page.title()
        await expect(seen.page.locator(".head .about")).to_contain_text("1 person, counted")
        await seen.go(f"{url}/audiences/new")
        await replace(seen.page, 'customer != "0" and xEvent.count() = 1')
        await expect(seen.page.get_by_label("Problems")).to_contain_text(f"equivalent to '{LONGEST[0]}'")
        assert await inner_overflow(seen.page) == 0
        await seen.go(f"{url}/people/customer:001")
        await settled(seen.page)
        assert await inner_overflow(seen.page) == 0
        values = await seen.page.locator(".facts dd").evaluate_all("all => all.map(each => each.offsetWidth)")
        assert min(values) >= 100
        await expect(seen.page.get_by_role("heading", name="1 event")).to_be_visible()
        await expect(seen.page.locator(".timeline .brief")).to_have_text("items: 1")


async def inner_overflow(page: Page) -> int:
    """By how many pixels something is wider than the view, which scrolls by itself."""
    wider: int = await page.locator("main").evaluate("main => main.scrollWidth - main.clientWidth")
    return wider


async def test_an_overlap_says_which_audiences_of_its_address_there_are_not(
    running_server: RunningServer, browser: Browser, audience: str
) -> None:
    gateway = Gateway(running_server.url, "edges")
    nodes = gateway.query("{ datasets { nodes { id } } audiences { nodes { id } } }")
    (dataset,), (own,) = (nodes[kind]["nodes"] for kind in ("datasets", "audiences"))
    removed = global_id("Audience", "removed")
    names = [own["id"], removed, dataset["id"], "<b>", removed]
    async with watched(browser, running_server.url, "edges") as seen:
        page, note = seen.page, seen.page.get_by_role("status").filter(has_text="Left out")
        await seen.go(f"{running_server.url}/audiences/{audience}/overlap?with={'+'.join(names)}")
        await expect(note.locator("code")).to_have_text([clipped(removed), clipped(dataset["id"]), "<b>"])
        await note.get_by_role("button", name="Take out of the address").click()
        await expect(note).to_have_count(0)
        assert page.url.endswith("/overlap")


def clipped(id_: str) -> str:
    return id_ if len(id_) <= 22 else f"{id_[:21]}…"


DELETE = "mutation ($id: ID!) { deleteAudience(input: {id: $id}) { errors { message } } }"


async def test_what_is_written_outlives_the_audience_that_somebody_else_deletes(
    running_server: RunningServer, browser: Browser
) -> None:
    url, gateway = running_server.url, Gateway(running_server.url, "edges-deleted")
    viewed, edited = (gateway.define(name, f"xEvent.count() = {len(name)}") for name in ("Viewed", "Edit"))
    async with watched(browser, url, "edges-deleted") as seen:
        page = seen.page
        async with page.expect_websocket() as opened:
            await seen.go(f"{url}/audiences/{viewed}")
        while not any("audienceUpdated" in str(frame) for frame in seen.frames):
            await (await opened.value).wait_for_event("framereceived")
        gateway.query(DELETE, id=viewed)
        await expect(page.get_by_text("There is no such audience")).to_be_visible()
        await seen.go(f"{url}/audiences/{edited}/edit")
        await page.get_by_label("Description").fill("mine")
        gateway.query(DELETE, id=edited)
        await page.get_by_role("button", name="Save", exact=True).click()
        await expect(page.get_by_text("Somebody else has deleted this audience")).to_be_visible()
        await page.get_by_role("button", name="Create it anew").click()
        await expect(page.get_by_role("heading", name="Edit", exact=True)).to_be_visible()
        await expect(page.locator(".head .about")).to_contain_text("mine")
        assert edited not in page.url


async def test_what_is_written_outlives_the_key_of_who_writes(running_server: RunningServer, browser: Browser) -> None:
    url, gateway = running_server.url, Gateway(running_server.url, "edges-key")
    audience = gateway.define("Kept", "xEvent.count() = 1")
    others = gateway.query(keys := "{ apiKeys { nodes { id } } }")["apiKeys"]["nodes"]
    first = gateway.create_key("read", "write")
    (key,) = (each for each in gateway.query(keys)["apiKeys"]["nodes"] if each not in others)
    second = gateway.create_key("read", "write")
    async with workplace(browser, "edges-key", key=first) as seen:  # a refused key is a 401, noted on the console
        page, description = seen.page, seen.page.get_by_label("Description")
        await seen.go(f"{url}/audiences/{audience}/edit")
        await description.fill("mine")
        # What is written has been checked before the server is lost.
        await expect(page.get_by_role("button", name="Save", exact=True)).to_be_enabled()
        for address in ("**/graphql", "**/health/*"):
            await page.route(address, lambda route: route.abort("connectionrefused"))
        await page.get_by_role("button", name="Save", exact=True).click()
        await expect(page.get_by_text("The server does not answer, lost")).to_be_visible()
        gateway.query("mutation ($id: ID!) { revokeApiKey(id: $id) { errors { message } } }", id=key["id"])
        await page.unroute_all()
        await page.get_by_role("button", name="Sign in").click()
        dialog = page.get_by_role("dialog")
        await dialog.get_by_label("API key").fill("wrong")
        await dialog.get_by_role("button", name="Use these").click()
        await expect(dialog.get_by_role("alert")).to_contain_text("key")
        await dialog.get_by_label("API key").fill(second)
        await dialog.get_by_role("button", name="Use these").click()
        await expect(dialog).to_have_count(0)
        await expect(page.get_by_role("button", name="Sign in")).to_have_count(0)
        await expect(description).to_have_value("mine")
        await page.get_by_role("button", name="Save", exact=True).click()
        await expect(page.locator(".head .about")).to_contain_text("mine")

"""What the workplace weighs and how soon it is there: `python -m tests.benchmarks.page URL` of a running server.

For a first visit and for one with a filled cache: bytes over the network, responses, and milliseconds until the first
row of the audiences, in headless Chromium; then the same for the editor, which brings Monaco.
"""

import asyncio
import sys
import time

from playwright.async_api import Browser, BrowserContext

from tests.support.browser import launched

VIEWS = {"audiences": ("/audiences", "main tbody tr"), "editor": ("/audiences/new", ".pql .monaco-editor .view-lines")}


async def visit(context: BrowserContext, url: str, shown: str) -> tuple[int, int, float]:
    """Bytes and number of the responses, and milliseconds until `shown` is there."""
    page = await context.new_page()
    session = await context.new_cdp_session(page)
    await session.send("Network.enable")
    sizes: list[float] = []
    session.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    began = time.perf_counter()
    await page.goto(url)
    await page.locator(shown).first.wait_for()
    took = time.perf_counter() - began
    await page.close()
    return int(sum(sizes)), len(sizes), 1_000 * took


async def measure(browser: Browser, url: str) -> None:
    for name, (address, shown) in VIEWS.items():
        context = await browser.new_context(viewport={"width": 1280, "height": 800})
        for visited in ("first visit", "again"):
            size, requests, took = await visit(context, url + address, shown)
            print(f"{name:10} {visited:12} {size:>10,} bytes {requests:>4} responses {took:>7,.0f} ms")
        await context.close()


async def main(url: str) -> None:
    async with launched() as browser:
        await measure(browser, url)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1].rstrip("/")))

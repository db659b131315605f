"""Chromium with our pages in it: opens them, records every address they ask for and every problem they report."""

import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from playwright.async_api import Browser, ConsoleMessage, Page, Request, WebSocket, async_playwright

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def chromium() -> str | None:
    """Path of the Chromium of this machine."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@dataclass
class WatchedPage:
    """A page, and what it did: addresses asked for, problems on its console, frames received by WebSocket."""

    page: Page
    addresses: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    frames: list[dict[str, Any]] = field(default_factory=list)

    def watch(self) -> None:
        def asked(request: Request) -> None:
            self.addresses.append(request.url)

        def said(message: ConsoleMessage) -> None:
            if message.type in {"error", "warning"}:
                self.problems.append(message.text)

        def connected(socket: WebSocket) -> None:
            self.addresses.append(socket.url)
            socket.on("framereceived", lambda text: self.frames.append(json.loads(text)))

        self.page.context.on("request", asked)
        self.page.on("websocket", connected)
        self.page.on("console", said)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))


@dataclass
class GraphiQL(WatchedPage):
    """The page at `/graphql`."""

    async def open(self, url: str) -> None:
        """Loads the page and waits until it knows the schema."""
        await self.page.goto(f"{url}/graphql")
        await self.page.locator(".graphiql-query-editor .monaco-editor .view-lines").first.wait_for()
        await self.page.get_by_label("Re-fetch GraphQL schema").and_(self.page.locator(":enabled")).wait_for()

    async def query(self) -> str:
        """The text of the query editor, as far as it is on the screen."""
        return await self._lines(".graphiql-query-editor")

    async def run(self, name: str, operation: str, expected: str) -> dict[str, Any]:
        """Types an operation of this name, runs it by Ctrl+Enter; the response as soon as it contains `expected`."""
        await self.write(name, operation)
        await self.page.keyboard.press("ControlOrMeta+Enter")
        await self.page.locator(".result-window .view-lines", has_text=expected).wait_for()
        response: dict[str, Any] = json.loads(await self._lines(".result-window"))
        return response

    async def write(self, name: str, operation: str) -> None:
        """Types an operation of this name in the place of what the editor has."""
        await self.page.locator(".graphiql-query-editor .monaco-editor").click()
        await self.page.keyboard.press("ControlOrMeta+a")
        await self.page.keyboard.insert_text(operation)
        # GraphiQL reads the document a tenth of a second after the last key, then names the tab after the operation.
        await self.page.locator(".graphiql-tab-active", has_text=name).wait_for()

    async def _lines(self, editor: str) -> str:
        """Monaco keeps the lines in any order in the document, each at its height, with hard spaces."""
        lines: list[str] = await self.page.locator(f"{editor} .view-line").evaluate_all(
            """lines => lines.map(line => [parseFloat(line.style.top), line.textContent])
                             .sort((a, b) => a[0] - b[0]).map(line => line[1])"""
        )
        return "\n".join(lines).replace("\N{NO-BREAK SPACE}", " ")


@dataclass
class Workplace(WatchedPage):
    """The page at `/`, in one sandbox."""

    async def go(self, url: str) -> None:
        """Loads an address and waits for its heading."""
        await self.page.goto(url)
        await self.page.locator("main h1").wait_for()

    async def violations(self, axe: str) -> list[str]:
        """What `axe` (its source) finds against WCAG 2.1 A and AA: rule and the first elements."""
        if not await self.page.evaluate("'axe' in window"):
            await self.page.evaluate(axe)
        # Colours in the middle of a transition are none of the page's. A live job's dot pulses for ever.
        await self.page.evaluate(
            """Promise.all(document.getAnimations().filter(each => each.effect.getComputedTiming().endTime < Infinity)
                 .map(each => each.finished.catch(() => {})))"""
        )
        found: list[str] = await self.page.evaluate(
            """async () => (await axe.run(document, {
                 runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa'],
               })).violations.map(rule => rule.id + ': ' + rule.nodes.slice(0, 3).map(
                 node => node.target.join(' ') + ' ' + node.failureSummary).join(' | '))"""
        )
        return found

    async def overflow(self) -> int:
        """By how many pixels the page is wider than its window."""
        wider: int = await self.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        return wider


@asynccontextmanager
async def launched() -> AsyncIterator[Browser]:
    """A fresh Chromium without profile; to be shared by tests, since to start one takes longer than most of them."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def workplace(
    browser: Browser, sandbox: str, width: int = 1280, height: int = 800, dark: bool = False, key: str | None = None
) -> AsyncIterator[Workplace]:
    """A fresh window in which the workplace asks for `sandbox`, by an API key if one is given; nothing of others' is
    stored there."""
    context = await browser.new_context(
        viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
    )
    try:
        identity = json.dumps({"sandbox": sandbox, "apiKey": key})
        await context.add_init_script(f"sessionStorage.setItem('segmentation:identity', {json.dumps(identity)})")
        seen = Workplace(await context.new_page())
        seen.watch()
        yield seen
    finally:
        await context.close()


@asynccontextmanager
async def graphiql(browser: Browser, url: str, width: int = 1280, height: int = 720) -> AsyncIterator[GraphiQL]:
    """A fresh window, without cache, on the page of the server at `url`."""
    context = await browser.new_context(viewport={"width": width, "height": height})
    try:
        seen = GraphiQL(await context.new_page())
        seen.watch()
        await seen.open(url)
        yield seen
    finally:
        await context.close()

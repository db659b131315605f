"""Takes the README's pictures from a running demo: `python -m tests.support.screenshot http://127.0.0.1:8000`."""

import asyncio
import sys
from pathlib import Path

from tests.support.browser import graphiql, workplace

PICTURE = Path(__file__).parents[2] / "app" / "web" / "graphiql.png"
WORKPLACE_PICTURE = PICTURE.with_name("workplace.png")
# On one line, since the editor indents and closes brackets by itself as one types; GraphiQL then lays it out.
OPERATION = (
    "query Audiences { segmentDefinitions(first: 2) { totalCount nodes { name version "
    "audience { metrics { totalProfiles } } } } }"
)


async def take(url: str) -> None:
    async with graphiql(url, width=1200, height=760) as seen:
        await seen.run("Audiences", OPERATION, "totalProfiles")
        await seen.page.get_by_label("Prettify query").click()
        await seen.page.mouse.move(600, 750)
        await seen.page.wait_for_timeout(1_000)
        await seen.page.screenshot(path=PICTURE)
    async with workplace("prod", width=1280, height=800) as work:
        await work.go(f"{url}/audiences?sort=size.desc")
        await work.page.get_by_role("row").nth(3).wait_for()
        await work.page.screenshot(path=WORKPLACE_PICTURE)
    for picture in (PICTURE, WORKPLACE_PICTURE):
        print(f"{picture}: {picture.stat().st_size:,} bytes")


if __name__ == "__main__":
    asyncio.run(take(sys.argv[1]))

"""Serves the pages of `app/docs` as HTML at `/docs`, readable without scripts and without other hosts."""

import html
import re
from functools import cache
from pathlib import Path
from string import Template

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

PAGES = Path(__file__).parents[2] / "docs"

ORDER = (
    "language", "data", "audiences", "insight", "jobs", "exports", "clients",
    "production", "spark", "security", "architecture", "contributing", "changelog",
)  # fmt: skip
"""The pages in menu order; pages not listed here come last."""

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "cache-control": "no-cache",
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def documentation_routes() -> list[BaseRoute]:
    """`/docs` (the first page), one route per page and notebook, and the style sheet."""
    return [
        Route("/docs", lambda _request: RedirectResponse(f"/docs/{page_names()[0]}")),
        Route("/docs/style.css", style),
        Route("/docs/images/{name}", image),
        Route("/docs/{name}.ipynb", notebook),
        Route("/docs/{name}", page),
    ]


async def page(request: Request) -> Response:
    """A page, or 404. Links between pages may include the `.md` suffix."""
    name = request.path_params["name"]
    if name.removesuffix(".md") not in page_names():
        raise HTTPException(404)
    if name.endswith(".md"):
        return RedirectResponse(f"/docs/{name.removesuffix('.md')}")
    return HTMLResponse(rendered(name), headers=HEADERS)


async def style(_request: Request) -> Response:
    return Response(style_sheet(), media_type="text/css", headers=HEADERS)


async def image(request: Request) -> Response:
    """A picture of a page; only PNG files directly in the folder `images` are served."""
    path = PAGES / "images" / request.path_params["name"]
    if path.parent != PAGES / "images" or path.suffix != ".png" or not path.is_file():
        raise HTTPException(404)
    return Response(path.read_bytes(), media_type="image/png", headers=HEADERS)


async def notebook(request: Request) -> Response:
    """A notebook to download and open in Jupyter."""
    path = PAGES / f"{request.path_params['name']}.ipynb"
    if path not in PAGES.glob("*.ipynb"):
        raise HTTPException(404)
    return Response(path.read_bytes(), media_type="application/x-ipynb+json", headers=HEADERS)


@cache
def page_names() -> tuple[str, ...]:
    """The names of all pages without suffix, in menu order."""
    names = {path.stem for path in PAGES.glob("*.md")}
    return (*(name for name in ORDER if name in names), *sorted(names - {*ORDER}))


@cache
def title_of(name: str) -> str:
    """The first heading of a page."""
    return (PAGES / f"{name}.md").read_text(encoding="utf-8").split("\n", 1)[0].removeprefix("# ")


@cache
def rendered(name: str) -> str:
    """A page as a complete HTML document."""
    links = []
    for other in page_names():
        current = " aria-current=page" if other == name else ""
        links.append(f'<li><a href="/docs/{other}"{current}>{html.escape(title_of(other))}</a></li>')
    return Template((PAGES / "page.html").read_text(encoding="utf-8")).substitute(
        title=html.escape(title_of(name)),
        menu="".join(links),
        body=markdown_as_html((PAGES / f"{name}.md").read_text(encoding="utf-8")),
    )


def markdown_as_html(text: str) -> str:
    """CommonMark with tables. Headings get anchors, code is highlighted, and a ```layers block becomes a picture."""
    from markdown_it import MarkdownIt
    from mdit_py_plugins.anchors import anchors_plugin

    # `html` is allowed because the pages are our own; they fold long listings with <details>.
    renderer = MarkdownIt("commonmark", {"html": True, "highlight": _highlighted}).enable("table")
    return str(renderer.use(anchors_plugin, max_level=3).render(text))


def _highlighted(code: str, language: str, _attributes: str) -> str:
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import get_lexer_by_name
    from pygments.util import ClassNotFound

    if language == "layers":
        return f"<pre class=picture>{layers_as_svg(code)}</pre>"
    try:
        lexer = get_lexer_by_name(language)
    except ClassNotFound:
        return ""
    return f"<pre><code>{highlight(code, lexer, HtmlFormatter(nowrap=True))}</code></pre>"


def layers_as_svg(text: str, width: int = 720, height: int = 44, gap: int = 22) -> str:
    """Rows of boxes, each row on the one below it: lines are rows, and ` | ` separates the boxes of a row.

    >>> layers_as_svg("api | worker\\nservices").count("<rect")
    3
    """
    rows = [re.split(r"\s*\|\s*", line.strip()) for line in text.strip().splitlines()]
    shapes = []
    for depth, row in enumerate(rows):
        top, box = depth * (height + gap), (width - gap * (len(row) - 1)) / len(row)
        for at, label in enumerate(row):
            x = at * (box + gap)
            middle = x + box / 2
            shapes.append(f'<rect x="{x:g}" y="{top}" width="{box:g}" height="{height}" rx="6"/>')
            shapes.append(f'<text x="{middle:g}" y="{top + height / 2:g}">{html.escape(label)}</text>')
        if depth:
            shapes.append(f'<path d="M{width / 2:g} {top - gap + 2} v{gap - 6} m-4 -5 l4 5 l4 -5"/>')
    total = len(rows) * (height + gap) - gap
    described = html.escape("; below it: ".join(", ".join(row) for row in rows))
    return f'<svg viewBox="-1 -1 {width + 2} {total + 2}" role="img" aria-label="{described}">{"".join(shapes)}</svg>'


@cache
def style_sheet() -> str:
    """The style of the pages, with code colours for light and dark mode."""
    from pygments.formatters import HtmlFormatter

    light = HtmlFormatter(style="friendly").get_style_defs("code")
    dark = HtmlFormatter(style="github-dark").get_style_defs("code")
    own = (PAGES / "style.css").read_text(encoding="utf-8")
    return f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n{own}"

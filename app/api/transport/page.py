"""Serves the built pages (the workplace and GraphiQL) and their files; knows no GraphQL."""

from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

BUILT = Path(__file__).parents[2] / "web" / "dist"
"""The folder to which the package's build writes the pages."""

WORKPLACE, GRAPHIQL = "index.html", "graphql.html"

SECTIONS = ("audiences", "jobs", "schedules", "exports", "data", "people", "erasures")
"""First path segments of the workplace's addresses. The page itself distinguishes them
(`app/web/src/work/router.tsx`)."""

ASSETS = "graphql/assets"

# Monaco writes style elements, hence 'unsafe-inline' there; no script, worker, font or request from elsewhere.
# For connections 'self' covers WebSockets of the same host and port.
CONTENT_SECURITY_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "worker-src 'self'",
        "style-src 'self' 'unsafe-inline'",
        "font-src 'self' data:",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)

# Explicit, because browsers reject a module script with a wrong type, and the machine's own type table may differ.
CONTENT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".ttf": "font/ttf",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
}


def missing_reason(built: Path = BUILT) -> str | None:
    """Why the pages are missing, for the log and the browser; None if they exist."""
    if all((built / name).is_file() for name in (WORKPLACE, GRAPHIQL)):
        return None
    noted = built / "not-built.txt"
    reason = (
        noted.read_text(encoding="utf-8")
        if noted.is_file()
        else "The package was not built here, or built without its pages."
    )
    return (
        f"{reason}\nTo build the pages, run `pip install .` in the source tree with a network to the npm registry "
        "(node itself comes with the build), then restart the server."
    )


def page_response(name: str, built: Path = BUILT, depth: int = 0) -> Response:
    """The page in the file `name`, or 503 with the reason why it is missing.

    `depth` is the number of folders in its address: the page references its files relative to the server's root, which
    may be under a prefix that only a proxy knows.
    """
    headers = {"cache-control": "no-cache", "vary": "accept", "x-content-type-options": "nosniff"}
    if reason := missing_reason(built):
        text = f"This page is not available on this server. The GraphQL API at /graphql works.\n\n{reason}\n"
        return PlainTextResponse(text, status_code=503, headers=headers)
    html = (built / name).read_text(encoding="utf-8").replace(f"./{ASSETS}/", f"{'../' * depth or './'}{ASSETS}/")
    return HTMLResponse(
        html, headers=headers | {"content-security-policy": CONTENT_SECURITY_POLICY, "referrer-policy": "no-referrer"}
    )


def workplace_routes(built: Path = BUILT) -> list[BaseRoute]:
    """Serves the workplace at `/` and at every address of its views, so that links and reloads work."""

    async def workplace(request: Request) -> Response:
        # Like in browsers, an encoded slash (%2F) does not separate segments.
        return page_response(WORKPLACE, built, depth=request.scope["raw_path"].count(b"/") - 1)

    sections = [path for name in SECTIONS for path in (f"/{name}", f"/{name}/{{rest:path}}")]
    return [Route(path, workplace, methods=["GET"], name="workplace") for path in ("/", *sections)]


def asset_routes(built: Path = BUILT) -> list[BaseRoute]:
    """Routes of the pages' scripts, styles and fonts, under `/graphql/assets/`."""
    folder = built / ASSETS

    async def asset(request: Request) -> Response:
        # The route takes one path segment, so `name` contains no slash, and only files directly in the folder are
        # served.
        path = folder / request.path_params["name"]
        if path.parent != folder or path.suffix not in CONTENT_TYPES or not path.is_file():
            raise HTTPException(404)
        # File names contain a hash of the content. Workers use the policy of their own response.
        headers = {
            "cache-control": "public, max-age=31536000, immutable",
            "content-security-policy": CONTENT_SECURITY_POLICY,
            "x-content-type-options": "nosniff",
        }
        return FileResponse(path, headers=headers, media_type=CONTENT_TYPES[path.suffix])

    return [Route(f"/{ASSETS}/{{name}}", asset, name="page_asset")]

"""Serves the built GraphiQL page and its files; it knows where they lie, and nothing of GraphQL."""

from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

BUILT = Path(__file__).parents[2] / "web" / "dist"
"""Where the package's build puts the page."""

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

# Not left to the machine's own table of types: browsers refuse a module script of another type.
CONTENT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".ttf": "font/ttf",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
}


def missing_reason(built: Path = BUILT) -> str | None:
    """Why there is no page, in sentences for the log and the browser; None when there is one."""
    if (built / "index.html").is_file():
        return None
    noted = built / "not-built.txt"
    reason = (
        noted.read_text(encoding="utf-8")
        if noted.is_file()
        else "The package was not built here, or built without its page."
    )
    return (
        f"{reason}\nTo build the page, run `pip install .` in the source tree with a network to the npm registry "
        "(node itself comes with the build), then restart the server."
    )


def graphiql_response(built: Path = BUILT) -> Response:
    """The page, or 503 with the reason why it is not there."""
    headers = {"cache-control": "no-cache", "vary": "accept", "x-content-type-options": "nosniff"}
    if reason := missing_reason(built):
        text = f"GraphiQL is not available on this server. The GraphQL API at this address works.\n\n{reason}\n"
        return PlainTextResponse(text, status_code=503, headers=headers)
    return HTMLResponse(
        (built / "index.html").read_bytes(),
        headers=headers | {"content-security-policy": CONTENT_SECURITY_POLICY, "referrer-policy": "no-referrer"},
    )


def asset_routes(built: Path = BUILT) -> list[BaseRoute]:
    """Routes of the page's scripts, styles and fonts, under `/graphql/assets/`."""
    folder = built / ASSETS

    async def asset(request: Request) -> Response:
        # The route takes one path segment, so that `name` holds no slash; only files right in the folder are served.
        path = folder / request.path_params["name"]
        if path.parent != folder or path.suffix not in CONTENT_TYPES or not path.is_file():
            raise HTTPException(404)
        # The names carry a hash of the content. Workers take the policy of their own response.
        headers = {
            "cache-control": "public, max-age=31536000, immutable",
            "content-security-policy": CONTENT_SECURITY_POLICY,
            "x-content-type-options": "nosniff",
        }
        return FileResponse(path, headers=headers, media_type=CONTENT_TYPES[path.suffix])

    return [Route(f"/{ASSETS}/{{name}}", asset, name="graphiql_asset")]

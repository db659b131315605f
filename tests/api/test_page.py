"""The pages: their headers, their files, and what there is instead when they were not built."""

import re
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from app.api.transport.page import SECTIONS, asset_routes, missing_reason, page_response, workplace_routes


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A folder as the build leaves it, with something beside it that must stay private."""
    assets = tmp_path / "dist" / "graphql" / "assets"
    assets.mkdir(parents=True)
    (tmp_path / "dist" / "graphql.html").write_text("<!doctype html><title>page</title>")
    (tmp_path / "dist" / "index.html").write_text(
        '<!doctype html><script src="./graphql/assets/index-1a2b.js"></script>'
    )
    (assets / "index-1a2b.js").write_text("export {}")
    (assets / "index-1a2b.css").write_text("html {}")
    (assets / "codicon-1a2b.ttf").write_bytes(b"\x00\x01")
    (assets / "notes.txt").write_text("not an asset")
    (tmp_path / "dist" / "graphql" / "outside.js").write_text("secret")
    (tmp_path / "outside.js").write_text("secret")
    return tmp_path / "dist"


@pytest.fixture
def client(built: Path) -> TestClient:
    return TestClient(Starlette(routes=[*asset_routes(built), *workplace_routes(built)]))


def test_the_page_allows_nothing_from_elsewhere(built: Path) -> None:
    response = page_response("graphql.html", built)

    assert missing_reason(built) is None
    assert (response.status_code, response.body) == (200, b"<!doctype html><title>page</title>")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["content-security-policy"] == (
        "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self' 'unsafe-inline'; "
        "font-src 'self' data:; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["vary"] == "accept"


@pytest.mark.parametrize(
    ("name", "content", "content_type"),
    [
        ("index-1a2b.js", b"export {}", "text/javascript; charset=utf-8"),
        ("index-1a2b.css", b"html {}", "text/css; charset=utf-8"),
        ("codicon-1a2b.ttf", b"\x00\x01", "font/ttf"),
    ],
)
def test_assets_have_their_type_and_are_kept_by_browsers(
    client: TestClient, name: str, content: bytes, content_type: str
) -> None:
    response = client.get(f"/graphql/assets/{name}")

    assert (response.status_code, response.content) == (200, content)
    assert response.headers["content-type"] == content_type
    assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    [
        "none-1a2b.js",
        "notes.txt",
        "..",
        "%2e%2e",
        "../outside.js",
        "..%2foutside.js",
        "%2e%2e%2foutside.js",
        "..%2f..%2f..%2foutside.js",
        "..%5coutside.js",
        "%2fetc%2fpasswd",
        "index-1a2b.js%00",
        "",
    ],
)
def test_nothing_but_the_files_of_the_page_is_served(client: TestClient, path: str) -> None:
    response = client.get(f"/graphql/assets/{path}")

    assert response.status_code == 404
    assert b"secret" not in response.content


def test_a_page_that_was_not_built_says_so_and_what_to_do(tmp_path: Path) -> None:
    reason = missing_reason(tmp_path)
    response = page_response("graphql.html", tmp_path)

    assert reason is not None
    assert reason.splitlines() == [
        "The package was not built here, or built without its pages.",
        "To build the pages, run `pip install .` in the source tree with a network to the npm registry "
        "(node itself comes with the build), then restart the server.",
    ]
    assert response.status_code == 503
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert bytes(response.body).decode() == (
        f"This page is not available on this server. The GraphQL API at /graphql works.\n\n{reason}\n"
    )


def test_the_reason_that_the_build_left_is_shown(tmp_path: Path) -> None:
    (tmp_path / "not-built.txt").write_text("`npm ci` ended with code 1 (ECONNREFUSED).")

    assert (missing_reason(tmp_path) or "").startswith("`npm ci` ended with code 1 (ECONNREFUSED).\nTo build")
    assert b"(ECONNREFUSED)" in bytes(page_response("graphql.html", tmp_path).body)


@pytest.mark.parametrize(
    ("address", "script"),
    [
        ("/", "./graphql/assets/index-1a2b.js"),
        ("/audiences", "./graphql/assets/index-1a2b.js"),
        ("/audiences/a1", "../graphql/assets/index-1a2b.js"),
        ("/audiences/a1/members?columns=name", "../../graphql/assets/index-1a2b.js"),
        ("/people/crm%3Aa%2Fb", "../graphql/assets/index-1a2b.js"),
    ],
)
def test_the_workplace_finds_its_files_from_every_address(client: TestClient, address: str, script: str) -> None:
    response = client.get(address)

    assert response.status_code == 200
    assert response.text == f'<!doctype html><script src="{script}"></script>'
    assert response.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'; ")


@pytest.mark.parametrize("address", ["/nothing", "/audiencesx", "/index.html", "/graphql.html", "/dist/index.html"])
def test_other_addresses_are_not_the_workplace(client: TestClient, address: str) -> None:
    assert client.get(address).status_code == 404


def test_the_server_knows_every_section_of_the_workplace() -> None:
    router = Path(__file__).parents[2] / "app" / "web" / "src" / "work" / "router.tsx"
    paths = re.findall(r"path: '/(\w+)", router.read_text())

    assert set(paths) == set(SECTIONS)

"""The page's build, with a stand-in for npm: when it runs, what it leaves, and that it never fails an install."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

NPM = """
import pathlib, sys
here = pathlib.Path()
with open({log!r}, "a") as log:
    log.write(sys.argv[1] + "\\n")
if (here / "src" / "broken.ts").exists():
    print("npm error code E500")
    sys.exit(3)
if sys.argv[1] == "run":
    (here / "dist").mkdir()
    (here / "dist" / "index.html").write_text((here / "index.html").read_text().upper())
"""


def load_builder() -> ModuleType:
    """The builder is no part of the package `app`: hatchling's hook reads it by its path, and so do we."""
    path = Path(__file__).parents[2] / "app" / "web" / "build_pages.py"
    spec = importlib.util.spec_from_file_location("build_pages", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


pages = load_builder()


@pytest.fixture
def web(tmp_path: Path) -> Path:
    web = tmp_path / "app" / "web"
    (web / "src").mkdir(parents=True)
    (web / "index.html").write_text("page")
    (web / "src" / "main.ts").write_text("1")
    return web


@pytest.fixture
def npm(tmp_path: Path) -> list[str]:
    script = tmp_path / "npm.py"
    script.write_text(NPM.format(log=str(tmp_path / "npm.log")))
    return [sys.executable, str(script)]


def commands(tmp_path: Path) -> list[str]:
    return (tmp_path / "npm.log").read_text().split()


def test_the_page_is_built_once_and_again_when_a_source_changes(web: Path, npm: list[str], tmp_path: Path) -> None:
    assert pages.build_pages(web, npm) is True
    assert (web / "dist" / "index.html").read_text() == "PAGE"
    assert pages.build_pages(web, npm) is False
    assert commands(tmp_path) == ["ci", "run"]
    assert pages.is_current(web)

    (web / "index.html").write_text("other")
    assert not pages.is_current(web)
    assert pages.build_pages(web, npm) is True
    assert (web / "dist" / "index.html").read_text() == "OTHER"
    assert commands(tmp_path) == ["ci", "run", "ci", "run"]


def test_what_is_not_a_source_does_not_count(web: Path, npm: list[str]) -> None:
    pages.build_pages(web, npm)
    (web / "node_modules").mkdir()
    (web / "node_modules" / "index.js").write_text("a developer's own")
    (web / "graphiql.png").write_bytes(b"a picture")

    assert pages.build_pages(web, npm) is False


def test_a_failed_build_says_which_step_and_keeps_the_earlier_page(web: Path, npm: list[str]) -> None:
    pages.build_pages(web, npm)
    (web / "src" / "broken.ts").write_text("")

    with pytest.raises(pages.PagesNotBuilt) as refused:
        pages.build_pages(web, npm)

    assert str(refused.value) == "`npm ci` ended with code 3 (E500)."
    assert refused.value.output == "npm error code E500"
    assert (web / "dist" / "index.html").read_text() == "PAGE"
    pages.note_reason(web / "dist", str(refused.value))
    assert not (web / "dist" / "not-built.txt").exists()


def test_npm_that_does_not_start_is_a_reason_too(web: Path) -> None:
    with pytest.raises(pages.PagesNotBuilt, match=r"^`npm ci` did not start \(No such file or directory\)\.$"):
        pages.build_pages(web, [str(web / "no-npm")])


def test_the_reason_is_left_where_the_server_looks(web: Path) -> None:
    pages.note_reason(web / "dist", "no network")

    assert (web / "dist" / "not-built.txt").read_text() == "no network"


def test_each_step_is_told_as_it_begins_and_nothing_when_the_pages_are_current(web: Path, npm: list[str]) -> None:
    steps: list[str] = []
    pages.build_pages(web, npm, steps.append)
    assert [step.split()[0] for step in steps] == ["Installing", "Building"]

    pages.build_pages(web, npm, steps.append)
    assert len(steps) == 2

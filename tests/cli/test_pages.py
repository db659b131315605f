"""The pages of a checkout: built once, where somebody looks on, and never in the way of the server."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from app.cli.pages import build_if_stale

BUILDER = """
class PagesNotBuilt(Exception):
    pass

def is_current(web):
    return (web / "built").exists()

def node_and_npm():
    return ["npm"]

def build_pages(web, npm, tell):
    if (web / "broken").exists():
        raise PagesNotBuilt("`npm ci` ended with code 1.")
    tell("Installing")
    (web / "built").write_text("")
"""


@pytest.fixture
def web(tmp_path: Path) -> Path:
    (tmp_path / "build_pages.py").write_text(BUILDER)
    return tmp_path


def run(web: Path, *, terminal: bool = True) -> str:
    out = io.StringIO()
    build_if_stale(Console(file=out, force_terminal=terminal, width=200, highlight=False), web)
    return out.getvalue()


def test_stale_pages_are_built_once_and_each_step_is_told(web: Path) -> None:
    assert run(web).splitlines()[-1] == "Installing"
    assert run(web) == ""


def test_nothing_is_built_in_the_background_or_from_a_wheel(web: Path) -> None:
    assert run(web, terminal=False) == ""
    assert not (web / "built").exists()
    (web / "build_pages.py").unlink()
    assert run(web) == ""


def test_a_build_that_fails_holds_up_nothing(web: Path) -> None:
    (web / "broken").write_text("")
    assert "everything else works. `npm ci` ended with code 1." in run(web)

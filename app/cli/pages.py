"""The web pages of a source checkout: built if missing or older than their sources."""

import importlib.util
from pathlib import Path
from typing import Any

from rich.console import Console

import app

WEB = Path(app.__file__).parent / "web"
BUILDER = "build_pages.py"


def build_if_stale(console: Console, web: Path = WEB) -> None:
    """Builds the pages of a checkout and prints each step; a wheel contains them, without a builder.

    Only builds on an interactive terminal, so that background processes are not delayed by half a minute.
    """
    if not console.is_terminal or not (web / BUILDER).is_file():
        return
    pages = _load(web / BUILDER)
    if pages.is_current(web):
        return
    console.print("The web pages are missing or older than their sources. This happens once.")
    try:
        pages.build_pages(web, pages.node_and_npm(), console.print)
    except pages.PagesNotBuilt as error:
        console.print(f"The web pages were not built; everything else works. {error}", markup=False)


def _load(path: Path) -> Any:
    """Loads the builder by path, as hatchling does: it serves checkouts only and is not in the package."""
    spec = importlib.util.spec_from_file_location("segmentation_build_pages", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

"""The web pages in a checkout of the source: built when they are missing or older than their sources."""

import importlib.util
from pathlib import Path
from typing import Any

from rich.console import Console

import app

WEB = Path(app.__file__).parent / "web"
BUILDER = "build_pages.py"


def build_if_stale(console: Console, web: Path = WEB) -> None:
    """Builds the pages of a checkout, and says each step; a wheel brings them, and no builder.

    Only where somebody looks on: what runs in the background is not held up for half a minute.
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
    """The builder is no part of the package: it is for checkouts, and hatchling reads it by its path too."""
    spec = importlib.util.spec_from_file_location("segmentation_build_pages", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

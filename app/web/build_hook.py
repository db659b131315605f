"""Builds the pages when the package is built: the hook of hatchling over `build_pages.py`."""

import contextlib
import importlib.util
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class PageBuildHook(BuildHookInterface[Any]):
    """Runs for wheels and editable installs. Without npm or network the package installs without pages."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        web = Path(self.root, "app", "web")
        pages = _load(web / "build_pages.py")
        try:
            built = pages.build_pages(web, pages.node_and_npm(), tell)
            self.app.display_info("web pages: built" if built else "web pages: up to date")
        except pages.PagesNotBuilt as error:
            self.app.display_warning(f"web pages: not built, everything else works. {error}\n{error.output}")
            pages.note_reason(web / pages.BUILT, str(error))


def tell(step: str) -> None:
    """To the person at the terminal, if there is one: pip keeps what a build prints to itself."""
    with contextlib.suppress(OSError), open("/dev/tty", "w") as terminal:
        terminal.write(f"\r{step}\n")


def _load(path: Path) -> Any:
    """hatchling reads this file by its path, outside of any package; so the one beside it is, too."""
    spec = importlib.util.spec_from_file_location("segmentation_build_pages", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

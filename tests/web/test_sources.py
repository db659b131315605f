"""The sources of the pages: generated operations are current and everything has its types."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.web import NPM, WEB, NotInstalled, environment, installed


@pytest.mark.timeout(240)
def test_operations_are_current_and_types_hold() -> None:
    try:
        installed()
    except NotInstalled as reason:
        if "clients" in os.environ.get("SEGMENTATION_TEST_REQUIRE", ""):
            pytest.fail(str(reason))
        pytest.skip(f"npm cannot install the packages here: {str(reason)[-300:]}")
    command: list[str | Path] = [*NPM, "run", "check"]
    done = subprocess.run(command, cwd=WEB, capture_output=True, text=True, env=environment(), timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr

"""Sources of the pages: generated operations are current, everything has its types; the schema keeps to Relay."""

import os
import subprocess

import pytest

from tests.support.web import NPM, WEB, NotInstalled, environment, installed


@pytest.mark.timeout(240)
@pytest.mark.parametrize("script", ["check", "lint"])
def test_sources_and_schema_pass(script: str) -> None:
    """`check`: generated operations are current and types hold; `lint`: graphql-eslint's Relay rules."""
    try:
        installed()
    except NotInstalled as reason:
        if "clients" in os.environ.get("SEGMENTATION_TEST_REQUIRE", ""):
            pytest.fail(str(reason))
        pytest.skip(f"npm cannot install the packages here: {str(reason)[-300:]}")
    done = subprocess.run(
        [*NPM, "run", script], cwd=WEB, capture_output=True, text=True, env=environment(), timeout=110
    )
    assert done.returncode == 0, done.stdout + done.stderr

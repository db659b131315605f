"""Sources of the pages: generated operations are current, everything has its types; the schema keeps to Relay."""

import os
import re
import subprocess

import pytest

from app.api.permissions import NEEDS
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


WORK = WEB / "src" / "work"
UNSEEN = {"CancelPreviewDocument"}
"""Mutations without a button: the estimate ends its own previews."""


def test_the_pages_know_what_their_mutations_need() -> None:
    table = (WORK / "api" / "permissions.ts").read_text().partition("const NEEDS")[2].partition("};")[0]
    used = re.findall(r"^mutation \w+.*\n  (\w+)", "\n".join(_read("*.graphql")), re.MULTILINE)
    assert len(used) > 15
    assert dict(re.findall(r"(\w+): '([\w:]+)'", table)) == {name: NEEDS[f"Mutation.{name}"] for name in used}


def test_every_mutation_has_a_button_that_only_those_see_who_may_do_it() -> None:
    sources = "\n".join(_read("*.tsx"))
    mutations = set(re.findall(r"^mutation (\w+)", "\n".join(_read("*.graphql")), re.MULTILINE))
    lists = re.findall(
        r"(?:\b(?:does|act)=\{|\bdoes: |needsToDo\()\[([^]]*)\]|mayDo\(([^)]*)\)|const saving = (.*)", sources
    )
    guarded = set(re.findall(r"\w+Document", str(lists)))
    assert {f"{name}Document" for name in mutations} - guarded - UNSEEN == set()


def _read(pattern: str) -> list[str]:
    return [path.read_text() for path in sorted(WORK.rglob(pattern))]

"""What all tests share: the fixtures are in plugins."""

import os

import pytest
from hypothesis import settings

pytest_plugins = ["tests.support.databases", "tests.support.doctests"]

# No example is too slow on a busy machine, and in CI a run tries what the last one tried.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", help="Write the expected answers and SQL in tests/data anew.")
    parser.addoption("--operations", type=int, default=200, help="How many random operations the API is tried with.")
    parser.addoption("--seed", type=int, default=1, help="Which random operations these are.")

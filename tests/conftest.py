"""What all tests share: the fixtures are in plugins."""

import pytest

pytest_plugins = ["tests.support.databases", "tests.support.doctests"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", help="Write the expected answers and SQL in tests/data anew.")
    parser.addoption("--operations", type=int, default=200, help="How many random operations the API is tried with.")
    parser.addoption("--seed", type=int, default=1, help="Which random operations these are.")

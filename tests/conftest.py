"""What all tests share: the fixtures are in plugins."""

import pytest

pytest_plugins = ["tests.databases"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", help="Write the expected answers and SQL in tests/data anew.")

"""What all tests share: the fixtures are in plugins."""

pytest_plugins = ["tests.databases"]

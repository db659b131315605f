"""What all tests share: the fixtures are in plugins."""

import gc
import os
import shutil
import tempfile

import pytest
from hypothesis import settings

pytest_plugins = [
    "tests.support.databases",
    "tests.support.doctests",
    "tests.support.few_buckets",
    "tests.support.object_storage",
]

# No example is too slow on a busy machine, and in CI a run tries what the last one tried.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_configure(config: pytest.Config) -> None:
    """New interpreters find the program compiled, also where nothing is to be written beside the sources: that is
    half of the time of their start. Elsewhere they share what the installation has compiled."""
    unwritten = os.environ.pop("PYTHONDONTWRITEBYTECODE", "")
    if unwritten and "PYTHONPYCACHEPREFIX" not in os.environ:
        os.environ["PYTHONPYCACHEPREFIX"] = folder = tempfile.mkdtemp(prefix="segmentation-compiled-")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


def pytest_collection_finish() -> None:
    """Garbage is looked for among what tests leave behind, not again and again among all tests and modules."""
    gc.collect()
    gc.freeze()


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes are named by their argument: packed ones hold the time of their packing, and xdist refuses to begin when
    its processes have collected tests of different names."""
    return argname if isinstance(val, bytes) else None


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: tests wait for processes, locks and the disk about a third of their time."""
    return (os.cpu_count() or 1) + 1


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", help="Write the expected answers and SQL in tests/data anew.")
    parser.addoption("--operations", type=int, default=200, help="How many random operations the API is tried with.")
    parser.addoption("--seed", type=int, default=1, help="Which random operations these are.")

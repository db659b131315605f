"""What all commands share."""

import gc
from collections.abc import Iterator

import pytest

from app.cli.terminal import importing


@pytest.fixture(autouse=True)
def _thawed() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_imported_objects_are_never_scanned_for_garbage() -> None:
    with importing():
        assert not gc.isenabled()
        imported = ["as a module would hold it"]

    assert gc.isenabled()
    assert not any(scanned is imported for scanned in gc.get_objects())
    later = ["after the imports"]
    assert any(scanned is later for scanned in gc.get_objects())


def test_a_failed_import_leaves_garbage_collection_on() -> None:
    with pytest.raises(ImportError), importing():
        raise ImportError

    assert gc.isenabled()

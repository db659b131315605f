"""Lakes of tests have few buckets: a dozen people in sixteen are sixteen times the work of one. A pytest plugin."""

import pytest

from app.engine.store import layout

_REAL = layout.FEWEST_BUCKET_BITS
layout.FEWEST_BUCKET_BITS = 2


@pytest.fixture
def real_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lakes have as many buckets as in production."""
    monkeypatch.setattr(layout, "FEWEST_BUCKET_BITS", _REAL)

"""Bitmaps made of arrays equal those that pyroaring makes number by number."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pyroaring import BitMap

from app.engine.store.bitmaps import bitmap, bitmap_of


def numbers(first: int, step: int, size: int) -> NDArray[np.uint32]:
    return (np.arange(size) * step + first).astype(np.uint32)


@pytest.mark.parametrize(
    "values",
    [
        numbers(0, 1, 0),
        numbers(0, 1, 1),
        numbers(2**32 - 1, 1, 1),
        numbers(0, 3, 4_096),
        numbers(0, 3, 4_097),
        numbers(65_530, 1, 12),
        numbers(60_000, 2, 80_000),
        np.concatenate([numbers(5, 1, 4_000), numbers(2**31, 2, 30_000)]),
        numbers(0, 1, 65_536),
    ],
    ids=["none", "one", "largest", "array", "bits", "edge", "many containers", "far apart", "full"],
)
def test_numbers_become_the_bitmap_that_holds_them(values: NDArray[np.uint32]) -> None:
    expected = BitMap(values.tolist())
    assert bitmap(values) == expected
    chosen = values % 2 == 0
    assert bitmap_of(values, chosen) == BitMap(values[chosen].tolist())
    assert bitmap(values) | BitMap([3]) == expected | BitMap([3])


@given(st.sets(st.integers(0, 200_000), max_size=60), st.integers(0, 2**32 - 1), st.booleans())
def test_any_numbers(values: set[int], seed: int, dense: bool) -> None:
    places = np.arange(200_001, dtype=np.uint32) if dense else np.array(sorted(values), np.uint32)
    chosen = np.random.default_rng(seed).random(len(places)) < 0.5
    if dense:
        chosen &= np.isin(places, np.array(sorted(values), np.uint32))
    expected = BitMap(places[chosen].tolist())
    made = bitmap_of(places, chosen)
    assert made == expected
    assert BitMap.deserialize(made.serialize()) == expected

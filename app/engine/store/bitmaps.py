"""Roaring bitmaps built from arrays, one container at a time; knows no people.

`BitMap(numbers)` of pyroaring reads a numpy array number by number, which takes a hundred times as long.
"""

import struct

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

_COOKIE = 12346
"""Header of a bitmap without run containers in the portable format (RoaringFormatSpec)."""
_CONTAINER = 1 << 16
_MOST_IN_ARRAY = 4096
"""A container with more numbers is a bitset."""


def bitmap(numbers: NDArray[np.uint32]) -> BitMap:
    """The bitmap of ascending numbers.

    >>> bitmap(np.array([1, 70_000], np.uint32))
    BitMap([1, 70000])
    """
    keys, begins, sizes = np.unique(numbers >> 16, return_index=True, return_counts=True)
    containers = [
        (key, size, _container(numbers[begin : begin + size].astype(np.uint16)))
        for key, begin, size in zip(keys.tolist(), begins.tolist(), sizes.tolist(), strict=True)
    ]
    return _assembled(containers)


def bitmap_of(numbers: NDArray[np.uint32], chosen: NDArray[np.bool_]) -> BitMap:
    """The bitmap of the selected ones of ascending numbers.

    >>> bitmap_of(np.array([0, 1, 2, 9], np.uint32), np.array([True, False, True, True]))
    BitMap([0, 2, 9])
    """
    if not len(numbers) or int(numbers[-1]) != len(numbers) - 1:
        return bitmap(numbers[chosen])
    containers = []
    for begin in range(0, len(chosen), _CONTAINER):
        part = chosen[begin : begin + _CONTAINER]
        size = int(np.count_nonzero(part))
        if size:
            content = _bits(part) if size > _MOST_IN_ARRAY else np.flatnonzero(part).astype("<u2").tobytes()
            containers.append((begin >> 16, size, content))
    return _assembled(containers)


def _container(low: NDArray[np.uint16]) -> bytes:
    if len(low) <= _MOST_IN_ARRAY:
        return low.astype("<u2").tobytes()
    flags = np.zeros(_CONTAINER, np.bool_)
    flags[low] = True
    return _bits(flags)


def _bits(flags: NDArray[np.bool_]) -> bytes:
    return np.packbits(flags, bitorder="little").tobytes().ljust(_CONTAINER // 8, b"\0")


def _assembled(containers: list[tuple[int, int, bytes]]) -> BitMap:
    """Joins containers (key, cardinality, content) with ascending keys."""
    head = struct.pack("<II", _COOKIE, len(containers))
    keys = b"".join(struct.pack("<HH", key, size - 1) for key, size, _ in containers)
    offsets, offset = [], len(head) + len(keys) + 4 * len(containers)
    for _, _, content in containers:
        offsets.append(offset)
        offset += len(content)
    table = struct.pack(f"<{len(offsets)}I", *offsets)
    return BitMap.deserialize(b"".join([head, keys, table, *(content for _, _, content in containers)]))

"""What a sample of people tells of all: its size, its order, and an estimate with its error; knows no data.

A hash puts people into buckets, so the people of some buckets, taken in an order that has nothing to do with them, are
a simple random sample without replacement of all people. Of `total` people `read` were read and `matched` of these
qualify: that number has a hypergeometric distribution, whose spread ends when everybody has been read.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

LEVEL = 0.95
READ_IN_FULL = 1_000_000
"""A sandbox with fewer people is read in full; from here on this many are, until 5% of all are more."""
SAMPLED_PART = 0.05

_Z = 1.959963984540054
_EXACT_UP_TO = 50
"""With fewer matches than this (or fewer who do not match) the normal distribution is not good enough."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """How many of all people qualify; `standard_error` is that of `size`, in people; `low` and `high` belong to it."""

    size: int
    standard_error: float
    low: int
    high: int


def sample_size(total: int) -> int:
    """How many of so many people are to be read at least (segmentation-service.md, "Previews and estimates").

    >>> [sample_size(n) for n in (999_999, 1_000_000, 20_000_000, 30_000_000)]
    [999999, 1000000, 1000000, 1500000]
    """
    return min(total, max(READ_IN_FULL, math.ceil(total * SAMPLED_PART)))


def draw(seed: str, people: Mapping[int, int]) -> list[int]:
    """The buckets to read, in order, given the number of people in each: whole ones, until they hold a sample.

    The order depends on the seed alone: a bucket keeps its place before or behind another whatever else there is.
    """
    remaining, sampled = sample_size(sum(people.values())), []
    for bucket in shuffled(seed, people):
        if remaining <= 0:
            break
        sampled.append(bucket)
        remaining -= people[bucket]
    return sampled


def shuffled(seed: str, buckets: Iterable[int]) -> list[int]:
    """
    >>> shuffled("a", range(5)), shuffled("b", range(5))
    ([3, 2, 1, 4, 0], [2, 1, 4, 3, 0])
    """
    return sorted(buckets, key=lambda bucket: hashlib.blake2b(f"{seed}/{bucket}".encode(), digest_size=8).digest())


def estimate(total: int, read: int, matched: int) -> Estimate | None:
    """None as long as nobody has been read; exact once everybody has been.

    >>> estimate(1_000, 0, 0), estimate(1_000, 1_000, 17)
    (None, Estimate(size=17, standard_error=0.0, low=17, high=17))
    >>> estimate(10_000, 100, 20)
    Estimate(size=2000, standard_error=400.0, low=1306, high=2864)
    """
    if read >= total:
        return Estimate(matched, 0.0, matched, matched)
    if not read:
        return None
    low, high = _interval(total, read, matched)
    return Estimate(round(total * matched / read), _standard_error(total, read, matched), low, high)


def _standard_error(total: int, read: int, matched: int) -> float:
    """Of a simple random sample without replacement; 0 for one person, who tells nothing of the spread."""
    part = matched / read
    spread = part * (1 - part) / max(read - 1, 1)
    return total * math.sqrt((1 - read / total) * spread)


def _interval(total: int, read: int, matched: int) -> tuple[int, int]:
    if matched < _EXACT_UP_TO:
        return _exact(total, read, matched)
    if read - matched < _EXACT_UP_TO:
        low, high = _exact(total, read, read - matched)
        return total - high, total - low
    return _wilson(total, read, matched)


def _wilson(total: int, read: int, matched: int) -> tuple[int, int]:
    """Wilson's score interval; a sample of a finite population is worth more than its size says."""
    worth = read * (total - 1) / (total - read)
    part, weight = matched / read, _Z * _Z / worth
    middle = (part + weight / 2) / (1 + weight)
    half = _Z / (1 + weight) * math.sqrt(part * (1 - part) / worth + weight / (4 * worth))
    low, high = math.floor(total * (middle - half)), math.ceil(total * (middle + half))
    return max(low, matched), min(high, matched + total - read)


def _exact(total: int, read: int, matched: int) -> tuple[int, int]:
    """Every number of members of whom so few would have been found neither too rarely nor too often.

    What was found counts half to each side (mid-p): counted whole, the interval would be wider than its level says.
    """
    tail = (1 - LEVEL) / 2
    fewest, most = matched, matched + total - read
    low = _first(fewest, most, lambda members: 1 - _at_most(total, read, members, matched) > tail)
    high = _first(low, most + 1, lambda members: _at_most(total, read, members, matched) <= tail) - 1
    return low, max(low, high)


def _first(start: int, end: int, holds: Callable[[int], bool]) -> int:
    """The first number from `start` on for which it holds, where it holds from somewhere on; `end` at the latest."""
    while start < end:
        middle = (start + end) // 2
        if holds(middle):
            end = middle
        else:
            start = middle + 1
    return start


def _at_most(total: int, read: int, members: int, found: int) -> float:
    """The chance of finding fewer than `found` of so many members among those read, and half that of just as many."""
    others = total - members
    first = max(0, read - others)
    if found < first:
        return 0.0
    chance = math.exp(_log_choose(members, first) + _log_choose(others, read - first) - _log_choose(total, read))
    below = 0.0
    for k in range(first, found):
        below += chance
        chance *= (members - k) * (read - k) / ((k + 1) * (others - read + k + 1))
    return below + chance / 2


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)

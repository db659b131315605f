"""Estimates from a sample of people: its size, order, and an estimate with its error; knows no data.

A hash distributes people over slots, so the people of some slots, chosen independently of them, are a simple random
sample without replacement. A slot is one bucket, or several in a sandbox that has grown (`store/layout.py`): these are
only together a sample, since they are of people who came at different times. Of `total` people, `read` were read, and
`matched` of these qualify: that number has a hypergeometric distribution, whose variance becomes zero when everyone has
been read.
"""

import hashlib
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from app.engine.store.layout import slot_of

LEVEL = 0.95
READ_IN_FULL = 1_000_000
"""A sandbox with fewer people is read completely; larger ones read this many, until one in `SAMPLED_ONE_IN` is more."""
SAMPLED_ONE_IN = 20

_Z = 1.959963984540054
_EXACT_UP_TO = 50
"""With fewer matches (or fewer non-matches) the normal distribution is not accurate enough."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The estimated number of qualifying people; `standard_error` is that of `size`, in people; `low` and `high` are
    the interval."""

    size: int
    standard_error: float
    low: int
    high: int


def sample_size(total: int) -> int:
    """The minimum number of people to read (segmentation-service.md, "Previews and estimates").

    >>> [sample_size(n) for n in (999_999, 1_000_000, 20_000_000, 30_000_000)]
    [999999, 1000000, 1000000, 1500000]
    """
    return min(total, max(READ_IN_FULL, math.ceil(total / SAMPLED_ONE_IN)))


def limit_of_sample(first: int, read: int, total: int) -> int:
    """The proportional part of a limit for a sample of `read` of all people, rounded up.

    Exactly: 300 * (112 / 400) is a little more than 84 in binary.

    >>> [limit_of_sample(300, 112, 400), limit_of_sample(300, 113, 400), limit_of_sample(300, 0, 0)]
    [84, 85, 300]
    """
    return first if read >= total else -(-first * read // total)


def draw(seed: str, people: Mapping[int, int]) -> list[int]:
    """The buckets to read, in order, given the number of people in each: all of a slot, until they contain a sample.

    The order depends only on the seed: the relative order of two buckets does not change with the others.

    >>> draw("a", dict.fromkeys(range(5), 500_000)), draw("a", dict.fromkeys(range(5), 499_999))
    ([3, 2], [3, 2, 1])
    """
    remaining, sampled = sample_size(sum(people.values())), []
    for slot in shuffled_slots(seed, people):
        if remaining <= 0:
            break
        sampled += slot
        remaining -= sum(people[bucket] for bucket in slot)
    return sampled


def shuffled_slots(seed: str, buckets: Iterable[int]) -> list[list[int]]:
    """The buckets of each slot, slots in random order.

    >>> shuffled_slots("a", range(5)), shuffled_slots("b", [*range(5), 1 << 14])
    ([[3], [2], [1], [4], [0]], [[2], [1], [4], [3], [0, 16384]])
    """
    slots: dict[int, list[int]] = {}
    for bucket in sorted(buckets):
        slots.setdefault(slot_of(bucket), []).append(bucket)
    order = sorted(slots, key=lambda slot: hashlib.blake2b(f"{seed}/{slot}".encode(), digest_size=8).digest())
    return [slots[slot] for slot in order]


def in_whole_slots(order: Iterable[int], read: Collection[int]) -> set[int]:
    """The buckets of those read whose slots are read completely, given all buckets to read.

    >>> sorted(in_whole_slots([3, 1, 1 + (1 << 14), 2], {1, 3}))
    [3]
    """
    begun = {slot_of(bucket) for bucket in order if bucket not in read}
    return {bucket for bucket in read if slot_of(bucket) not in begun}


def estimate(total: int, read: int, matched: int) -> Estimate | None:
    """None as long as nothing has been read; exact once everyone has been read.

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
    """The error of a simple random sample without replacement; 0 for one person, which reveals nothing about the
    variance."""
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
    """Wilson's score interval; a sample of a finite population counts as larger than its size."""
    worth = read * (total - 1) / (total - read)
    part, weight = matched / read, _Z * _Z / worth
    middle = (part + weight / 2) / (1 + weight)
    half = _Z / (1 + weight) * math.sqrt(part * (1 - part) / worth + weight / (4 * worth))
    low, high = math.floor(total * (middle - half)), math.ceil(total * (middle + half))
    return max(low, matched), min(high, matched + total - read)


def _exact(total: int, read: int, matched: int) -> tuple[int, int]:
    """All numbers of members for which the observed number would be neither too low nor too high.

    The observed number counts half to each side (mid-p); counted fully, the interval would be wider than its level
    requires.
    """
    tail = (1 - LEVEL) / 2
    fewest, most = matched, matched + total - read
    low = _first(fewest, most, lambda members: 1 - _at_most(total, read, members, matched) > tail)
    high = _first(low, most + 1, lambda members: _at_most(total, read, members, matched) <= tail) - 1
    return low, max(low, high)


def _first(start: int, end: int, holds: Callable[[int], bool]) -> int:
    """The first number from `start` on that satisfies a monotonic condition; at most `end`."""
    while start < end:
        middle = (start + end) // 2
        if holds(middle):
            end = middle
        else:
            start = middle + 1
    return start


def _at_most(total: int, read: int, members: int, found: int) -> float:
    """The probability of finding fewer than `found` of these members among those read, plus half that of exactly as
    many."""
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

"""The estimate against the design that it is made for: people in random buckets, buckets in random order."""

import math
from collections import Counter
from collections.abc import Iterable

import numpy as np
import pytest
from numpy.random import Generator, default_rng

from app.engine.run.sampling import Estimate, draw, estimate, in_whole_slots, sample_size, shuffled_slots
from app.engine.store.layout import Layout, slot_of

BUCKETS = 16


def shuffled(seed: str, buckets: Iterable[int]) -> list[int]:
    return [bucket for slot in shuffled_slots(seed, buckets) for bucket in slot]


def read_so_far(rng: Generator, total: int, members: int) -> list[tuple[int, int]]:
    """People read and matched after each bucket but the last, in one sandbox with so many members."""
    people = rng.multinomial(total, np.full(BUCKETS, 1 / BUCKETS))
    matching = rng.multivariate_hypergeometric(people, members, method="marginals")
    order = rng.permutation(BUCKETS)[:-1]
    return [(int(n), int(m)) for n, m in zip(np.cumsum(people[order]), np.cumsum(matching[order]), strict=True)]


@pytest.mark.parametrize(
    ("fewest", "most"), [(5, 20), (20, 200), (200, 5_000), (5_000, 50_000), (50_000, 450_000), (490_000, 499_995)]
)
def test_the_interval_covers_the_truth_in_93_to_97_percent(fewest: int, most: int) -> None:
    rng, total = default_rng(fewest), 500_000
    covered, cases = 0, 0
    for _ in range(250):
        members = round(math.exp(rng.uniform(math.log(fewest), math.log(most))))
        for read, matched in read_so_far(rng, total, members)[::3]:
            found = estimate(total, read, matched)
            assert found is not None
            assert matched <= found.low <= found.size <= found.high <= matched + total - read
            covered += found.low <= members <= found.high
            cases += 1
    # With fewer than 20 members each person more or less is a step, so that intervals cannot be as narrow as they may.
    assert 0.93 <= covered / cases <= (0.97 if fewest >= 20 else 0.985)


def test_the_standard_error_is_how_much_estimates_scatter() -> None:
    rng, total, members = default_rng(1), 100_000, 3_000
    errors, claimed = [], []
    for _ in range(2_000):
        read, matched = read_so_far(rng, total, members)[3]
        found = estimate(total, read, matched)
        assert found is not None
        errors.append(total * matched / read - members)
        claimed.append(found.standard_error)
    assert np.mean(claimed) / np.std(errors) == pytest.approx(1, abs=0.05)
    assert np.mean(errors) / np.std(errors) == pytest.approx(0, abs=0.1)


def test_the_interval_narrows_to_the_truth() -> None:
    rng, total, members = default_rng(2), 200_000, 10_000
    widths = []
    for read, matched in read_so_far(rng, total, members):
        found = estimate(total, read, matched)
        assert found is not None
        widths.append(found.high - found.low)
    assert widths == sorted(widths, reverse=True)
    assert estimate(total, total, members) == Estimate(members, 0.0, members, members)


def test_nobody_found_is_not_nobody_there() -> None:
    # Of 1,000 people 100 are read: of such samples 5% and more show none of 28 members, and fewer show none of 29.
    assert estimate(1_000, 100, 0) == Estimate(0, 0.0, 0, 28)
    assert estimate(1_000, 100, 100) == Estimate(1_000, 0.0, 972, 1_000)
    assert estimate(1_000, 999, 0) == Estimate(0, 0.0, 0, 0)
    assert estimate(0, 0, 0) == Estimate(0, 0.0, 0, 0)
    assert estimate(1, 0, 0) is None


def test_sizes_of_samples() -> None:
    sizes = {0: 0, 1: 1, 999_999: 999_999, 1_000_000: 1_000_000, 1_000_001: 1_000_000, 20_000_000: 1_000_000}
    sizes |= {20_000_001: 1_000_001, 100_000_000: 5_000_000}
    assert {total: sample_size(total) for total in sizes} == sizes


def test_a_sample_is_of_whole_buckets_and_no_more_than_it_needs() -> None:
    people = {bucket: 60_000 + bucket for bucket in range(64)}
    chosen = draw("seed", people)
    assert chosen == shuffled("seed", people)[: len(chosen)]
    assert sum(people[bucket] for bucket in chosen) >= 1_000_000 > sum(people[bucket] for bucket in chosen[:-1])
    small = dict.fromkeys(range(16), 100)
    assert draw("seed", small) == shuffled("seed", range(16))
    assert draw("seed", {}) == []


def test_the_order_of_buckets_is_random_and_holds_when_others_come() -> None:
    first = Counter(shuffled(f"seed {n}", range(8))[0] for n in range(4_000))
    expected = 500
    assert sum((found - expected) ** 2 / expected for found in first.values()) < 24.3, "99.9% of chi-squared"
    assert [bucket for bucket in shuffled("seed", range(64)) if bucket < 16] == shuffled("seed", range(16))


def test_the_hash_spreads_any_people_evenly() -> None:
    """People with ids of one kind fall into buckets as random ones do, so that buckets are random samples of them."""
    (first,) = Layout((4,)).generations
    for pattern in ("crm:{:05d}", "email:user{}@example.org", "shop:{:x}"):
        found = Counter(first.bucket_of(pattern.format(n)) for n in range(0, 80_000, 5))
        assert sum((n - 1_000) ** 2 / 1_000 for n in found.values()) < 37.7, "99.9% of chi-squared"


def test_a_sample_of_a_sandbox_that_grew_is_of_whole_slots() -> None:
    """People who came later are in other buckets: only all buckets of a slot are a fair sample."""
    layout = Layout((4, 4, 6))
    people = dict.fromkeys((bucket for bucket in range(1 << 18) if bucket in layout), 20_000)
    assert len(people) == layout.buckets == 96
    chosen = draw("seed", people)
    assert len(chosen) == 54, "six buckets of a slot: nine slots have more than a million people, eight do not"
    slots = Counter(map(slot_of, chosen))
    assert (len(slots), set(slots.values())) == (9, {6})
    assert chosen == sorted(chosen, key=lambda bucket: (list(slots).index(slot_of(bucket)), bucket))
    assert in_whole_slots(chosen, set(chosen[:11])) == set(chosen[:6])
    assert in_whole_slots(chosen, set(chosen[7:17])) == set()
    assert in_whole_slots(chosen, set(chosen)) == set(chosen)

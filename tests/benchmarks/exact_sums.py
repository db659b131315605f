"""Exact sums of amounts with two decimals against plain sums of doubles, over the same arrays in one run.

    python tests/benchmarks/exact_sums.py [--amounts 600000] [--people 50000]

Prints both times, their ratio, and how many people's sums the plain way gets wrong.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np

from app.engine.evaluate.exact import sums

_RUNS = 15


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--amounts", type=int, default=600_000)
    options.add_argument("--people", type=int, default=50_000)
    asked = options.parse_args()
    random = np.random.default_rng(1)
    parent = np.sort(random.integers(0, asked.people, asked.amounts))
    cents = random.integers(1, 20_000, asked.amounts)
    amounts, counts = cents / 100, np.bincount(parent, minlength=asked.people)
    expected = np.bincount(parent, cents, asked.people) / 100
    exact, plain = sums(parent, amounts, counts), np.bincount(parent, amounts, asked.people)
    assert np.array_equal(exact, expected)
    ours = _best(lambda: sums(parent, amounts, counts))
    theirs = _best(lambda: np.bincount(parent, amounts, asked.people))
    print(f"exact {ours * 1e3:.2f} ms, plain {theirs * 1e3:.2f} ms: ratio {ours / theirs:.2f}")
    print(
        f"plain sums are wrong for {np.count_nonzero(plain != expected):,} of {asked.people:,} people, exact for none"
    )


def _best(run: Callable[[], object]) -> float:
    times = []
    for _ in range(_RUNS):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return min(times)


if __name__ == "__main__":
    main()

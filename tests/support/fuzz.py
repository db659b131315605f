"""The long run of engine against oracle; exit code 1 on a disagreement.

Run it by `python -m tests.support.fuzz 50000 [--seed N]`.

Prints how far it is, cases per second, and for each disagreement its smallest form: expression, person, both answers.
"""

import argparse
import logging
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from random import Random

from tests.support.expressions import E, Writer, literal, nodes, text
from tests.support.people import Crowd, crowd, problems

TOGETHER = 100
"""Expressions over one crowd and one memo."""
SHOWN = 20


def cases(seed: int, count: int = TOGETHER) -> tuple[Crowd, list[E]]:
    """One crowd with its expressions; a seed always gives the same."""
    return crowd(Random(seed)), [Writer(Random(seed * 1_000_003 + at)).segment(2 + at % 3) for at in range(count)]


def smaller(tree: E) -> Iterator[E]:
    """Trees with one part less; they may be ill-typed or refer to names that are gone."""
    if tree.type == "bool" and tree.op != "literal":
        yield from (literal(False), literal(True))
    yield from (part for part in nodes(tree) if part is not tree and part.type == tree.type and part.op != "none")
    for at, arg in enumerate(tree.args):
        for less in smaller(arg):
            yield replace(tree, args=(*tree.args[:at], less, *tree.args[at + 1 :]))


def shrunk(group: Crowd, tree: E) -> E:
    """The smallest expression found that the engine accepts and still answers otherwise."""
    while True:
        for less in smaller(tree):
            if len(text(less)) < len(text(tree)) and _differs(group, less):
                tree = less
                break
        else:
            return tree


def _differs(group: Crowd, tree: E) -> bool:
    try:
        return any(not str(answer).startswith("refused") for _, _, answer in problems(group, [tree]))
    except Exception:  # a name of the oracle's environment is gone
        return False


def report(group: Crowd, tree: E, expected: list[str], answer: list[str] | str) -> str:
    """A disagreement as text, with one person whom it is about."""
    if not isinstance(answer, str):
        tree = shrunk(group, tree)
        ((_, expected, answer),) = problems(group, [tree])
    wrong = sorted(set(expected) ^ set(answer)) if isinstance(answer, list) else []
    person = next((person for person in group.people if person["_id"] in wrong[:1]), None)
    return (
        f"{text(tree)}\n  at {group.now}\n  oracle: {' '.join(expected)}\n"
        f"  engine: {answer if isinstance(answer, str) else ' '.join(answer)}\n  person: {person}"
    )


def disagreements(seeds: Iterable[int], count: int = TOGETHER) -> Iterator[str]:
    for seed in seeds:
        group, trees = cases(seed, count)
        for tree, expected, answer in problems(group, trees):
            yield f"seed {seed}: {report(group, tree, expected, answer)}"


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m tests.support.fuzz", description=__doc__)
    arguments.add_argument("cases", type=int, nargs="?", default=50_000, help="how many expressions")
    arguments.add_argument("--seed", type=int, default=1_000, help="seed of the first crowd")
    given = arguments.parse_args()
    logging.disable(logging.CRITICAL)
    start, done, found = time.monotonic(), 0, 0
    while done < given.cases:
        count = min(TOGETHER, given.cases - done)
        for problem in disagreements([given.seed + done // TOGETHER], count):
            found += 1
            if found <= SHOWN:
                print(f"\n{problem}", flush=True)
        done += count
        if done % 5_000 == 0 or done == given.cases:
            seconds = time.monotonic() - start
            print(f"{done} cases, {found} disagreements, {seconds:.0f} s, {done / seconds:.0f} a second", flush=True)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

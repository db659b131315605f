"""Changes modules in one place at a time and says which changes the tests do not notice.

    python -m tests.support.mutate app/pql app/storage --sample 30 --lines lines.json
    python -m tests.support.mutate app/services/lists/paging.py --tests tests/services/test_paging.py

It works on a copy of the checkout, so nothing here changes, and on SQLite alone. The tests run once first to record
which lines each of them runs; `--lines` names a file that keeps this for the next sample. Each change is tried with the
tests that run its line, the quickest first, until one fails. Every survivor is printed with its line.
"""

import argparse
import ast
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from tests.support.mutate.lines import Lines
from tests.support.mutate.mutants import Mutant, mutants
from tests.support.mutate.trials import Outcome, Trial, replacements

ROOT = Path(__file__).parents[3]
COPIED = ("app", "tests", "pyproject.toml", "schema.graphql", "README.md", "LICENSE")
Sample = list[tuple[Path, Path, int, Mutant]]


def pytest(folder: Path, *arguments: str) -> int:
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", "-k", "not postgresql"]
    environment = {**os.environ, "CI": "1", "PYTHONPATH": str(folder)}
    return subprocess.run([*command, *arguments], cwd=folder, env=environment, capture_output=True).returncode


def copied(folder: Path) -> None:
    """A checkout of its own, as the working tree is."""
    for part in COPIED:
        if (ROOT / part).is_dir():
            unneeded = shutil.ignore_patterns("node_modules", "__pycache__")
            shutil.copytree(ROOT / part, folder / part, ignore=unneeded)
        else:
            shutil.copy(ROOT / part, folder / part)


def sampled(places: Iterable[Path], number: int, seed: int) -> Sample:
    """As many changes of each place: the place, a module, the number of a change in it, and the change. Places take
    turns, so that an early end is still a sample of all."""
    columns = []
    for place in places:
        modules = [ROOT / place] if place.suffix else sorted((ROOT / place).rglob("*.py"))
        every = [
            (place, module.relative_to(ROOT), index, change)
            for module in modules
            if module.parent.name != "versions"  # migrations are history
            for index, change in enumerate(mutants(module.read_text("utf-8")))
        ]
        columns.append(random.Random(f"{seed} {place}").sample(every, min(number, len(every))))
    return [column[turn] for turn in range(number) for column in columns if turn < len(column)]


def planned(sample: Sample, lines: Lines, seconds: float) -> tuple[list[Trial], list[Trial]]:
    """The trials that any test can notice: of changes that show at import, and of those within functions."""
    at_import: list[Trial] = []
    in_functions: list[Trial] = []
    for _, module, number, change in sample:
        imported = replacements((ROOT / module).read_text("utf-8"), ROOT / module, number) is None
        if tests := lines.tests(module, () if imported else change.lines, seconds):
            (at_import if imported else in_functions).append(Trial(module.as_posix(), number, tests))
    return at_import, in_functions


def tried_at_import(folder: Path, trials: list[Trial]) -> Iterator[Outcome]:
    """Each in a process of its own."""
    for trial in trials:
        path = folder / trial.module
        source = path.read_text("utf-8")
        path.write_text(ast.unparse(mutants(source)[trial.number].tree(source)), "utf-8")
        caught = pytest(folder, "-x", *trial.tests) != 0
        path.write_text(source, "utf-8")
        yield Outcome(trial.module, trial.number, "caught" if caught else "survived", "")


def tried_in_forks(folder: Path, trials: list[Trial]) -> Iterator[Outcome]:
    plan = folder / "trials.jsonl"
    plan.write_text("".join(json.dumps(asdict(trial)) + "\n" for trial in trials), "utf-8")
    modules = sorted({test.partition("::")[0] for trial in trials for test in trial.tests})
    pytest(folder, "-x", "-p", "tests.support.mutate.trials", "--trials", str(plan), *modules)
    for line in plan.with_suffix(".results").read_text("utf-8").splitlines():
        yield Outcome(*json.loads(line))


def reported(sample: Sample, outcomes: list[Outcome]) -> None:
    by_change = {(outcome.module, outcome.number): outcome for outcome in outcomes}
    by_place: dict[Path, Counter[str]] = {}
    for place, module, number, change in sample:
        outcome = by_change.get((module.as_posix(), number))
        state = outcome.state if outcome else "not run by any test"
        by_place.setdefault(place, Counter())[state] += 1
        if state != "caught":
            print(f"{state.upper()} {module}:{change.lines[0]}: {change.what}")
    by_place[Path("all")] = sum(by_place.values(), Counter())
    for place, states in by_place.items():
        print(f"{place}: " + ", ".join(f"{number} {state}" for state, number in states.most_common()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", type=Path, nargs="+", help="modules, or folders of them, from the checkout's root")
    parser.add_argument("--sample", type=int, default=20, help="how many changes of each place are tried")
    parser.add_argument("--seed", type=int, default=1, help="which ones these are")
    parser.add_argument("--tests", nargs="+", default=["tests", "app"], help="the tests that should notice")
    parser.add_argument("--lines", type=Path, help="where it is kept which lines each test runs")
    parser.add_argument("--seconds", type=float, default=20, help="the processor time of the tests of one change")
    arguments = parser.parse_args()
    sample = sampled(arguments.places, arguments.sample, arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copied(folder)
        path = (arguments.lines or folder / "lines.json").absolute()
        if not path.exists():
            pytest(folder, "-p", "tests.support.mutate.lines", "--lines", str(path), *arguments.tests)
        at_import, in_functions = planned(sample, Lines.read(path), arguments.seconds)
        reported(sample, [*tried_in_forks(folder, in_functions), *tried_at_import(folder, at_import)])
    return 0


if __name__ == "__main__":
    sys.exit(main())

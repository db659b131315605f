"""Which lines of `app` each test runs, and how long it takes: a pytest plugin that writes this, and its reader.

python -m pytest -n0 -p tests.support.mutate.lines --lines lines.json tests/pql
"""

import json
import time
from collections import Counter
from collections.abc import Generator
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path

import coverage
import pytest

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True, slots=True)
class Lines:
    """Seconds of processor time of each test that passed, and which tests, by number, run each line of a module."""

    seconds: list[tuple[str, float]]
    by_module: dict[str, dict[str, list[int]]]

    @classmethod
    def read(cls, path: Path) -> "Lines":
        return cls(**json.loads(path.read_text("utf-8")))

    def tests(self, module: Path, lines: tuple[int, ...], limit: float) -> tuple[str, ...]:
        """The tests that run the first of these lines that any test runs (without lines, anything of the module). The
        quickest come first, the cases of a test in turns with those of others, and no more than take so many seconds
        together, but at least three."""
        by_line = self.by_module.get(module.as_posix(), {})
        numbers = next((tests for line in lines if (tests := by_line.get(str(line)))), [])
        if not lines:
            numbers = sorted({number for tests in by_line.values() for number in tests})
        cases = Counter[str]()
        ranked: list[tuple[int, float, str]] = []
        for test, seconds in sorted((self.seconds[number] for number in numbers), key=lambda entry: entry[1]):
            function = test.partition("[")[0]
            cases[function] += 1
            ranked.append((cases[function], seconds, test))
        ranked.sort()
        sums = accumulate(seconds for _, seconds, _ in ranked)
        return tuple(
            test
            for place, (total, (_, _, test)) in enumerate(zip(sums, ranked, strict=True))
            if total < limit or place < 3
        )


class Recorder:
    """Switches coverage's context at each test, so that a line knows its tests."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seconds: dict[str, float] = {}
        self._failed: set[str] = set()
        self._coverage = coverage.Coverage(
            data_file=None, source=[str(ROOT / "app")], concurrency=["thread", "greenlet"], config_file=False
        )
        self._coverage.start()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        self._coverage.switch_context(item.nodeid)
        began = time.process_time()
        result = yield
        self._seconds[item.nodeid] = round(time.process_time() - began, 3)
        self._coverage.switch_context("")
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.passed:
            self._failed.add(report.nodeid)

    def pytest_unconfigure(self) -> None:
        self._coverage.stop()
        data = self._coverage.get_data()
        passed = [test for test in self._seconds if test not in self._failed]
        numbers = {test: number for number, test in enumerate(passed)}
        by_module = {
            Path(file).relative_to(ROOT).as_posix(): {
                str(line): sorted(numbers[test] for test in tests if test in numbers)
                for line, tests in data.contexts_by_lineno(file).items()
            }
            for file in sorted(data.measured_files())
        }
        lines = Lines([(test, self._seconds[test]) for test in passed], by_module)
        self._path.write_text(json.dumps(asdict(lines)), "utf-8")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--lines", type=Path, help="The file to write.")


def pytest_configure(config: pytest.Config) -> None:
    path: Path | None = config.getoption("--lines")
    if path:
        config.pluginmanager.register(Recorder(path))

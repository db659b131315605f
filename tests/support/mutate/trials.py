"""A pytest plugin that tries changes of modules in forks of one process, which has collected all tests.

Of a change within functions the code of the live functions is replaced, so nothing is imported again.
"""

import contextlib
import gc
import json
import os
import resource
import signal
import time
import types
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path

import psutil
import pytest

from tests.support.mutate.mutants import mutants

IDLE_SECONDS = 20.0
"""A change is given up if its tests use no processor for so long, however busy the machine is."""
CPU_SECONDS = 150
"""How much processor time it may use: a loop may have no end."""
STATES = {0: "survived", 1: "caught", 2: "not live"}


@dataclass(frozen=True, slots=True)
class Trial:
    """A module, the number of its change in the order of `mutants`, and the tests that should notice, nearest first."""

    module: str
    number: int
    tests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a trial (`survived`, `caught`, `timed out`, `not live`), and the last test that ran."""

    module: str
    number: int
    state: str
    test: str


def codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """A code object and those within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from codes(constant)


def replacements(source: str, path: Path, number: int) -> dict[types.CodeType, types.CodeType] | None:
    """The changed code of each function that changes; None if a change shows at import (a constant, a class's body).

    >>> source = "def f(a):\\n    return a < 1"
    >>> [(before.co_name, after.co_consts) for before, after in replacements(source, Path("m.py"), 2).items()]
    [('f', (None, 2))]
    >>> replacements("a = 1 < 2", Path("m.py"), 0) is None
    True
    """
    before = list(codes(compile(source, str(path), "exec", dont_inherit=True)))
    after = list(codes(compile(mutants(source)[number].tree(source), str(path), "exec", dont_inherit=True)))
    by_place: dict[tuple[object, ...], list[types.CodeType]] = defaultdict(list)
    for code in after:
        by_place[_place(code)].append(code)
    pairs: dict[types.CodeType, types.CodeType] = {}
    for code in before:
        matches = by_place[_place(code)]
        if not matches or (changed := matches.pop(0)) == code:
            continue
        if not code.co_flags & 1:  # CO_OPTIMIZED: only functions have it
            if _own(code) != _own(changed):
                return None
        else:
            pairs[code] = changed
    return pairs


def _place(code: types.CodeType) -> tuple[object, ...]:
    return code.co_qualname, code.co_firstlineno


def _own(code: types.CodeType) -> tuple[object, ...]:
    """What a module's or class's body does itself."""
    constants = [constant for constant in code.co_consts if not isinstance(constant, types.CodeType)]
    return code.co_code, repr(constants), code.co_names


class Runner:
    """Runs the trials of a file instead of the collected tests, and writes a line of JSON for each."""

    def __init__(self, path: Path) -> None:
        plan = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        self._trials = [Trial(**{**entry, "tests": tuple(entry["tests"])}) for entry in plan]
        self._results = path.with_suffix(".results")

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = {item.nodeid: item for item in session.items}
        with self._results.open("a") as results:
            for trial in self._trials:
                tests = [items[test] for test in trial.tests if test in items]
                results.write(json.dumps(astuple(self._outcome(session, trial, tests))) + "\n")
                results.flush()
        return True

    def _outcome(self, session: pytest.Session, trial: Trial, tests: list[pytest.Item]) -> Outcome:
        read, write = os.pipe()
        if (child := os.fork()) == 0:
            os.setsid()
            _silence()
            resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
            os._exit(_try(session, trial, tests, write))
        os.close(write)
        status = _wait(child)
        with os.fdopen(read) as pipe:
            test = pipe.read().rstrip().rpartition("\n")[2]
        state = STATES.get(os.waitstatus_to_exitcode(status), "timed out") if status is not None else "timed out"
        return Outcome(trial.module, trial.number, state, test)


def _silence() -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)


def _try(session: pytest.Session, trial: Trial, tests: list[pytest.Item], pipe: int) -> int:
    path = Path.cwd() / trial.module
    pairs = replacements(path.read_text("utf-8"), path, trial.number) or {}
    gc.unfreeze()  # `gc.get_objects` leaves out what tests/conftest.py has frozen: every function of the app.
    functions = [one for one in gc.get_objects() if isinstance(one, types.FunctionType) and one.__code__ in pairs]
    for function in functions:
        function.__code__ = pairs[function.__code__]
    if not functions:
        return 2
    for item, following in zip(tests, [*tests[1:], None], strict=True):
        os.write(pipe, f"{item.nodeid}\n".encode())
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.testsfailed:
            return 1
    return 0


def _wait(child: int) -> int | None:
    """The exit status; None if the tests wait for something that does not happen."""
    process, used, since = psutil.Process(child), 0.0, time.monotonic()
    status = None
    while time.monotonic() - since < IDLE_SECONDS:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            break
        if (now := sum(process.cpu_times()[:2])) > used:
            used, since = now, time.monotonic()
        time.sleep(0.05)
    else:
        status = None
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if status is None:
        os.waitpid(child, 0)
    return status


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--trials", type=Path, help="The file of trials.")


def pytest_configure(config: pytest.Config) -> None:
    path: Path | None = config.getoption("--trials")
    if path:
        config.pluginmanager.register(Runner(path))

"""Changes a module in one place at a time and says which changes its tests do not notice.

    python -m tests.support.mutate app/services/lists/paging.py --sample 20 [--tests tests/services/test_paging.py]

It works on a copy of the checkout, so nothing here changes, and prints every survivor with its line. Without `--tests`
it runs the test modules that import the module (and its doctests), on SQLite alone.
"""

import argparse
import ast
import copy
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
COPIED = ("app", "tests", "pyproject.toml", "schema.graphql", "README.md")
SECONDS = 600.0
"""How long the unchanged tests may take; those of a change, which may never end, get three times what these took."""
NOT_RUN = 5
"""What pytest returns when it has found no test."""

SWAPPED: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
}  # fmt: skip


def mutants(source: str) -> Iterator[tuple[int, str, str]]:
    """Line, description and source of every module that differs from this one in one place.

    >>> [(line, what) for line, what, _ in mutants("def f(a):\\n    return a < 1")]
    [(2, 'return a < 1 -> return None'), (2, 'a < 1: Lt -> LtE'), (2, '1 -> 2')]
    """
    tree = ast.parse(source)
    for at, node in enumerate(ast.walk(tree)):
        for what, change in _changes(node):
            changed = copy.deepcopy(tree)
            twin = next(other for number, other in enumerate(ast.walk(changed)) if number == at)
            for name, value in change.items():
                setattr(twin, name, value)
            yield getattr(node, "lineno", 0), what, ast.unparse(ast.fix_missing_locations(changed))


def _changes(node: ast.AST) -> Iterator[tuple[str, dict[str, object]]]:
    text = ast.unparse(node) if isinstance(node, ast.expr | ast.stmt) else ""
    match node:
        case ast.Compare(ops=[operator]) if type(operator) in SWAPPED:
            other = SWAPPED[type(operator)]
            yield f"{text}: {type(operator).__name__} -> {other.__name__}", {"ops": [other()]}
        case ast.BoolOp(op=operator) | ast.BinOp(op=operator) if type(operator) in SWAPPED:
            other = SWAPPED[type(operator)]
            yield f"{text}: {type(operator).__name__} -> {other.__name__}", {"op": other()}
        case ast.Constant(value=bool() as value):
            yield f"{value} -> {not value}", {"value": not value}
        case ast.Constant(value=int() | float() as value):
            yield f"{value} -> {value + 1}", {"value": value + 1}
        case ast.If(test=test):
            yield f"if {ast.unparse(test)} -> if not", {"test": ast.UnaryOp(ast.Not(), test)}
        case ast.Return(value=ast.expr() as value) if not (isinstance(value, ast.Constant) and value.value is None):
            yield f"{text} -> return None", {"value": ast.Constant(None)}
        case ast.Expr(value=ast.Call() | ast.Await()):
            yield f"{text} left out", {"value": ast.Constant(None)}


def nearest_tests(module: Path) -> list[str]:
    """The test modules that name the module in an import, then the module itself for its doctests."""
    package, _, name = module.with_suffix("").as_posix().replace("/", ".").rpartition(".")
    needles = (f"from {package}.{name} import", f"import {package}.{name}")
    own = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        lines = path.read_text("utf-8").splitlines()
        direct = any(line.startswith(needles) for line in lines)
        if direct or any(line.startswith(f"from {package} import") and name in line.split() for line in lines):
            own.append(path.relative_to(ROOT).as_posix())
    return [*own, module.as_posix()]


def run_tests(folder: Path, tests: list[str], seconds: float) -> int:
    """What pytest returns; a run that takes too long, as one that never ends, counts as a failed one."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n0", "-p", "no:cacheprovider", "-k", "not postgresql"]
    environment = {**os.environ, "CI": "1", "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run([*command, *tests], cwd=folder, env=environment, capture_output=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return 1
    return done.returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("module", type=Path, help="the module to change, from the root of the checkout")
    parser.add_argument("--sample", type=int, default=20, help="how many changes are tried")
    parser.add_argument("--seed", type=int, default=1, help="which ones these are")
    parser.add_argument("--tests", nargs="+", help="the tests that should notice")
    arguments = parser.parse_args()
    source = (ROOT / arguments.module).read_text("utf-8")
    every = list(mutants(source))
    chosen = random.Random(arguments.seed).sample(every, min(arguments.sample, len(every)))
    tests = arguments.tests or nearest_tests(arguments.module)
    print(f"{len(chosen)} of {len(every)} changes, tried with {' '.join(tests)}", flush=True)
    survivors = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in COPIED:
            if (ROOT / part).is_dir():
                unneeded = shutil.ignore_patterns("node_modules", "__pycache__")
                shutil.copytree(ROOT / part, folder / part, ignore=unneeded)
            else:
                shutil.copy(ROOT / part, folder / part)
        began = time.monotonic()
        if (code := run_tests(folder, tests, SECONDS)) != 0:
            print("no test was found" if code == NOT_RUN else "the tests fail already without a change")
            return 2
        seconds = 10 + 3 * (time.monotonic() - began)
        for line, what, changed in sorted(chosen):
            (folder / arguments.module).write_text(changed, "utf-8")
            if run_tests(folder, tests, seconds) == 0:
                survivors += 1
                print(f"SURVIVED {arguments.module}:{line}: {what}", flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} caught")
    return 0


if __name__ == "__main__":
    sys.exit(main())

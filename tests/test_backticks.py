"""Names of our own code in backticks, in docstrings, comments and pages, exist."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.documentation import PAGES, ROOT

MODULES = sorted(path for path in (ROOT / "app").rglob("*.py") if path.parent.name != "versions")
FILES = {
    str(path.relative_to(ROOT))
    for folder in ("app", "tests")
    for path in (ROOT / folder).rglob("*")
    if "node_modules" not in path.parts
} | {path.name for path in ROOT.iterdir()}
WORD = re.compile(r"\w+")


def words(tree: ast.Module) -> Iterator[str]:
    """Every name and every word of a string in the code, but not those of docstrings."""
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant):
            if isinstance(node.value, str) and id(node) not in docstrings:
                yield from WORD.findall(node.value)
        else:
            for field in ("id", "attr", "name", "arg", "module", "asname"):
                if isinstance(name := getattr(node, field, None), str):
                    yield from name.split(".")


def in_backticks(source: str, tree: ast.Module) -> Iterator[str]:
    """What is in backticks in the comments and docstrings of a module."""
    values = [node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)]
    texts = [value.value for value in values if isinstance(value, ast.Constant) and isinstance(value.value, str)]
    for text in (*texts, *re.findall(r"#.*", source)):
        yield from re.findall(r"`([^`\n]+)`", text)


def is_missing(name: str, known: set[str]) -> bool:
    """Whether the name looks like one of ours, by a slash or a dot, and there is none such."""
    if re.fullmatch(r"[\w/]+\.(py|md)", name):
        return not any(f"/{file}".endswith(f"/{name}") for file in FILES)
    if re.fullmatch(r"(app|tests)(/\w+)+/?", name):
        return name.rstrip("/") not in FILES and f"{name}.py" not in FILES
    if re.fullmatch(r"app(\.\w+)+", name) and not name.startswith("app.state."):
        path, _, last = name.replace(".", "/").rpartition("/")
        return f"{path}/{last}.py" not in FILES and f"{path}/{last}" not in FILES and f"{path}.py" not in FILES
    return bool(re.fullmatch(r"[a-z_]+(\.[A-Za-z_]\w*)+", name)) and not set(name.split(".")) <= known


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("storage/tables/search.py", False),
        ("segment_runs.py", True),
        ("app/engine/plan", False),
        ("app/engine/view", True),
        ("app.engine.members.regraph", False),
        ("app.engine.view", True),
        ("trampoline.run", False),
        ("walking.run", True),
    ],
)
def test_a_missing_name_is_recognised(name: str, missing: bool) -> None:
    assert is_missing(name, {"trampoline", "run"}) == missing


def test_names_in_docstrings_and_comments_exist() -> None:
    # The examples in this file are not names of the code.
    others = (path for path in sorted((ROOT / "tests").rglob("*.py")) if path != Path(__file__))
    sources = {path: path.read_text() for path in (*MODULES, *others)}
    trees = {path: ast.parse(source) for path, source in sources.items()}
    known = {part for path in MODULES for part in (path.stem, path.parent.name)}.union(*map(words, trees.values()))
    missing = {
        f"{path.relative_to(ROOT)}: `{name}`"
        for path in MODULES
        for name in in_backticks(sources[path], trees[path])
        if is_missing(name, known)
    }
    assert missing == set()


@pytest.mark.parametrize("page", PAGES)
def test_files_in_pages_exist(page: str) -> None:
    names = re.findall(r"`([^`\n]+)`", PAGES[page])
    assert [name for name in names if "/" in name and is_missing(name, set())] == []

"""What the README and the pages say is there: operations, commands, settings, files, links."""

import re
from typing import Any

import pytest
import typer
from graphql import DocumentNode, build_schema, print_ast, validate

from app.api.transport.documentation import PAGES as FOLDER
from app.api.transport.documentation import page_names, rendered
from app.cli.main import cli
from app.settings import Settings
from tests.support.documentation import PAGES, ROOT, commands, operations

SCHEMA = build_schema((ROOT / "schema.graphql").read_text())
OPERATIONS = [
    pytest.param(operation, id=f"{name} {at}")
    for name, text in PAGES.items()
    for at, operation in enumerate(operations(text))
]
COMMANDS = [pytest.param(each, id=f"{name}: {' '.join(each)}") for name in PAGES for each in commands(PAGES[name])]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_is_valid(operation: DocumentNode) -> None:
    assert [error.message for error in validate(SCHEMA, operation)] == [], print_ast(operation)


def test_there_are_operations_of_each_kind() -> None:
    kinds = {operation.definitions[0].operation.value for text in PAGES.values() for operation in operations(text)}  # type: ignore[attr-defined]
    assert kinds == {"query", "mutation", "subscription"}


@pytest.mark.parametrize("arguments", COMMANDS)
def test_a_command_has_these_options(arguments: list[str]) -> None:
    command: Any = typer.main.get_command(cli)
    while arguments and not arguments[0].startswith("-") and hasattr(command, "commands"):
        name, *arguments = arguments
        command = command.commands[name]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    used = {argument.split("=")[0] for argument in arguments if argument.startswith("--")}
    assert used - known - {"--help"} == set()


@pytest.mark.parametrize("page", PAGES)
def test_settings_and_files_are_there(page: str) -> None:
    text = PAGES[page]
    settings = set(re.findall(r"SEGMENTATION_([A-Z_]+)\b", text)) - {"TEST_REQUIRE"}
    assert sorted(name for name in settings if name.lower() not in Settings.model_fields) == []
    modules = re.findall(r"`?python (?:-m )?(tests[./][\w./]+)", text)
    files = [name if name.endswith(".py") else f"{name.replace('.', '/')}.py" for name in modules]
    mains = [f"{file.removesuffix('.py')}/__main__.py" for file in files]
    paths = [main if (ROOT / main).exists() else file for file, main in zip(files, mains, strict=True)]
    paths += re.findall(r"`((?:app|tests)/[\w./]+)`", text)
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("name", page_names())
def test_links_lead_somewhere(name: str) -> None:
    anchors = {other: set(re.findall(r'<h\d id="([^"]+)"', rendered(other))) for other in page_names()}
    for target in re.findall(r'(?:href|src)="([^"]+)"', rendered(name)):
        path, _, anchor = target.partition("#")
        if path.startswith(("http://", "https://")) or path in {"/", "/graphql", "/docs/style.css"}:
            continue
        other = path.removeprefix("/docs/").removesuffix(".md") or name
        if other.startswith("images/") or other.endswith(".ipynb"):
            assert (FOLDER / other).is_file()
        else:
            assert other in anchors, target
            assert not anchor or anchor in anchors[other], target


def test_the_readme_links_every_page() -> None:
    linked = set(re.findall(r"\(app/docs/([\w-]+)\.md\)", PAGES["README"]))
    assert linked == set(page_names())

"""The README's operations are valid against the printed schema, and its settings and commands are there."""

import re
from pathlib import Path

import pytest
from graphql import DocumentNode, OperationDefinitionNode, build_schema, parse, validate

from app.settings import Settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
OPERATIONS = [
    definition
    for block in re.findall(r"^```graphql\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    for definition in parse(block).definitions
    if isinstance(definition, OperationDefinitionNode)
]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.operation.value)
def test_an_operation_is_valid(operation: OperationDefinitionNode) -> None:
    schema = build_schema((ROOT / "schema.graphql").read_text())
    assert [error.message for error in validate(schema, DocumentNode(definitions=(operation,)))] == []


def test_there_are_operations_of_each_kind() -> None:
    assert {operation.operation.value for operation in OPERATIONS} == {"query", "mutation", "subscription"}


def test_settings_are_real() -> None:
    named = set(re.findall(r"SEGMENTATION_([A-Z_]+)\b", README))
    assert sorted(name for name in named if name.lower() not in Settings.model_fields) == []


def test_files_are_there() -> None:
    named = re.findall(r"`?python (?:-m )?(tests[./][\w./]+)", README)
    paths = [name if name.endswith(".py") else f"{name.replace('.', '/')}.py" for name in named]
    assert paths != []
    assert [path for path in paths if not (ROOT / path).is_file()] == []

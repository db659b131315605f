"""Compiled operations answer as graphql-core does. For long: `pytest -n0 --timeout 0 --operations 10000 --seed 7`."""

import asyncio
from random import Random
from typing import Any

import pytest
from graphql import GraphQLObjectType, build_schema

from app.api.context import Limits
from app.api.execution import CompiledExecution
from app.api.execution.direct import Direct, direct
from app.api.execution.executor import _PLANS
from app.api.execution.plan import WAYS_KEPT
from app.api.schema import build_schema as build_gateway_schema
from app.api.schema import print_schema
from tests.api.conftest import Api
from tests.support.random_operations import RandomOperations, shown
from tests.support.variations import VARIABLES, varied


@pytest.fixture
def limits() -> Limits:
    return Limits(max_tokens=100_000, max_depth=30, max_aliases=1_000, max_cost=2**53 - 1)


async def both(api: Api, monkeypatch: pytest.MonkeyPatch, document: str, **variables: Any) -> list[dict[str, Any]]:
    """The answer of a compiled operation, and that of graphql-core."""
    answers = []
    for compiled in (True, False):
        with monkeypatch.context() as patch:
            patch.setattr(CompiledExecution, "_is_covered", lambda _self, compiled=compiled: compiled)
            answers.append(await asyncio.wait_for(api.answer(document, **variables), 60))
    return answers


def same(compiled: dict[str, Any], plain: dict[str, Any]) -> bool:
    """Equal data, and equal errors but for one thing: of several errors that would null the same place, the
    specification lets one be told, and graphql-core tells that which came first in time."""
    if compiled.get("data") != plain.get("data") or ("data" in compiled) != ("data" in plain):
        return False
    if keys(compiled.get("data")) != keys(plain.get("data")):
        return False
    ours, theirs = (by_place(answer) for answer in (compiled, plain))
    return ours.keys() == theirs.keys() and all(
        ours[place] == theirs[place] or ours[place]["path"] != theirs[place]["path"] for place in ours
    )


def by_place(answer: dict[str, Any]) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Errors by the place that is null for them; those without a path by their message."""
    errors = {}
    for error in answer.get("errors", []):
        place, value = [], answer.get("data")
        for part in error.get("path", [error["message"]]):
            if value is None:
                break
            place.append(part)
            value = value[part]
        errors[tuple(place)] = error
    return errors


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_answers_are_those_of_graphql_core(
    api: Api, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    await api.loaded()
    schema, random = build_schema(print_schema()), Random(request.config.getoption("--seed"))
    operations = RandomOperations(schema, request.config.getoption("--seed"))
    compared = with_errors = 0
    for _ in range(request.config.getoption("--operations")):
        document, variables = operations.next()
        if document.startswith("mutation"):
            operations.learn((await api.answer(document, **variables)).get("data"))
            continue
        document = varied(schema, document, random)
        compiled, plain = await both(api, monkeypatch, document, **variables, **VARIABLES)
        assert same(compiled, plain), f"{compiled}\n{plain}\n{shown(document, variables)}"
        operations.learn(compiled.get("data"))
        compared += 1
        with_errors += "errors" in compiled
    assert compared > with_errors > 0


def test_resolvers_are_called_directly_but_those_of_mutations() -> None:
    """Their guard stands in the place of their resolver, and must not be passed by."""
    schema = build_gateway_schema(Limits())._schema
    objects = [type_ for type_ in schema.type_map.values() if isinstance(type_, GraphQLObjectType)]
    fields = {
        f"{type_.name}.{name}": field
        for type_ in objects
        for name, field in type_.fields.items()
        if (declared := field.extensions.get("strawberry-definition")) is not None and declared.base_resolver
    }
    around = {name for name, field in fields.items() if direct(field) is None}
    assert around == {name for name in fields if name.startswith(("Mutation.", "Subscription."))}
    assert len(fields) - len(around) > 100


def keys(value: Any) -> Any:
    """The names in an answer, in their order."""
    if isinstance(value, dict):
        return [(name, keys(inner)) for name, inner in value.items()]
    return [keys(inner) for inner in value] if isinstance(value, list) else None


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "document",
    [
        "{ __schema { queryType { name } types { name kind fields { name type { name ofType { name } } } } } }",
        '{ __type(name: "Audience") { name fields(includeDeprecated: true) { name args { name defaultValue } } } }',
        "{ a: __typename viewer { __typename } b: viewer { sandbox } }",
        "{ audiences(first: 501) { nodes { id } } viewer { sandbox } }",
        '{ segmentDefinitions { nodes { jobs(after: "no cursor") { nodes { id } } name } } }',
        '{ node(id: "nothing") { id } nodes(ids: ["nothing", ""]) { id __typename ... on Audience { name } } }',
        '{ pql { functions { name } check(expression: "a = ") { diagnostics { message } } } }',
    ],
)
async def test_odd_shapes(api: Api, monkeypatch: pytest.MonkeyPatch, document: str) -> None:
    await api.loaded()
    await api.define("One")
    compiled, plain = await both(api, monkeypatch, document)
    assert same(compiled, plain), f"{compiled}\n{plain}"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_the_plans_of_one_operation_are_bounded(api: Api) -> None:
    names = [f"v{number}" for number in range(5)]
    declared = ", ".join(f"${name}: Boolean!" for name in names)
    fields = " ".join(f"{name}: __typename @include(if: ${name})" for name in names)
    for bits in range(32):
        chosen = {name: bool(bits >> at & 1) for at, name in enumerate(names)}
        answer = await api.query(f"query ({declared}) {{ {fields} }}", **chosen)
        assert answer == {name: "Query" for name in names if chosen[name]}
    assert max(len(entry.plans) for entry in _PLANS.entries.values()) == WAYS_KEPT


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("document", "conversions"),
    [
        ("{ audiences(first: 2) { nodes { name } } }", 1),
        ("{ audiences(first: -2) { nodes { name } } }", 3),
        ("query ($first: Int) { audiences(first: $first) { nodes { name } } }", 3),
        ("{ audiences(orderBy: {field: NAME, direction: ASC}) { nodes { name } } }", 3),
    ],
)
async def test_constant_arguments_are_converted_once(
    api: Api, monkeypatch: pytest.MonkeyPatch, document: str, conversions: int
) -> None:
    converted: list[Direct] = []
    convert = Direct.converted

    def noting(direct: Direct, *arguments: Any) -> Any:
        converted.append(direct)
        return convert(direct, *arguments)

    monkeypatch.setattr(Direct, "converted", noting)
    answers = [await api.answer(document, **({"first": 2} if "$" in document else {})) for _ in range(3)]
    assert answers[1:] == answers[:2]
    assert len(converted) == conversions

"""What is accepted without graphql-core's validation is valid by it."""

import re
from random import Random

import pytest
from graphql import GraphQLError, GraphQLSchema, build_schema, parse, specified_rules
from strawberry.schema.schema import validate_document

from app.api.context import Limits
from app.api.guards.inputs import PlainStrings
from app.api.guards.validity import MOST_NODES, is_plainly_valid
from app.api.schema import build_schema as build_gateway_schema
from app.api.schema import print_schema
from tests.api.conftest import Api
from tests.support.random_operations import RandomOperations
from tests.support.variations import varied

SCHEMA: GraphQLSchema = build_gateway_schema(Limits())._schema


def accepted(document: str) -> bool:
    return is_plainly_valid(SCHEMA, parse(document, no_location=True))


def valid(document: str) -> bool:
    return not validate_document(SCHEMA, parse(document), (*specified_rules, PlainStrings))


@pytest.mark.parametrize(
    "document",
    [
        "{ __typename }",
        "{ audiences(first: 50) { nodes { name definition { expression jobs(first: 5) { nodes { status } } } } } }",
        "query A($n: Int = 3, $id: ID!) { audiences(first: $n) { totalCount } audience(id: $id) { ...F } } "
        "fragment F on Audience { name ... @include(if: true) { name type } ... on Node { id } }",
        'query ($f: [AudienceType!]) { audiences(filter: { type: $f, name: { contains: "a" } }, '
        "orderBy: { field: NAME, direction: DESC }) { edges { cursor node { id } } pageInfo { endCursor } } }",
        "mutation ($input: CreateFolderInput!) { createFolder(input: $input) { errors { code } } }",
        'query ($x: Boolean!) { node(id: "a") @skip(if: $x) { '
        "__typename ... on Audience { name } ... on Schedule { name } } }",
    ],
)
def test_usual_documents_are_accepted(document: str) -> None:
    assert valid(document), document
    assert accepted(document)


@pytest.mark.parametrize(
    "document",
    [
        "{ nothing }",
        "{ audiences }",
        "{ audiences { nodes { name { first } } } }",
        "{ viewer { sandbox { name } } }",
        '{ audiences(first: "5") { totalCount } }',
        "{ audiences(first: 5, first: 6) { totalCount } }",
        "{ audiences(least: 5) { totalCount } }",
        "{ audience { name } }",
        "{ a: __typename a: viewer { sandbox } }",
        "{ audiences(first: 1) { totalCount } audiences(first: 2) { totalCount } }",
        "{ audiences { nodes { name: id name } } }",
        "{ __typename @skip(if: true) @skip(if: false) }",
        "{ __typename @skip }",
        "{ __typename @unknown }",
        "query @skip(if: true) { __typename }",
        "query ($a: Int) { __typename }",
        "query ($a: Int, $a: Int) { audiences(first: $a) { totalCount } }",
        "query ($a: String) { audiences(first: $a) { totalCount } }",
        "query ($a: ID) { audience(id: $a) { name } }",
        "query ($a: Audience) { __typename @skip(if: $a) }",
        'query ($a: Int = "x") { audiences(first: $a) { totalCount } }',
        "{ audiences(first: $a) { totalCount } }",
        "{ ...F } fragment F on Query { ...F }",
        "{ ...F } fragment F on Query { ...G } fragment G on Query { ...F }",
        "{ ...F }",
        "{ __typename } fragment F on Query { __typename }",
        "{ ...F } fragment F on Query { __typename } fragment F on Query { __typename }",
        "{ ... on Audience { name } }",
        "{ ... on String { name } }",
        "{ ... on Nothing { name } }",
        "{ __typename } { __typename }",
        "query A { __typename } query A { __typename }",
        "subscription { __typename }",
        "type A { b: Int }",
        "{ audiences(filter: { nothing: 1 }) { totalCount } }",
        "{ audiences(filter: { name: { contains: 1 } }) { totalCount } }",
        "{ audiences(filter: { type: { eq: NO } }) { totalCount } }",
        '{ audiences(filter: { name: { eq: "a", eq: "b" } }) { totalCount } }',
        "{ audiences(filter: 5) { totalCount } }",
        '{ audience(id: "\\u0000") { name } }',
        "mutation { createFolder(input: {}) { errors { code } } }",
        "{ audience(id: null) { name } }",
        "{ audiences(first: 99999999999) { totalCount } }",
        "{ ...F } fragment F on Query @skip(if: true) { __typename }",
        "query ($a: Int @skip(if: true)) { audiences(first: $a) { totalCount } }",
        "{ __typename(a: 1) }",
        "{ __typename { a } }",
        "{ audiences { nodes { a: createdBy a: lastModifiedBy } } }",
        'query { node(id: "a") { ... on Audience { type } ... on Schedule { type } } }',
        "{ segmentDefinitions { nodes { expression expression(format: PQL_JSON) } } }",
        "{ segmentDefinitions { nodes { expression(format: PQL_JSON) expression } } }",
        '{ audience(id: ["a"]) { name } }',
        '{ node(id: "a") { name } }',
    ],
)
def test_invalid_documents_are_not_accepted(document: str) -> None:
    assert not valid(document), document
    assert not accepted(document)


def test_fragments_within_fragments_end() -> None:
    """Each is spread twice by the next: 2^40 selections."""
    fragments = "".join(f"fragment F{n} on Query {{ ...F{n + 1} ...F{n + 1} }} " for n in range(40))
    document = f"{{ ...F0 }} {fragments} fragment F40 on Query {{ __typename }}"
    assert valid(document)
    assert not accepted(document)
    assert not accepted("{ " + "__typename " * (MOST_NODES + 1) + "}")


async def test_refused_documents_have_their_errors(api: Api) -> None:
    """Also when an equal document was accepted before, and a valid one is executed."""
    assert await api.query("{ audiences(first: 1) { totalCount } }") == {"audiences": {"totalCount": 0}}
    for _ in range(2):
        answer = await api.answer("{ audiences(first: 1) { totalCounts } }")
        (error,) = answer["errors"]
        assert (
            error["message"]
            == "Cannot query field 'totalCounts' on type 'AudienceConnection'. Did you mean 'totalCount'?"
        )


def test_damaged_documents(request: pytest.FixtureRequest) -> None:
    """Random operations, and the same with a part left out, doubled or replaced by one of another place."""
    schema, seed = build_schema(print_schema()), request.config.getoption("--seed")
    operations, random = RandomOperations(schema, seed), Random(seed)
    words = ["$yes", "name", "first", "5", '"x"', "null", "@skip(if: true)", "...F1", "totalCount"]
    counts = {"accepted": 0, "invalid": 0, "valid": 0}
    for _ in range(request.config.getoption("--operations")):
        document = operations.next()[0]
        if document.startswith("query") and random.random() < 0.7:
            document = varied(schema, document, random)
        for text in (document, damaged(document, words, random)):
            try:
                parse(text)
            except GraphQLError:
                continue
            if accepted(text):
                counts["accepted"] += 1
                assert valid(text), text
            elif random.random() < 0.2:
                counts["valid" if valid(text) else "invalid"] += 1
    assert counts["accepted"] > counts["valid"]
    assert counts["invalid"] > 0


def damaged(document: str, words: list[str], random: Random) -> str:
    tokens = re.findall(r'"(?:[^"\\]|\\.)*"|[\w$@.]+|\s+|.', document)
    for _ in range(random.choice([1, 1, 2])):
        at = random.randrange(len(tokens))
        match random.randrange(4):
            case 0:
                tokens[at] = ""
            case 1:
                tokens[at] = f"{tokens[at]} {tokens[at]}"
            case 2:
                tokens[at] = random.choice(tokens)
            case _:
                tokens[at] = random.choice(words)
    return "".join(tokens)

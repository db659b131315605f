"""Whatever is sent, nothing is an internal error. For long: `pytest -n0 --timeout 0 --operations 5000 --seed 7`."""

import asyncio
from collections import Counter

import pytest
from graphql import build_schema

from app.api.context import Limits
from app.api.schema import print_schema
from tests.api.conftest import Api
from tests.support.random_operations import RandomOperations, shown


@pytest.fixture
def limits() -> Limits:
    return Limits(max_tokens=100_000, max_depth=30, max_aliases=1_000, max_cost=2**53 - 1)


@pytest.mark.usefixtures("working")
async def test_nothing_is_an_internal_error(api: Api, request: pytest.FixtureRequest) -> None:
    await api.loaded()
    operations = RandomOperations(build_schema(print_schema()), request.config.getoption("--seed"))
    outcomes: Counter[str] = Counter()
    for _ in range(request.config.getoption("--operations")):
        document, variables = operations.next()
        answer = await asyncio.wait_for(api.answer(document, **variables), 60)
        operations.learn(answer.get("data"))
        codes = {error.get("extensions", {}).get("code", "GRAPHQL") for error in answer.get("errors", [])}
        assert "INTERNAL" not in codes, f"{answer['errors']}\n{shown(document, variables)}"
        outcomes.update(codes or {"OK"})
    assert outcomes["OK"] > sum(outcomes.values()) / 2, outcomes
    jobs = """{ segmentJobs(first: 500) { nodes { errors { code } segments { nodes { error { code } } } } }
      exportJobs(first: 500) { nodes { errors { code } } } }"""
    found = await api.query(jobs)
    assert "INTERNAL" not in str(found)

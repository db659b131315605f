"""What one operation may cost."""

import pytest

from app.api.context import Limits
from tests.api.conftest import Api

# What is tried here asks nothing of the database that depends on its kind.
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def limits() -> Limits:
    return Limits(max_tokens=200, max_depth=4, max_aliases=3, max_upload_bytes=2_000)


async def refusals(api: Api, document: str) -> list[str]:
    answer = await api.answer(document)
    assert "data" not in answer
    return [error["message"] for error in answer["errors"]]


async def test_depth(api: Api) -> None:
    allowed = "{ segmentJobs { nodes { segments { totalCount } } } }"
    assert "errors" not in await api.answer(allowed)
    deeper = "{ segmentJobs { nodes { segments { nodes { version } } } } }"
    says = ["the operation is 5 levels deep, and at most 4 are allowed: split it"]
    assert await refusals(api, deeper) == says
    spread = "{ segmentJobs { ...A } } fragment A on SegmentJobConnection { nodes { ... on SegmentJob { ...B } } } "
    assert await refusals(api, spread + "fragment B on SegmentJob { segments { nodes { version } } }") == says


async def test_aliases_also_in_fragments(api: Api) -> None:
    three = "{ a: viewer { sandbox } b: viewer { sandbox } c: viewer { sandbox } }"
    assert "errors" not in await api.answer(three)
    twice = "{ a: viewer { ...F } b: viewer { ...F } } fragment F on Viewer { c: sandbox }"
    assert await refusals(api, twice) == ["the operation has 4 aliases, and at most 3 are allowed: split it"]


async def test_fragments_that_multiply_come_to_an_end(api: Api) -> None:
    chain = " ".join(f"fragment F{i} on Viewer {{ ...F{i + 1} ...F{i + 1} }}" for i in range(12))
    document = f"{{ viewer {{ ...F0 }} }} {chain} fragment F12 on Viewer {{ x: sandbox }}"
    assert await refusals(api, document) == [f"the operation has {2**12} aliases, and at most 3 are allowed: split it"]


async def test_unknown_and_circular_fragments_are_graphqls_own_errors(api: Api) -> None:
    assert await refusals(api, "{ viewer { ...Gone } }") == ["Unknown fragment 'Gone'."]
    circle = "{ viewer { ...A } } fragment A on Viewer { ...A }"
    assert await refusals(api, circle) == ["Cannot spread fragment 'A' within itself."]


async def test_tokens(api: Api) -> None:
    (says,) = await refusals(api, "{ viewer { " + "sandbox " * 200 + "} }")
    assert says == "Syntax Error: Document contains more than 200 tokens. Parsing aborted."


async def test_a_document_that_was_valid_is_valid_again_and_one_that_was_not_is_not(api: Api) -> None:
    for _ in range(2):
        assert "errors" not in await api.answer("{ viewer { sandbox } }")
        assert await refusals(api, "{ viewer { nothing } }") == ["Cannot query field 'nothing' on type 'Viewer'."]


async def test_uploads(api: Api) -> None:
    response = await api.upload(await api.dataset(), b"customer,when\n" + b"1,2026-01-01\n" * 200)
    assert response.status_code == 413
    assert response.json()["errors"][0]["message"].startswith("the request is larger than 2,000 bytes")


async def test_pages(api: Api) -> None:
    for first, code, says in (
        (501, "LIMIT_EXCEEDED", "`first` is 501, but a page has at most 500 items: ask for several pages"),
        (-1, "INVALID_INPUT", "`first` is -1, but a page has 0 items or more"),
    ):
        answer = await api.answer("query ($first: Int) { datasets(first: $first) { totalCount } }", first=first)
        (error,) = answer["errors"]
        assert error["message"] == says
        assert error["extensions"] == {"code": code, "path": ["first"]}
        assert error["path"] == ["datasets"]

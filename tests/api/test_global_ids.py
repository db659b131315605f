"""Global and raw ids."""

import pytest

import app.api.schema  # noqa: F401 - defines the node types
from app.api.global_ids import find_id, global_id, need_id, split_id
from app.errors import ErrorCode, Refusal


@pytest.mark.parametrize("raw", ["0197abc", "crm:00001", "customer:a:b", "", "YWJj", "Zoë", "a b/c?"])
def test_global_ids_lead_back(raw: str) -> None:
    assert split_id(global_id("Profile", raw)) == ("Profile", raw)


@pytest.mark.parametrize("raw", ["0197abc", "crm:00001", "YWJj", "U29tZXRoaW5nOmFiYw==", "not base64!", ""])
def test_raw_ids_stay(raw: str) -> None:
    assert split_id(raw) == (None, raw)
    assert find_id("Audience", raw) == raw


def test_an_id_of_another_type_finds_nothing() -> None:
    other = global_id("Dataset", "1")
    assert find_id("Audience", other) is None
    with pytest.raises(Refusal) as refused:
        need_id("Audience", other, "input", "id")
    assert refused.value.code is ErrorCode.NOT_FOUND
    assert (
        refused.value.message
        == f"'{other}' is the id of an object of type Dataset, but one of type Audience is asked for"
    )
    assert refused.value.path == ("input", "id")

"""A small part of what the programs in `tests/support/hostile` send to a real server."""

import warnings
from collections.abc import Iterator

import pytest

from tests.support.hostile.endurance import figures, run
from tests.support.hostile.noise import Noise
from tests.support.hostile.schema_cases import send_cases
from tests.support.hostile.server import Target, target
from tests.support.hostile.texts import TEXTS, places, send_texts

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def server() -> Iterator[Target]:
    with target(max_cost="1000000000") as started:
        started.hangs_after = 120.0  # here nothing depends on how busy the machine is
        yield started


@pytest.fixture(autouse=True)
def nothing_wrong(server: Target) -> Iterator[None]:
    server.problems.clear()
    yield
    assert server.end() == 0, "\n".join(server.problems)


def test_hostile_texts(server: Target) -> None:
    assert len(TEXTS) >= 40
    assert len(list(places())) > 300
    names = ["union", "read csv", "parent", "line", "evil", "nul", "deep"]
    assert send_texts(server, {name: TEXTS[name] for name in names}, stride=11) > 200


def test_noise(server: Target) -> None:
    for _, send in Noise(server, seed=3).kinds():
        for _ in range(3):
            send()


def test_valid_operations_with_any_values(server: Target) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert send_cases(server, 60, 5) == 60


def test_many_requests(server: Target) -> None:
    lines: list[str] = []
    run(server, 520, lines.append)
    assert len(lines) == 10
    assert all(figure > 0 for figure in figures(server))


def test_what_is_wrong_is_found(server: Target) -> None:
    """The judge itself: each of these is a problem, and a plain answer is none."""
    for status, text, seconds in ((500, "", 0.1), (200, '{"code":"INTERNAL"}', 0.1), (200, "{}", 121.0)):
        server.judge("x", status, text, seconds)
    assert len(server.problems) == 3
    server.problems.clear()
    server.judge("x", 400, '{"errors":[]}', 0.1)
    assert server.problems == []

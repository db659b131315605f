"""A few rounds of chaos; `python -m tests.support.chaos --rounds 100` plays as many as one likes."""

import random
from pathlib import Path

import pytest

from tests.support.chaos import rounds


@pytest.mark.parametrize("empty_database_url", ["postgresql"], indirect=True)
async def test_what_befalls_workers_changes_no_result(empty_database_url: str, tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    outcomes = await rounds(empty_database_url, tmp_path, 2, seed, definitions_count=80)
    assert (outcomes["equal"], outcomes["WRONG"]) == (2, 0), f"seed {seed}: see what was printed"

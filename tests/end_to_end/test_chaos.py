"""A few rounds of chaos; `python -m tests.support.chaos --rounds 100` plays as many as one likes."""

import random
from pathlib import Path

from tests.support.chaos import rounds


async def test_what_befalls_workers_changes_no_result(empty_database_url: str, tmp_path: Path) -> None:
    count = 2 if empty_database_url.startswith("postgresql") else 1
    seed = random.SystemRandom().randrange(1 << 32)
    outcomes = await rounds(empty_database_url, tmp_path, count, seed, definitions_count=80)
    assert (outcomes["equal"], outcomes["WRONG"]) == (count, 0), f"seed {seed}: see what was printed"

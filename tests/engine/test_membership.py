"""What changes in a run, when somebody last entered, and the files."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap

from app.engine.members.membership import (
    BucketCounts,
    Membership,
    MembershipFiles,
    MembershipLost,
    counts,
    next_membership,
)
from tests.support.sandbox import Sandbox

START = datetime(2026, 6, 15, 12, tzinfo=UTC)


def test_realized_existing_exited() -> None:
    first = next_membership(None, "seg", BitMap([1, 2, 3]), 1, START)
    second = next_membership(first, "seg", BitMap([2, 3, 4]), 2, START + timedelta(days=1))
    namespaces = {"CRM": BitMap(range(10)), "Email": BitMap([3]), "ECID": BitMap([1])}
    assert counts(first, namespaces) == BucketCounts(3, 3, 0, 0, {"CRM": 3, "Email": 1, "ECID": 1})
    assert counts(second, namespaces) == BucketCounts(3, 1, 2, 1, {"CRM": 3, "Email": 1})
    assert (second.entered, second.exited, second.version) == (BitMap([4]), BitMap([1]), 2)
    assert [second.last_qualified(n) for n in range(5)] == [None, START, START, START, START + timedelta(days=1)]


@given(st.lists(st.frozensets(st.integers(0, 9)), min_size=1, max_size=8))
def test_the_last_entry_is_the_run_in_which_somebody_last_became_a_member(runs: list[frozenset[int]]) -> None:
    membership: Membership | None = None
    expected: dict[int, datetime] = {}
    before: frozenset[int] = frozenset()
    for day, members in enumerate(runs):
        at = START + timedelta(days=day)
        membership = next_membership(membership, "seg", BitMap(members), 1, at)
        expected |= dict.fromkeys(members - before, at)
        before = members
    assert membership is not None
    assert {n: membership.last_qualified(n) for n in range(10)} == {n: expected.get(n) for n in range(10)}
    assert sum(len(cohort) for _, cohort in membership.qualified) == len(expected)


def test_files_give_back_what_was_written(sandbox: Sandbox) -> None:
    first = next_membership(None, "a", BitMap([1, 70_000]), 3, START)
    second = next_membership(
        next_membership(None, "b", BitMap([5]), 1, START), "b", BitMap(), 2, START + timedelta(hours=1)
    )
    files = MembershipFiles(sandbox.lake)
    name = files.write("run", 7, 2, [first, second])
    assert re.fullmatch(r"7-2\.[0-9a-f]{32}\.parquet", name)
    assert files.read("run", 7, name) == {"a": first, "b": second}
    assert files.read("run", 7, name, ["b", "unknown"]) == {"b": second}
    assert [path.name for path in sandbox.lake.membership("run").iterdir()] == [name]
    with pytest.raises(MembershipLost):
        files.read("run", 7, "7-1.parquet")


def test_no_damage_is_another_answer(sandbox: Sandbox) -> None:
    """Each bit of a file flipped once, and the file cut anywhere: lost, or nobody's to those who mend."""
    files = MembershipFiles(sandbox.lake)
    name = files.write("run", 0, 1, [next_membership(None, "a", BitMap([1, 5, 9]), 1, START)])
    path = sandbox.lake.membership("run") / name
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
        with pytest.raises(MembershipLost):
            files.read("run", 0, name)
    for length in range(0, len(content), 97):
        path.write_bytes(content[:length])
        with pytest.raises(MembershipLost):
            files.read("run", 0, name)
        assert replace(files, mending=True).read("run", 0, name) == {}


def test_damage_to_a_file_of_before_there_were_checksums_is_no_error_of_ours(sandbox: Sandbox) -> None:
    files, first = MembershipFiles(sandbox.lake), next_membership(None, "a", BitMap([1, 5, 9]), 1, START)
    path = sandbox.lake.membership("run") / "0-1.parquet"
    (path.parent / files.write("run", 0, 1, [first])).rename(path)
    assert files.read("run", 0, path.name) == {"a": first}
    content = path.read_bytes()
    lost = 0
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
        try:
            files.read("run", 0, path.name)
        except MembershipLost:
            lost += 1
    assert lost > len(content) // 3

"""Compaction of small files: nothing that is read changes by it, and nothing depends on it."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from app.engine.ingest.batch import delete_dataset
from app.engine.ingest.notes import withdraw_batch
from app.engine.people import compaction
from app.engine.people.compaction import FEW, compact, event_paths
from app.engine.people.snapshot import Snapshot, open_snapshot, reopen
from app.engine.people.sources import Dataset, MergeRule
from app.engine.store.bucket import Needs
from app.engine.store.delta import TableVersion, bucket_folder, open_table
from tests.support.sandbox import EVENTS, Sandbox

E = Dataset("e", "EVENT")
RULE = MergeRule("newest", "TIMESTAMP_ORDERED")


def table(sandbox: Sandbox) -> TableVersion:
    current = open_table(sandbox.lake.dataset("e"))
    assert current is not None
    return current


def read(snapshot: Snapshot) -> list[Any]:
    """Everything of all buckets, in the order in which it is evaluated."""
    paths = frozenset((name,) for name in snapshot.sources.event_fields.fields)
    buckets = [snapshot.read(bucket, Needs(frozenset({("identityMap",)}), paths, True)) for bucket in snapshot.buckets]
    return [(bucket.ordinals.tolist(), bucket.event_rows.tolist(), bucket.events.to_pylist()) for bucket in buckets]


def plainly(monkeypatch: pytest.MonkeyPatch, snapshot: Snapshot) -> list[Any]:
    """The same from the dataset's own files."""
    with monkeypatch.context() as patched:
        patched.setattr(compaction, "FEW", 1 << 30)
        return read(snapshot)


def rows(choice: random.Random, kinds: int) -> Iterator[dict[str, Any]]:
    """Events of few people at few moments, with columns that come, go and widen."""
    for _ in range(choice.randint(1, 6)):
        row: dict[str, Any] = {"id": str(choice.randint(0, 2)), "timestamp": f"2026-01-0{choice.randint(1, 3)}"}
        if choice.random() < 0.5:
            row["_id"] = str(choice.randint(0, 30))
        if kinds > 1 and choice.random() < 0.5:
            row["n"] = choice.choice([1, 2, -3] if kinds == 2 else [0.5, 2])
        if choice.random() < 0.5:
            row["o"] = choice.choice([{"x": "a"}, {"y": ["b", "c"]}, {"x": "d", "y": []}])
        yield row


@pytest.mark.parametrize("seed", range(2))
def test_what_is_read_is_what_the_files_of_the_batches_say(
    sandbox: Sandbox, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = random.Random(seed)
    pinned = []
    for number in range(24):
        sandbox.rows("e", EVENTS, list(rows(choice, 1 + number // 8)))
        if choice.random() < 0.3:
            snapshot = open_snapshot(sandbox.lake, RULE, [E])
            expected = plainly(monkeypatch, snapshot)
            assert read(snapshot) == expected
            pinned.append((snapshot.pinned, expected))
    last = table(sandbox)
    compact(sandbox.lake, [last], 2)
    for bucket in {file.bucket for file in last.files}:
        assert len(event_paths(last, bucket)) < len(last.paths(bucket))
    # Earlier versions have some of the files that are one by now, and show what they showed.
    for pins, expected in pinned:
        assert read(reopen(sandbox.lake, RULE, [E], pins)) == expected


def one_bucket(sandbox: Sandbox, batches: int) -> int:
    """So many batches of one event of one person each; gives the bucket."""
    for number in range(batches):
        sandbox.rows("e", EVENTS, [{"id": "1", "timestamp": "2026-01-01", "n": number}])
    (bucket,) = {file.bucket for file in table(sandbox).files}
    return bucket


def copies(sandbox: Sandbox) -> list[Path]:
    return sorted(sandbox.lake.compacted("e").rglob("*.parquet"))


def test_files_stay_few_and_are_written_again_once_for_each_tier(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "_SMALLEST", 3_000)
    monkeypatch.setattr(compaction, "_READERS_SECONDS", 0.0)
    written = 0
    for number in range(36):
        sandbox.rows("e", EVENTS, [{"id": "1", "timestamp": "2026-01-01", "n": number}])
        before = set(copies(sandbox))
        compact(sandbox.lake, [table(sandbox)], 1)
        written += len(set(copies(sandbox)) - before)
        (bucket,) = {file.bucket for file in table(sandbox).files}
        assert len(event_paths(table(sandbox), bucket)) < FEW
    # Seven more files, with the copy of those before, are the next copy.
    assert written == 1 + (36 - FEW) // (FEW - 1)
    assert len(copies(sandbox)) <= 2
    assert read(open_snapshot(sandbox.lake, RULE, [E]))[0][1] == [0] * 36


def test_a_batch_that_is_taken_back_takes_its_copy_with_it(sandbox: Sandbox) -> None:
    bucket = one_bucket(sandbox, FEW)
    compact(sandbox.lake, [table(sandbox)], 1)
    assert event_paths(table(sandbox), bucket) == copies(sandbox)
    withdraw_batch(sandbox.lake, "e", "batch-003")
    events = read(open_snapshot(sandbox.lake, RULE, [E]))[0][2]
    assert sorted(event["n"] for event in events) == [0, 1, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("damage", ["copy gone", "copy cut off", "copy altered", "note gone", "note garbled"])
def test_damage_to_a_copy_costs_nothing_but_time(sandbox: Sandbox, damage: str) -> None:
    bucket = one_bucket(sandbox, FEW)
    snapshot = open_snapshot(sandbox.lake, RULE, [E])
    expected = read(snapshot)
    (copy,), note = copies(sandbox), sandbox.lake.compacted("e") / bucket_folder(bucket) / "copies.json"
    content = copy.read_bytes()
    match damage:
        case "copy gone":
            copy.unlink()
        case "copy cut off":
            copy.write_bytes(content[:-40])
        case "copy altered":
            copy.write_bytes(content[:60] + bytes([content[60] ^ 1]) + content[61:])
        case "note gone":
            note.unlink()
        case "note garbled":
            note.write_text(note.read_text()[:-9])
    assert len(event_paths(table(sandbox), bucket)) == FEW
    assert read(snapshot) == expected
    compact(sandbox.lake, [table(sandbox)], 1)
    assert len(event_paths(table(sandbox), bucket)) == 1
    assert read(snapshot) == expected


def test_a_damaged_file_of_the_dataset_is_not_hidden_in_a_copy(sandbox: Sandbox) -> None:
    bucket = one_bucket(sandbox, FEW)
    victim = sorted(table(sandbox).paths(bucket))[0]
    content = victim.read_bytes()
    victim.write_bytes(content[:60] + bytes([content[60] ^ 1]) + content[61:])
    compact(sandbox.lake, [table(sandbox)], 1)
    assert victim in event_paths(table(sandbox), bucket)


def test_files_that_a_killed_process_left_behind_go(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = one_bucket(sandbox, FEW)

    def killed(path: Path, content: bytes) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(compaction, "write_atomically", killed)
        with pytest.raises(KeyboardInterrupt):
            compact(sandbox.lake, [table(sandbox)], 1)
    (stray,) = copies(sandbox)
    assert len(event_paths(table(sandbox), bucket)) == FEW
    compact(sandbox.lake, [table(sandbox)], 1)
    (copy,) = copies(sandbox)
    assert copy != stray
    assert event_paths(table(sandbox), bucket) == [copy]


def test_a_copy_that_was_replaced_stays_for_those_who_read_it(sandbox: Sandbox) -> None:
    bucket = one_bucket(sandbox, FEW)
    compact(sandbox.lake, [table(sandbox)], 1)
    (old,) = copies(sandbox)
    one_bucket(sandbox, FEW - 1)
    compact(sandbox.lake, [table(sandbox)], 1)
    assert old in copies(sandbox)
    assert old not in event_paths(table(sandbox), bucket)
    note = json.loads((sandbox.lake.compacted("e") / bucket_folder(bucket) / "copies.json").read_text())
    assert [name for name, _ in note["replaced"]] == [old.name]


def test_the_copies_of_a_deleted_dataset_go_with_it(sandbox: Sandbox) -> None:
    one_bucket(sandbox, FEW)
    compact(sandbox.lake, [table(sandbox)], 1)
    assert len(copies(sandbox)) == 1
    delete_dataset(sandbox.lake, "e")
    assert not sandbox.lake.compacted("e").exists()


def test_the_dataset_itself_is_not_changed(sandbox: Sandbox) -> None:
    one_bucket(sandbox, FEW)
    before = table(sandbox)
    compact(sandbox.lake, [before], 1)
    assert (table(sandbox).version, table(sandbox).files) == (before.version, before.files)
    assert DeltaTable(sandbox.lake.dataset("e")).vacuum(0, True, enforce_retention_duration=False) == []


def test_nobody_waits_for_one_that_is_frozen_at_it(sandbox: Sandbox) -> None:
    bucket = one_bucket(sandbox, FEW)
    with sandbox.lake.lock(f"compaction {table(sandbox).folder.name}"):
        events = read(open_snapshot(sandbox.lake, RULE, [E]))[0][2]
        assert len(events) == FEW
        assert copies(sandbox) == []
    open_snapshot(sandbox.lake, RULE, [E])
    assert event_paths(table(sandbox), bucket) == copies(sandbox)

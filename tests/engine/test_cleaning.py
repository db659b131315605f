"""Versions of the data that were replaced go, and never one that somebody has pinned or that is in use."""

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.engine.maintenance.vacuum import Pins, There, clean, lapsed_runs
from app.engine.people.profiles import Dataset, MergeRule, Snapshot, open_snapshot, reopen
from app.engine.store.bucket import Needs
from app.engine.store.lake import scratch_folder
from tests.support.sandbox import PEOPLE, Sandbox

DAY = timedelta(days=1)
DATASETS = [Dataset("people", "PROFILE")]
PLAIN = MergeRule("plain", "TIMESTAMP_ORDERED")
STITCHED = MergeRule("stitched", "TIMESTAMP_ORDERED", identity_graph="PDG")
RULES = pytest.mark.parametrize("rule", [PLAIN, STITCHED], ids=["none", "pdg"])


def add(sandbox: Sandbox, points: int, *, phone: str = "1") -> None:
    """A record of Ann and one of Bob, who share a phone with nobody else."""
    named = {"phone": [{"id": phone}]}
    sandbox.rows("people", PEOPLE, [{"id": name, "points": points, "identityMap": named} for name in ("ann", "bob")])


def points(snapshot: Snapshot) -> list[int]:
    needs = Needs(frozenset({("points",)}), frozenset(), False)
    return sorted(
        value for bucket in snapshot.buckets for value in snapshot.read(bucket, needs).profiles["points"].to_pylist()
    )


def files(sandbox: Sandbox) -> set[str]:
    folder = sandbox.lake.folder
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*.parquet")}


def long_ago(folder: Path) -> None:
    """Every file below the folder was written two days ago."""
    for path in folder.rglob("*"):
        os.utime(path, (time.time() - 2 * 86400,) * 2)


def tidy(sandbox: Sandbox, pins: Pins | None = None, keep: timedelta = timedelta(0)) -> None:
    clean(sandbox.lake, There(["plain", "stitched"], ["people"]), pins or Pins(), keep, datetime.now(UTC))


@RULES
def test_replaced_files_go_and_the_newest_can_be_read_and_brought_up_to_date(sandbox: Sandbox, rule: MergeRule) -> None:
    for number in (1, 2, 3):
        add(sandbox, number, phone=str(number))
        open_snapshot(sandbox.lake, rule, DATASETS)
    before = files(sandbox)
    tidy(sandbox)
    gone = before - files(sandbox)
    assert {name.split("/")[0] for name in gone} == ({"profiles"} if rule is PLAIN else {"profiles", "graph"})
    assert points(open_snapshot(sandbox.lake, rule, DATASETS)) == ([3, 3] if rule is PLAIN else [3])
    add(sandbox, 4)
    assert points(open_snapshot(sandbox.lake, rule, DATASETS)) == ([4, 4] if rule is PLAIN else [4])


@RULES
def test_what_is_pinned_stays_until_it_is_let_go(sandbox: Sandbox, rule: MergeRule) -> None:
    add(sandbox, 1)
    pinned = open_snapshot(sandbox.lake, rule, DATASETS).pinned
    for number in (2, 3):
        add(sandbox, number, phone=str(number))
        open_snapshot(sandbox.lake, rule, DATASETS)
    pins = Pins()
    pins.add({"several": {"policies": {"lake": pinned}}, "heads": {"audience": "run"}})
    assert pins.runs == {"run"}
    tidy(sandbox, pins)
    assert points(reopen(sandbox.lake, rule, DATASETS, pinned)) == ([1, 1] if rule is PLAIN else [1])
    tidy(sandbox)
    with pytest.raises(FileNotFoundError):
        points(reopen(sandbox.lake, rule, DATASETS, pinned))


@RULES
def test_what_was_replaced_lately_stays(sandbox: Sandbox, rule: MergeRule) -> None:
    for number in (1, 2):
        add(sandbox, number, phone=str(number))
        open_snapshot(sandbox.lake, rule, DATASETS)
    before = files(sandbox)
    tidy(sandbox, keep=DAY)
    assert files(sandbox) == before


def test_views_of_policies_that_are_gone_go(sandbox: Sandbox) -> None:
    add(sandbox, 1)
    open_snapshot(sandbox.lake, PLAIN, DATASETS)
    now = datetime.now(UTC)
    for days, there in ((0, True), (0.9, True), (1, False)):
        clean(sandbox.lake, There(["another"], ["people"]), Pins(), DAY, now + days * DAY)
        assert sandbox.lake.views("plain").exists() is there


def test_generations_of_a_view_that_are_out_of_use_go(sandbox: Sandbox) -> None:
    add(sandbox, 1)
    open_snapshot(sandbox.lake, PLAIN, DATASETS)
    folder, now = sandbox.lake.views("plain"), datetime.now(UTC)
    (folder / "1").rename(folder / "9")
    for generation in ("7", "8", "10"):
        (folder / generation).mkdir()
    pins = Pins(views={(8, None)})
    for later in (now, now + DAY):
        clean(sandbox.lake, There(["plain"], ["people"]), pins, DAY, later)
    assert sorted(path.name for path in folder.iterdir()) == ["10", "8"]


def test_what_an_export_wrote_goes_when_its_job_has_ended(sandbox: Sandbox) -> None:
    now = datetime.now(UTC)
    for job in ("Running", "Ended"):
        sandbox.lake.export(job).mkdir(parents=True)
    for later in (now, now + DAY):
        clean(sandbox.lake, There([], []), Pins(jobs={"Running"}), DAY, later)
    assert (sandbox.lake.export("Running").exists(), sandbox.lake.export("Ended").exists()) == (True, False)


def test_what_killed_processes_left_goes(sandbox: Sandbox) -> None:
    add(sandbox, 1)
    open_snapshot(sandbox.lake, PLAIN, DATASETS)
    lake = sandbox.lake
    (lake.folder / "membership" / "run").mkdir(parents=True)
    left = [
        lake.folder / "membership" / "run" / f".0-1.parquet.{'a' * 32}",
        lake.folder / f".layout.json.{'b' * 32}",
        lake.dataset("people") / "_batches" / f".x.json.{'c' * 32}",
    ]
    for path in left:
        path.touch()
    abandoned = lake.folder / "scratch" / "dead"
    abandoned.mkdir()
    (lake.folder / "scratch" / "dead.lock").touch()
    with scratch_folder(lake.folder / "scratch") as in_use:
        abandoned.mkdir(exist_ok=True)
        (lake.folder / "scratch" / "dead.lock").touch()
        tidy(sandbox, keep=DAY)
        assert (abandoned.exists(), in_use.exists()) == (False, True)
    assert all(path.exists() for path in left), "their process may still be about to rename them"
    long_ago(lake.folder)
    tidy(sandbox, keep=DAY)
    assert not any(path.exists() for path in left)
    assert points(open_snapshot(lake, PLAIN, DATASETS)) == [1, 1]


def test_a_run_that_is_referred_to_again_counts_anew(sandbox: Sandbox) -> None:
    folder, now = sandbox.lake.membership("Run"), datetime.now(UTC)
    folder.mkdir(parents=True)
    assert lapsed_runs(sandbox.lake, [], DAY, now) == []
    assert lapsed_runs(sandbox.lake, ["Run"], DAY, now + DAY) == []
    assert lapsed_runs(sandbox.lake, [], DAY, now + DAY) == []
    assert lapsed_runs(sandbox.lake, [], DAY, now + 2 * DAY) == [folder]


def test_a_table_that_cannot_be_read_does_not_keep_others_from_being_cleaned(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    for number in (1, 2, 3):
        add(sandbox, number)
        open_snapshot(sandbox.lake, PLAIN, DATASETS)
    before = files(sandbox)
    broken = sandbox.lake.dataset("broken") / "_delta_log"
    broken.mkdir(parents=True)
    (broken / f"{0:020}.json").write_text("no commit")
    clean(
        sandbox.lake,
        There(["plain"], ["broken", "people"]),
        Pins(),
        timedelta(0),
        datetime.now(UTC),
    )
    assert {name.split("/")[0] for name in before - files(sandbox)} == {"profiles"}
    (record,) = [record for record in caplog.records if "cannot clean the table" in record.message]
    assert str(sandbox.lake.dataset("broken")) in record.message

"""Folders, locks, scratch space and sessions."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from app.engine.ingest.identities import find
from app.engine.store.fitness import refuse_unfit
from app.engine.store.lake import Lake, file_name
from app.engine.store.layout import Layout, LayoutLost, first_layout, hash_sql
from app.errors import InvalidSettings
from app.scope import Tenant
from tests.support.sandbox import PEOPLE, Sandbox


def test_names_are_safe_and_different_where_case_does_not_count() -> None:
    names = ["a", "A", "..", ".", "a/b", "a_b", "a%b", "Ä", "_2e", "=", "a b"]
    safe = [file_name(name) for name in names]
    assert len({name.lower() for name in safe}) == len(names)
    assert all("/" not in name and "%" not in name and "=" not in name and not name.startswith(".") for name in safe)
    with pytest.raises(ValueError, match="empty"):
        file_name("")


def test_names_that_are_long_in_bytes_fit_into_a_path() -> None:
    names = ["O" * 86, "o" * 255, "o" * 256, "漢" * 100, "漢" * 99 + "字", "漢" * 128, "a" * 100 + "_h"]
    safe = [file_name(name) for name in names]
    assert len(set(safe)) == len(names)
    assert max(map(len, safe)) == 255
    assert safe[1] == "o" * 255


def test_sandboxes_have_folders_of_their_own(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    folders = {
        lake.tenant(Tenant(o, s)).folder for o, s in [("a", "b"), ("a", "B"), ("A", "b"), ("a/b", "c"), ("a", "b/c")]
    }
    assert len(folders) == 5
    assert all(folder.parent.parent == tmp_path for folder in folders)


def test_python_and_sql_agree_on_the_bucket() -> None:
    ids = ["CRM:00001", "CRM:é", "Email:a@example.com", "x:"]
    for generation in (*Layout((4, 4, 9, 14)).generations, *Layout((7, 8)).generations, *Layout((14, 14)).generations):
        query = f"SELECT {generation.bucket_sql(hash_sql('?'))}"
        buckets = [duckdb.execute(query.replace("?", f"'{text}'")).fetchall()[0][0] for text in ids]
        assert buckets == [generation.bucket_of(text) for text in ids]
        assert all(bucket in generation for bucket in buckets)


@pytest.mark.usefixtures("real_buckets")
def test_the_number_of_buckets_follows_the_people() -> None:
    assert [first_layout(people, 65_536).bits for people in (1, 16 << 16, (16 << 16) + 1)] == [(4,), (4,), (5,)]
    layout = first_layout(1, 65_536)
    assert layout.grown(1_000_000, 48_576, 65_536) == layout, "there is room"
    assert layout.grown(1_000_000, 48_577, 65_536) == Layout((4, 4))
    assert layout.grown(0, 100_000_000, 65_536) == Layout((4, 11)), "as many as the new people need"
    assert Layout((4, 4)).grown(1 << 20, 1, 65_536) == Layout((4, 4, 5)), "as many as there are"
    assert Layout((4, 4, 9)).grown(512 << 16, 1, 65_536) == Layout((4, 4, 9, 10)), "and no fewer"


@pytest.mark.usefixtures("real_buckets")
def test_there_are_at_most_32768_buckets() -> None:
    layout = first_layout(1, 1)
    while (grown := layout.grown(1 << 40, 1, 1)) != layout:
        layout = grown
    assert (layout.buckets, layout.bits) == (32_768, (4, *range(4, 15)))
    assert first_layout(1 << 40, 65_536).bits == (14,)
    assert Layout((14,)).grown(1 << 40, 1, 65_536) == Layout((14, 14))
    assert Layout((14, 14)).grown(1 << 40, 1, 65_536) == Layout((14, 14))
    numbers = [bucket for bucket in range(1 << 17) if bucket in Layout((13, 13, 14))]
    assert len(numbers) == Layout((13, 13, 14)).buckets == 32_768, "no two generations have the same bucket"


def test_a_layout_is_read_as_it_was_written() -> None:
    for layout in (Layout((4,)), Layout((4, 4, 9))):
        assert Layout.from_json(layout.as_json()) == layout
    assert json.loads(Layout((4, 4, 9)).as_json()) == {"bucket_bits": 4, "buckets": 544, "added_bits": [4, 9]}
    whole = Layout((4, 4, 9)).as_json()
    for place in range(len(whole) * 8):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        try:
            assert Layout.from_json(bytes(damaged)) == Layout((4, 4, 9))
        except LayoutLost:
            continue
    for content in (
        '{"bucket_bits": 4, "buckets": 24, "added_bits": [3]}', '{"bucket_bits": 4, "added_bits": 4}',
        '{"bucket_bits": 4, "added_bits": [4]}', '{"bucket_bits": 1, "buckets": 2}',
        '{"bucket_bits": 15, "buckets": 32768}',
    ):  # fmt: skip
        with pytest.raises(LayoutLost):
            Layout.from_json(content.encode())


def test_a_session_reads_nothing_outside_and_cannot_be_unlocked(tmp_path: Path) -> None:
    outside, upload = tmp_path / "secret.csv", tmp_path / "upload.csv"
    outside.write_text("a\n1\n")
    upload.write_text("a\n2\n")
    lake = Lake(tmp_path / "lake").tenant(Tenant("o", "s"))
    with lake.scratch() as scratch, lake.session(scratch, [upload]) as database:
        assert database.execute(f"SELECT * FROM read_csv('{upload}')").fetchall() == [(2,)]
        with pytest.raises(duckdb.PermissionException):
            database.execute(f"SELECT * FROM read_csv('{outside}')")
        with pytest.raises(duckdb.PermissionException):
            database.execute(f"COPY (SELECT 1) TO '{tmp_path / 'new.csv'}'")
        with pytest.raises(duckdb.InvalidInputException, match="locked"):
            database.execute("SET enable_external_access = true")
        with pytest.raises(duckdb.Error):
            database.execute("INSTALL httpfs")


def test_what_a_killed_process_left_is_removed_and_what_lives_stays(tmp_path: Path) -> None:
    lake = Lake(tmp_path).tenant(Tenant("o", "s"))
    program = (
        "import sys; from pathlib import Path; from app.engine.store.lake import Lake; from app.scope import Tenant\n"
        f"with Lake(Path({str(tmp_path)!r})).tenant(Tenant('o', 's')).scratch() as folder:\n"
        "    (folder / 'half').write_text('x'); print(folder, flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        abandoned = Path(process.stdout.readline().strip())
        with lake.scratch():
            assert (abandoned / "half").exists()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with lake.scratch() as mine:
            assert not abandoned.exists()
            assert mine.exists()
        assert list((lake.folder / "scratch").iterdir()) == []
    finally:
        process.kill()
        process.communicate()


@pytest.mark.usefixtures("real_buckets")
def test_a_layout_that_is_gone_is_not_chosen_again(sandbox: Sandbox) -> None:
    sandbox.rows("a", PEOPLE, [{"id": "1"}])
    layout = sandbox.lake.folder / "layout.json"
    content = layout.read_bytes()
    assert json.loads(content) == {"bucket_bits": 4, "buckets": 16}
    layout.unlink()
    for work in (
        sandbox.lake.layout,
        lambda: find(sandbox.lake, "CRM", "1"),
        lambda: sandbox.rows("a", PEOPLE, [{"id": "2"}]),
    ):
        with pytest.raises(LayoutLost, match=r"layout\.json is missing although there are profiles"):
            work()
    assert not layout.exists()
    for place in range(len(content) * 8):
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        layout.write_bytes(damaged)
        try:
            assert sandbox.lake.layout() == Layout((4,))
        except LayoutLost:
            continue
    layout.write_bytes(b'{"bucket_bits": 4}')
    assert sandbox.lake.layout() == Layout((4,)), "as earlier versions wrote it"


@pytest.mark.parametrize(
    ("call", "fails_with", "lacks"),
    [
        ("os.link", errno.EPERM, "hard links"),
        ("os.link", errno.ENOSYS, "hard links"),
        ("fcntl.flock", errno.ENOLCK, "locks"),
        ("fcntl.flock", None, "locks"),
    ],
)
def test_a_file_system_without_what_a_lake_needs(
    call: str, fails_with: int | None, lacks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last one says that it locks, and locks nobody out."""

    def as_elsewhere(*_arguments: object, **_options: object) -> None:
        if fails_with is not None:
            raise OSError(fails_with, os.strerror(fails_with))

    refuse_unfit(tmp_path)
    monkeypatch.setattr(os if call == "os.link" else fcntl, call.partition(".")[2], as_elsewhere)
    with pytest.raises(InvalidSettings, match=f"={tmp_path} is on a file system without {lacks}, where data could be"):
        refuse_unfit(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fails_is_not_called_unfit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "link", fails)
    with pytest.raises(OSError, match="Input/output error"):
        refuse_unfit(tmp_path)

"""Object storage as the place of a lake: paths, copies, locks between hosts, and what is said when it is away."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import pytest

from app.engine.maintenance.copies import trim
from app.engine.store import leases
from app.engine.store.files import listed, publish, remove_tree
from app.engine.store.fitness import refuse_unfit
from app.engine.store.lake import Lake, write_atomically
from app.engine.store.objects import Conflict, ObjectPath, ObjectStore, mount
from app.errors import InvalidSettings, LakeAway
from app.scope import Tenant
from tests.support.object_storage import Storage

FILES = ("a/b/data.parquet", "a/b/_delta_log/1.json", "a/b/_delta_log/2.json", "a/c/note.json", "top.json")


@pytest.fixture
def root(object_url: str, tmp_path: Path) -> ObjectPath:
    return mount(object_url, tmp_path / "host")


def test_paths_answer_as_those_of_a_disk(root: ObjectPath, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    for name in FILES:
        (disk / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(disk / name, name.encode())
        write_atomically(root / name, name.encode())

    def names(paths: Iterator[Path], folder: Path) -> list[str]:
        return sorted(path.relative_to(folder).as_posix() for path in paths)

    for pattern in ("*", "*/*", "*/b/*", "a/*/*.json", "*/*/_delta_log/[0-9]*.json", "a/c/note.json", "a/none", "x/*"):
        assert names(root.glob(pattern), root) == names(disk.glob(pattern), disk), pattern
    assert names(root.rglob("*.json"), root) == names(disk.rglob("*.json"), disk)
    assert names(listed(root), root) == names(listed(disk), disk) == sorted(FILES)
    for name in (*FILES, "a", "a/b", "none"):
        place, other = root / name, disk / name
        assert (place.exists(), place.is_dir(), place.is_file()) == (other.exists(), other.is_dir(), other.is_file())
    for name in FILES:
        assert (root / name).read_text() == (disk / name).read_text()
        assert (root / name).stat().st_size == (disk / name).stat().st_size
    remove_tree(root / "a/b")
    assert names(listed(root), root) == ["a/c/note.json", "top.json"]
    with pytest.raises(FileNotFoundError):
        (root / "a/b/data.parquet").read_bytes()


def test_a_file_is_fetched_once_and_by_whoever_asks_its_path(
    root: ObjectPath, object_url: str, storage: Storage, tmp_path: Path
) -> None:
    written = tmp_path / "scratch.parquet"
    written.write_bytes(b"rows")
    publish([(written, root / "t/x.parquet")])
    assert not written.exists()
    elsewhere = mount(object_url, tmp_path / "other host") / "t/x.parquet"
    assert not elsewhere.copied.exists()
    asked = storage.requests.get("GET", 0)
    for _ in range(3):
        assert Path(os.fspath(elsewhere)).read_bytes() == b"rows"
    assert storage.requests["GET"] == asked + 1


def test_copies_go_with_their_files_and_when_they_are_too_many(root: ObjectPath, tmp_path: Path) -> None:
    for name in "abc":
        write_atomically(root / f"{name}.parquet", bytes(1000))
        os.fspath(root / f"{name}.parquet")
    ages = {"a": 3000, "b": 2000, "c": 1000}
    for name, age in ages.items():
        os.utime((root / f"{name}.parquet").copied, (time.time() - age, time.time() - age))

    def copies() -> list[str]:
        return sorted(path.name[0] for path in root.copied.glob("*.parquet"))

    trim(root, 10_000)
    assert copies() == ["a", "b", "c"]
    root.place[0].delete(["b.parquet"])
    trim(root, 10_000)
    assert copies() == ["a", "c"], "another host has removed one of them"
    trim(root, 1500)
    assert copies() == ["c"]
    os.fspath(root / "a.parquet")
    trim(root, 0)
    assert copies() == ["a"], "nothing goes that was asked for just now"


def test_a_lock_keeps_other_hosts_out(object_url: str, tmp_path: Path) -> None:
    lakes = [Lake(mount(object_url, tmp_path / host)).tenant(Tenant("o", "s")) for host in "ab"]
    waited, may_end, order = Event(), Event(), list[str]()

    def hold() -> None:
        with lakes[0].lock("dataset 1"):
            order.append("in")
            entered.set()
            may_end.wait()
            order.append("out")

    entered = Event()
    holder = Thread(target=hold)
    holder.start()
    entered.wait()

    def waiting() -> None:
        waited.set()
        may_end.set()

    with lakes[1].lock("dataset 1", waiting):
        order.append("other")
    may_end.set()
    holder.join()
    assert waited.is_set()
    assert order == ["in", "out", "other"]
    with lakes[1].lock("dataset 2"), lakes[0].lock("dataset 1"):
        pass


def test_a_lock_whose_holder_is_gone_is_taken_over_and_the_holder_notices(
    object_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (mount(object_url, tmp_path / host) for host in "ab")
    monkeypatch.setattr(leases, "_BEAT_SECONDS", 3600.0)
    monkeypatch.setattr(leases, "HOLD_SECONDS", 0.0)
    with leases.held(first / "locks/x", lambda: None):
        monkeypatch.setattr(leases, "TAKE_OVER_SECONDS", 0.0)
        taken: list[str] = []

        def other() -> None:
            with leases.held(second / "locks/x", lambda: None):
                write_atomically(second / "note.json", b"mine")
                taken.append("taken")

        monkeypatch.setattr(leases, "HOLD_SECONDS", 20.0)
        thread = Thread(target=other)
        thread.start()
        thread.join()
        assert taken == ["taken"]
        with pytest.raises(leases.LeaseLost, match="nothing more was changed, try again"):
            write_atomically(first / "note.json", b"late")
    assert (first / "note.json").read_bytes() == b"mine"


def test_storage_without_conditional_writes_is_refused(root: ObjectPath, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_unfit(root)
    real = ObjectStore.put_if

    def ignores(lacks: str) -> None:
        def put_if(self: ObjectStore, key: str, content: bytes, version: str | None) -> str:
            try:
                return real(self, key, content, version)
            except Conflict:
                if (version is None) == (lacks == "If-None-Match"):
                    return self.put(key, content)
                raise

        monkeypatch.setattr(ObjectStore, "put_if", put_if)

    for lacks in ("If-None-Match", "If-Match"):
        ignores(lacks)
        with pytest.raises(InvalidSettings, match="object storage without conditional writes"):
            refuse_unfit(root)
    assert list(root.iterdir()) == []


def test_storage_that_is_away_or_refuses_is_named(
    monkeypatch: pytest.MonkeyPatch, object_url: str, tmp_path: Path
) -> None:
    monkeypatch.setattr("app.engine.store.objects._RETRIES", 0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    away = mount(object_url, tmp_path / "away")
    tenant = Lake(away, must_exist=True).tenant(Tenant("o", "s"))
    asks = (tenant.layout, lambda: os.fspath(away / "x.parquet"), lambda: list(away.iterdir()), away.exists)
    for ask in asks:
        with pytest.raises(LakeAway, match="the object storage that SEGMENTATION_DATA_DIR names does not answer"):
            ask()


def test_a_bucket_that_is_not_there_is_named(object_url: str, tmp_path: Path) -> None:
    nowhere = mount("s3://another/lake", tmp_path / "nowhere")
    for change in (lambda: write_atomically(nowhere / "x.json", b""), lambda: list(nowhere.iterdir())):
        with pytest.raises(LakeAway, match="the bucket that SEGMENTATION_DATA_DIR names does not exist"):
            change()

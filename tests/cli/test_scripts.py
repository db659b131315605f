"""`settings`, `job`, `export`, `audience`, `dataset` and `schedule`, as cron and scripts use them."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from typer.testing import CliRunner, Result

from app.cli.main import cli
from app.errors import HasDependents, MigrationRefused, Refusal
from app.settings import Settings
from app.storage.database import Database

Call = Callable[..., Result]
CSV = "customer,when,dollars\n1,2026-01-01T10:00:00Z,700\n2,2026-01-02T10:00:00Z,5\n3,2026-01-03T10:00:00Z,900\n"


@pytest.fixture
def call(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Call:
    """The command in this process, over data of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGMENTATION_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("SEGMENTATION_DATABASE_URL", database_url)

    def invoke(*arguments: str, fails: bool = False) -> Result:
        result = CliRunner().invoke(cli, list(arguments))
        if not fails:
            assert (result.exit_code, result.exception) == (0, None), result.output
        return result

    return invoke


@pytest.fixture
def shop(call: Call, tmp_path: Path) -> str:
    """Three customers, of whom two spent more than 500; the id of that audience."""
    (tmp_path / "p.csv").write_text(CSV)
    call("ingest", "p.csv", "--dataset", "purchases", "--kind", "event", "--id", "customer", "--time", "when")
    return define("Over 500")


def define(name: str, sandbox: str = "prod") -> str:
    from app.scope import Scope
    from app.services.audiences import computed
    from app.services.audiences.definition_rules import NewDefinition
    from app.settings import load_settings
    from app.wiring import open_services

    async def create() -> str:
        async with open_services(load_settings()) as services:
            new = NewDefinition(name=name, expression="xEvent.sum(dollars) > 500")
            scope = Scope("default", sandbox, "ada")
            return (await computed.create(services.database, services.lake, services.clock, scope, new)).id

    return asyncio.run(create())


def lines(result: Result) -> list[list[str]]:
    return [line.split("\t") for line in result.stdout.splitlines()]


def objects(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_job_from_cron(call: Call, shop: str) -> None:
    (job,) = objects(call("job", "run", "--all", "--work", "--json"))
    assert (job["kind"], job["status"], job["fraction"], job["errors"]) == ("SEGMENT", "SUCCEEDED", 1.0, [])
    assert lines(call("job", "list"))[0][:4] == [job["id"], "SEGMENT", "SUCCEEDED", "1.0"]
    shown = dict(lines(call("job", "show", job["id"])))
    assert (shown["id"], shown["status"], shown["created_by"]) == (job["id"], "SUCCEEDED", "cli")
    (audience,) = lines(call("audience", "list"))
    assert audience[:5] == [shop, "Over 500", "SEGMENT_DEFINITION", "PUBLISHED", "2"]
    members = objects(call("audience", "members", shop, "--json"))
    assert sorted(member["profile"] for member in members) == ["id:1", "id:3"]
    assert {member["status"] for member in members} == {"REALIZED"}
    assert len(lines(call("audience", "members", shop, "--limit", "1"))) == 1
    assert lines(call("audience", "members", shop, "--status", "exited")) == []


def test_jobs_wait_are_listed_and_cancelled(call: Call, shop: str) -> None:
    first = call("job", "run", "--audience", shop, "--key", "nightly").stdout.strip()
    assert call("job", "run", "--audience", shop, "--key", "nightly").stdout.strip() == first
    second = call("job", "run", "--all").stdout.strip()
    assert [row[0] for row in lines(call("job", "list"))] == [second, first]
    assert [row[0] for row in lines(call("job", "list", "--limit", "1"))] == [second]
    assert lines(call("job", "list", "--kind", "export")) == []
    assert lines(call("job", "cancel", first))[0][:3] == [first, "SEGMENT", "CANCELLED"]
    assert [row[0] for row in lines(call("job", "list", "--status", "cancelled"))] == [first]
    assert call("job", "show", first).exit_code == 0
    audit = [row[2:5] for row in lines(call("audit"))]
    assert audit[:2] == [["job cancel", first, "OK"], ["job run", second, "OK"]]


def test_what_cannot_be(call: Call, shop: str) -> None:
    unknown = call("job", "show", "nothing", fails=True)
    assert isinstance(unknown.exception, Refusal)
    assert str(unknown.exception) == "there is no job 'nothing' in default/prod"
    assert call("job", "run", fails=True).exit_code == 1
    assert call("job", "run", "--all", "--audience", shop, fails=True).exit_code == 1
    assert call("job", "list", "--status", "lost", fails=True).exit_code == 1
    other = call("audience", "members", shop, "--sandbox", "dev", fails=True)
    assert isinstance(other.exception, Refusal)
    assert lines(call("audience", "list", "--sandbox", "dev")) == []
    held = call("dataset", "delete", "purchases", fails=True)
    assert isinstance(held.exception, HasDependents)
    assert lines(call("dataset", "list"))[0][1:4] == ["purchases", "EVENT", "3"]


def test_a_failed_job_has_exit_code_1(call: Call, shop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGMENTATION_DEFINITION_SECONDS", "0.000000001")
    failed = call("job", "run", "--all", "--work", fails=True)
    assert failed.exit_code == 1
    shown = lines(failed)
    assert ["status", "FAILED"] in shown
    assert shown[-1][:2] == ["error", "LIMIT_EXCEEDED"]
    assert call("job", "show", shown[1][1], fails=True).exit_code == 1


def test_exports(call: Call, shop: str) -> None:
    call("job", "run", "--all", "--work")
    (job,) = objects(call("export", "run", "--dataset", "vips", "--audience", shop, "--work", "--json"))
    assert (job["kind"], job["status"]) == ("EXPORT", "SUCCEEDED")
    (vips,) = lines(call("dataset", "list", "--kind", "export"))
    assert vips[1:4] == ["vips", "EXPORT", "2"]
    assert [row[0] for row in lines(call("job", "list", "--kind", "export"))] == [job["id"]]


def test_a_dataset_goes(call: Call, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(CSV)
    call("ingest", "p.csv", "--dataset", "old", "--kind", "event", "--id", "customer", "--time", "when")
    (dataset,) = objects(call("dataset", "list", "--json"))
    assert (dataset["name"], dataset["row_count"], dataset["identity_column"]) == ("old", 3, "customer")
    assert call("dataset", "delete", "old").stdout.strip() == dataset["id"]
    assert lines(call("dataset", "list")) == []
    assert lines(call("schedule", "list")) == []


def test_backup_and_restore(call: Call, shop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call("job", "run", "--all", "--work")
    backup = str(tmp_path / "backups" / "first")
    words = call("backup", backup).stdout
    again = call("backup", backup, fails=True)
    assert str(again.exception) == f"{backup} is not an empty folder: name one that is, or a new one"
    monkeypatch.setenv("SEGMENTATION_DATA_DIR", str(tmp_path / "second"))
    monkeypatch.setenv("SEGMENTATION_DATABASE_URL", f"sqlite:///{tmp_path / 'second.db'}")
    said = "people who were erased after this moment are in the data again: see `--erased`"
    assert call("restore", backup).stdout == f"{words}{said}\nnothing is wrong\n"
    assert len(lines(call("audience", "members", shop))) == 2
    assert call("doctor", "--checksums").stdout == "nothing is wrong\n"
    held = call("restore", backup, fails=True)
    assert isinstance(held.exception, Refusal)
    assert "is not empty" in str(held.exception)


def test_tables_of_a_newer_version(call: Call, database_url: str) -> None:
    async def advance() -> None:
        database = Database(database_url)
        async with database.write() as session:
            await session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        await database.dispose()

    asyncio.run(advance())
    for command in ("migrate", "worker"):
        newer = call(command, fails=True)
        assert isinstance(newer.exception, MigrationRefused)
        assert "migrations cannot be undone: run that version, or restore an earlier backup" in str(newer.exception)


def test_settings(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("SEGMENTATION_THREADS=3\nSEGMENTATION_PORT=1\n")
    monkeypatch.setenv("SEGMENTATION_PORT", "9000")
    monkeypatch.setenv("SEGMENTATION_AUTH", "jwt")
    monkeypatch.setenv("SEGMENTATION_JWT_SECRET", "s" * 40)
    settings = {setting["name"]: setting for setting in objects(call("settings", "--json"))}
    assert list(settings) == [f"SEGMENTATION_{name.upper()}" for name in Settings.model_fields]
    assert all(len(setting["help"]) > 10 for setting in settings.values())
    port, threads, concurrent = (settings[f"SEGMENTATION_{name}"] for name in ("PORT", "THREADS", "CONCURRENT_JOBS"))
    assert (port["value"], port["source"], port["default"]) == (9000, "environment", 8000)
    assert (threads["value"], threads["source"], threads["default"]) == (3, ".env", 2)
    assert (concurrent["value"], concurrent["source"]) == (2, "default")
    assert settings["SEGMENTATION_JWT_SECRET"]["value"] == "********"
    shown = call("settings", "--changed").stdout
    assert "SEGMENTATION_PORT=9000  (environment)\n    Port that `serve` binds" in shown
    assert "SEGMENTATION_DATABASE_URL=********  (environment)" in shown
    assert "SEGMENTATION_CONCURRENT_JOBS" not in shown
    assert "sss" not in shown

"""Lines of the log: their fields, as text and as JSON; and no value of a statement in them."""

import asyncio
import json
import logging
from collections.abc import Iterator

import pytest
from sqlalchemy import text

from app import logs
from app.logs import bind, bound, event
from app.storage.database import Database

log = logging.getLogger("app.test")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("text", "INFO")
    with bound(request_id="r1", organisation="acme"):
        event(log, "request", status=200, duration_ms=1.25, path="/a b\n2026 ERROR forged", nothing=None)
    log.info("after")
    first, second = capsys.readouterr().err.splitlines()
    fields = 'request_id=r1 organisation=acme status=200 duration_ms=1.2 path="/a b\\n2026 ERROR forged"'
    assert first.endswith(f" INFO app.test: request {fields}")
    assert second.endswith(" INFO app.test: after")


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "INFO")
    with bound(request_id="r1"):
        event(log, "request", status=200)
        try:
            raise ValueError("two\nlines")
        except ValueError:
            log.exception("it %s", "failed")
    log.debug("too little")
    first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert first.pop("time").endswith("+00:00")
    assert first == {"level": "INFO", "logger": "app.test", "message": "request", "request_id": "r1", "status": 200}
    assert (second["level"], second["message"], second["request_id"]) == ("ERROR", "it failed", "r1")
    assert second["exception"].endswith("ValueError: two\nlines")


async def test_tasks_do_not_share_fields(capsys: pytest.CaptureFixture[str]) -> None:

    logs.configure("json", "INFO")

    async def job(id: str) -> None:
        bind(job_id=id)
        await asyncio.sleep(0)
        event(log, "job")
        await asyncio.to_thread(event, log, "thread")

    await asyncio.gather(job("a"), job("b"))
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert sorted((line["message"], line["job_id"]) for line in lines) == [
        ("job", "a"), ("job", "b"), ("thread", "a"), ("thread", "b"),
    ]  # fmt: skip


async def test_errors_of_the_database_hold_no_values(database: Database) -> None:
    with pytest.raises(Exception, match="no_such_table") as caught:
        async with database.session() as session:
            await session.execute(text("SELECT :who FROM no_such_table"), {"who": "ada@example.com"})
    assert "ada@example.com" not in str(caught.value)

"""How the server listens, what a start imports, and how a command ends when the database goes away."""

import asyncio
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from app.cli.serving import _listen
from app.cli.terminal import failures_said
from app.storage.database import Database


async def test_answers_do_not_wait_for_an_acknowledgement() -> None:
    """asyncio switches Nagle's algorithm off only for sockets that say they are TCP."""
    delays: list[int] = []

    def accepted(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection: socket.socket = writer.get_extra_info("socket")
        delays.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    listener = _listen("127.0.0.1", 0)
    async with await asyncio.start_server(accepted, sock=listener):
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        assert await reader.read() == b""
        writer.close()
    assert delays == [1]


def test_a_server_imports_nothing_that_only_some_need() -> None:
    """Each of these takes from a tenth of a second to a second of every start."""
    script = "import app.main, sys; print(sorted({'pandas', 'alembic', 'jwt', 'pygments', 'typer'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", script], cwd=Path(__file__).parents[2], text=True) == "[]\n"


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_a_database_that_goes_away_ends_a_command_with_a_sentence(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended, failures_said():
        async with database.session() as session:
            await session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
    assert ended.value.code == 1
    message = "segmentation: the database went away, and only what it confirmed is done: try again\n"
    assert capsys.readouterr().err == message

"""The `segmentation` command: thin, like the API; every rule is in `services`.

A command imports what it works with when it is run: nobody waits for a server who asks for `--help` or tries PQL.
"""

import asyncio
import contextlib
import ipaddress
import logging
import signal
import socket
import sys
import tempfile
from collections.abc import Coroutine, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer
from rich.console import Console

from app.clock import utc_now
from app.errors import (
    DatabaseAway,
    Diagnostic,
    ExpressionRefused,
    InvalidDatabaseUrl,
    Refusal,
    Refusals,
    Severity,
)
from app.pql.check.checker import check
from app.pql.syntax.json_reader import from_json
from app.pql.syntax.json_writer import to_json
from app.pql.syntax.parser import parse
from app.pql.syntax.printer import print_tree
from app.scope import Scope
from app.settings import InvalidSettings, Settings, load_settings

if TYPE_CHECKING:
    from app.parts import Parts

T = TypeVar("T")

cli = typer.Typer(
    name="segmentation",
    help="A GraphQL gateway over segmentation resources.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
pql = typer.Typer(help="The Profile Query Language: check, convert and try expressions.", no_args_is_help=True)
cli.add_typer(pql, name="pql")

console = Console(stderr=True, highlight=False)

Organisation = Annotated[str, typer.Option(help="Whose data.")]
Sandbox = Annotated[str, typer.Option(help="Which sandbox of the organisation.")]


def main() -> None:
    """The entry point: refusals become one clear sentence on standard error and exit code 1."""
    try:
        cli()
    except (Refusal, Refusals, InvalidSettings, InvalidDatabaseUrl, DatabaseAway) as refusal:
        _fail(str(refusal))


@cli.command(epilog="Example: `segmentation serve --port 8000`")
def serve(
    host: Annotated[str | None, typer.Option(help="Address to bind.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to bind; 0 takes a free one.")] = None,
    worker: Annotated[bool | None, typer.Option(help="Also evaluate jobs in this process.")] = None,
) -> None:
    """Serve the GraphQL API, subscriptions and GraphiQL; by default with a worker inside."""
    settings = load_settings(host=host, port=port, worker=worker)
    _log_to_standard_error(settings)
    _run(_serve(settings))


@cli.command(epilog="Example: `SEGMENTATION_DATABASE_URL=postgresql://… segmentation worker`")
def worker() -> None:
    """Evaluate jobs of the shared database and lake until stopped (SIGTERM hands back what is unfinished)."""
    settings = load_settings()
    _log_to_standard_error(settings)
    _run(_work(settings))


@cli.command(epilog="Example: `segmentation migrate`")
def migrate() -> None:
    """Bring the database's tables up to date; `serve` and `worker` do it on start as well."""
    from app.parts import open_parts

    async def migrated() -> None:
        async with open_parts(load_settings()):
            console.print("the tables are up to date")

    _run(migrated())


@cli.command(epilog="Example: `segmentation doctor || echo something is wrong`")
def doctor() -> None:
    """Check the database and the lake against each other, and name what is wrong and what to do; changes nothing.

    Ends with exit code 1 when anything is wrong. What runs meanwhile may show as wrong for a moment: ask again.
    """
    from app.parts import examined

    settings = load_settings()
    if not settings.data_dir.is_dir():
        _fail(f"there is no data folder {settings.data_dir}: set SEGMENTATION_DATA_DIR to the one that is meant")
    findings = _run(examined(settings))
    for finding in findings:
        print(f"{finding.check}: {finding.where}: {finding.problem}\n    {finding.advice}")
    if findings:
        raise typer.Exit(1)
    print("nothing is wrong")


@cli.command(epilog="Example: `segmentation schema > schema.graphql`")
def schema() -> None:
    """Print the GraphQL schema."""
    from app.api.schema import print_schema

    sys.stdout.write(print_schema())


@cli.command(
    epilog="Example: `segmentation ingest purchases.csv --dataset purchases --kind event --id customer_id --time date`"
)
def ingest(
    file: Annotated[Path, typer.Argument(help="CSV, NDJSON or Parquet, also gzipped.", exists=True, dir_okay=False)],
    dataset: Annotated[str, typer.Option(help="Name of the dataset; created when there is none.")],
    kind: Annotated[str, typer.Option(help="`profile` or `event`.")],
    id: Annotated[str, typer.Option(help="Column with the primary identity, read as text.")],
    time: Annotated[str | None, typer.Option(help="Events: column with the time.")] = None,
    namespace: Annotated[str, typer.Option(help="Namespace of the identities.")] = "id",
    format: Annotated[str | None, typer.Option(help="csv, ndjson or parquet, if the name does not say.")] = None,
    organisation: Organisation = "default",
    sandbox: Sandbox = "prod",
) -> None:
    """Add a file to a dataset: all of its good rows, or nothing."""
    from app.services.datasets.uploads import FORMATS, ingest_file

    chosen = format or next((name for name in [*FORMATS] if f".{name}" in file.suffixes), None)
    if chosen is None or chosen not in FORMATS:
        _fail(f"the format of {file.name} is not clear: say --format csv, ndjson or parquet")
    if kind not in {"profile", "event"}:
        _fail(f"--kind is {kind!r}, but a dataset holds `profile` or `event`")
    scope = Scope(organisation, sandbox, user="cli")

    async def load(parts: "Parts") -> None:
        uploaded = await ingest_file(
            parts.database,
            parts.lake,
            parts.clock,
            scope,
            dataset,
            kind.upper(),
            id,
            namespace,
            time,
            file,
            FORMATS[chosen],
        )
        console.print(f"{uploaded.batch.row_count:,} rows in, {uploaded.batch.rejected_rows:,} rejected")
        for row in uploaded.rejected:
            console.print(f"  row {row.row}: {row.message}", markup=False)

    _run(_with_parts(load_settings(), load))


@cli.command(epilog="Example: `segmentation demo --no-serve`")
def demo(
    serve: Annotated[bool, typer.Option(help="Go on as a server after the results.")] = True,
    port: Annotated[int, typer.Option(help="Port of the server; 0 takes a free one.")] = 8000,
    profiles: Annotated[int, typer.Option(min=1, help="People of the generated shop.")] = 100_000,
    events: Annotated[int, typer.Option(min=1, help="Events of the generated shop.")] = 2_000_000,
) -> None:
    """Generate a shop in a temporary folder, evaluate three audiences, and serve them in GraphiQL."""
    from app.demo import run_demo
    from app.parts import open_parts

    async def show(settings: Settings) -> None:
        async with open_parts(settings) as parts:
            await run_demo(parts, profiles, events, Console(highlight=False))
        if serve:
            await _serve(settings)

    with tempfile.TemporaryDirectory(prefix="segmentation-demo-") as folder:
        _run(show(load_settings(data_dir=Path(folder), database_url="", host="127.0.0.1", port=port, worker=True)))


Profiles = Annotated[Path, typer.Option(help="People: NDJSON, CSV or Parquet.", exists=True, dir_okay=False)]
Events = Annotated[Path | None, typer.Option(help="Their events.", exists=True, dir_okay=False)]
Members = Annotated[Path | None, typer.Option(help="Stored memberships, for inSegment.", exists=True, dir_okay=False)]
IdColumn = Annotated[str, typer.Option("--id", help="Column of the people with their id.")]
EventIdColumn = Annotated[str, typer.Option("--event-id", help="Column of the events with the person's id.")]
TimeColumn = Annotated[str, typer.Option("--time", help="Column of the events with their time.")]
Expressions = Annotated[list[str] | None, typer.Argument(help="Expressions; from standard input, one a line, if none.")]


@pql.command("eval", epilog="Example: `segmentation pql eval --profiles p.ndjson 'homeAddress.country = \"US\"'`")
def evaluate(
    profiles: Profiles,
    expressions: Expressions = None,
    events: Events = None,
    membership: Members = None,
    now: Annotated[datetime | None, typer.Option(help="The instant that `now` means (UTC).")] = None,
    id: IdColumn = "_id",
    event_id: EventIdColumn = "profileId",
    time: TimeColumn = "timestamp",
) -> None:
    """Print `expression<TAB>ids` for each expression, or `ERROR line:column kind message`."""
    from app.engine.run.adhoc import evaluate_trial, load_trial

    trial = load_trial(profiles, events, id=id, event_id=event_id, time=time, membership=membership)
    instant = utc_now() if now is None else now.replace(tzinfo=now.tzinfo or UTC)
    failed = False
    for expression in _expressions(expressions):
        try:
            ids = evaluate_trial(trial, expression, instant)
        except ExpressionRefused as refusal:
            failed = True
            print(_error_line(refusal.diagnostics[0]))
        else:
            print(f"{expression}\t{' '.join(ids)}")
    raise typer.Exit(1 if failed else 0)


@pql.command("check", epilog="Example: `segmentation pql check --profiles p.ndjson 'income >'`")
def check_expression(
    profiles: Profiles,
    expressions: Expressions = None,
    events: Events = None,
    membership: Members = None,
    id: IdColumn = "_id",
    event_id: EventIdColumn = "profileId",
    time: TimeColumn = "timestamp",
) -> None:
    """Print the canonical text of each expression, or its errors; the files say what fields there are."""
    from app.engine.run.adhoc import load_trial

    trial = load_trial(profiles, events, id=id, event_id=event_id, time=time, membership=membership)
    failed = False
    for expression in _expressions(expressions):
        checked = check(expression, trial.schema, segments=trial.members)
        for diagnostic in checked.diagnostics:
            failed = failed or diagnostic.severity is Severity.ERROR
            print(_error_line(diagnostic))
        if checked.ok:
            print(checked.canonical)
    raise typer.Exit(1 if failed else 0)


@pql.command("convert", epilog="Example: `segmentation pql convert 'country = \"US\"'`")
def convert(expressions: Expressions = None) -> None:
    """Turn text into pql/json, and pql/json (what starts with a brace) into text."""
    failed = False
    for expression in _expressions(expressions):
        try:
            if expression.lstrip().startswith("{"):
                print(print_tree(from_json(expression)))
            else:
                print(to_json(parse(expression)))
        except ExpressionRefused as refusal:
            failed = True
            print(_error_line(refusal.diagnostics[0]))
    raise typer.Exit(1 if failed else 0)


def _expressions(given: list[str] | None) -> Iterator[str]:
    yield from given or (line.rstrip("\n") for line in sys.stdin if line.strip())


def _error_line(found: Diagnostic) -> str:
    level = "ERROR" if found.severity is Severity.ERROR else "WARNING"
    return f"{level} {found.line}:{found.column} {found.kind.lower()} {found.message}"


async def _with_parts(settings: Settings, use: Any) -> None:
    from app.parts import open_parts

    async with open_parts(settings) as parts:
        await use(parts)


async def _work(settings: Settings) -> None:
    from app.parts import open_parts, working

    async with open_parts(settings, wait=True) as parts:
        stop = asyncio.Event()
        _on_signals(stop.set)
        async with working(parts):
            await stop.wait()


async def _serve(settings: Settings) -> None:
    _refuse_open_door(settings)
    import uvicorn

    from app.main import create_app

    class Server(uvicorn.Server):
        """Leaves signals to us: uvicorn would raise them again after a clean stop, and the exit code would not be 0."""

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    app = create_app(settings)
    try:
        listener = socket.create_server((settings.host, settings.port), reuse_port=False)
    except OSError as error:
        _fail(f"cannot listen on {settings.host}:{settings.port}: {error.strerror}; choose another with --port")
    with listener:
        host, port = listener.getsockname()[:2]
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=5,
            ws="websockets-sansio",
        )
        server = Server(config)

        def stop() -> None:
            app.state.stopping.set()
            server.should_exit = True

        _on_signals(stop)
        console.print(f"GraphiQL and the API: http://{host}:{port}/graphql  (Ctrl+C stops)", soft_wrap=True)
        await server.serve(sockets=[listener])
        if not server.started:
            _fail("the server did not start; the log above says why")


def _on_signals(stop: Any) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)


def _refuse_open_door(settings: Settings) -> None:
    if settings.host != "localhost" and not ipaddress.ip_address(settings.host).is_loopback:
        _fail(
            f"SEGMENTATION_AUTH=none lets everybody in, so it serves loopback addresses only, not {settings.host}: "
            "bind 127.0.0.1"
        )


def _run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def _log_to_standard_error(settings: Settings) -> None:
    logging.basicConfig(
        level=settings.log_level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )


def _fail(message: str) -> NoReturn:
    console.print(f"segmentation: {message}", markup=False, soft_wrap=True)
    raise SystemExit(1)


if __name__ == "__main__":
    main()

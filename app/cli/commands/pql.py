"""`pql`: check, convert and try expressions on files, without a server."""

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo, available_timezones

import typer

from app.cli.terminal import importing
from app.clock import utc_now
from app.errors import Diagnostic, ExpressionRefused, Refusal, Severity

commands = typer.Typer(help="The Profile Query Language: check, convert and try expressions.", no_args_is_help=True)

Profiles = Annotated[Path, typer.Option(help="File of profiles: NDJSON, CSV or Parquet.", exists=True, dir_okay=False)]
Events = Annotated[Path | None, typer.Option(help="Their events.", exists=True, dir_okay=False)]
Members = Annotated[Path | None, typer.Option(help="Stored memberships, for inSegment.", exists=True, dir_okay=False)]
IdColumn = Annotated[str, typer.Option("--id", help="Column of the profiles with their id.")]
EventIdColumn = Annotated[str, typer.Option("--event-id", help="Column of the events with the profile id.")]
TimeColumn = Annotated[str, typer.Option("--time", help="Column of the events with their time.")]
Expressions = Annotated[list[str] | None, typer.Argument(help="Expressions; from standard input, one a line, if none.")]


@commands.command("eval", epilog="Example: `segmentation pql eval --profiles p.ndjson 'homeAddress.country = \"US\"'`")
def evaluate(
    profiles: Profiles,
    expressions: Expressions = None,
    events: Events = None,
    membership: Members = None,
    now: Annotated[datetime | None, typer.Option(help="Value of `now` (UTC).")] = None,
    time_zone: Annotated[
        str, typer.Option(help="IANA name of the time zone for calendar units.", envvar="SEGMENTATION_TIME_ZONE")
    ] = "UTC",
    id: IdColumn = "_id",
    event_id: EventIdColumn = "profileId",
    time: TimeColumn = "timestamp",
) -> None:
    """Print `expression<TAB>ids` for each expression or `ERROR line:column kind message`; failures stop no other."""
    with importing():
        from app.engine.run.adhoc import evaluate_trial, load_trial

    trial = load_trial(profiles, events, id=id, event_id=event_id, time=time, membership=membership)
    instant = (utc_now() if now is None else now.replace(tzinfo=now.tzinfo or UTC)).astimezone(_zone(time_zone))
    failed = False
    for expression in _expressions(expressions):
        try:
            ids = evaluate_trial(trial, expression, instant)
        except ExpressionRefused as refusal:
            failed = True
            print(_error_line(refusal.diagnostics[0]))
        except Refusal as failure:
            failed = True
            print(f"ERROR 1:1 evaluation {failure.message}")
        else:
            print(f"{expression}\t{' '.join(ids)}")
    raise typer.Exit(1 if failed else 0)


@commands.command("check", epilog="Example: `segmentation pql check --profiles p.ndjson 'income >'`")
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
    with importing():
        from app.engine.run.adhoc import load_trial
        from app.pql.check.checker import check

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


@commands.command("convert", epilog="Example: `segmentation pql convert 'country = \"US\"'`")
def convert(expressions: Expressions = None) -> None:
    """Turn text into pql/json, and pql/json (what starts with a brace) into text."""
    from app.pql.syntax.json_reader import from_json
    from app.pql.syntax.json_writer import to_json
    from app.pql.syntax.parser import parse
    from app.pql.syntax.printer import print_tree

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


def _zone(name: str) -> ZoneInfo:
    if name not in available_timezones():
        raise typer.BadParameter(f"there is no time zone {name!r}: give an IANA name, such as Europe/Berlin")
    return ZoneInfo(name)


def _expressions(given: list[str] | None) -> Iterator[str]:
    yield from given or (line.rstrip("\n") for line in sys.stdin if line.strip())


def _error_line(found: Diagnostic) -> str:
    level = "ERROR" if found.severity is Severity.ERROR else "WARNING"
    return f"{level} {found.line}:{found.column} {found.kind.lower()} {found.message}"

"""`pql`: checks, converts and evaluates expressions on files, without a server."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from zoneinfo import ZoneInfo, available_timezones

import typer

from app.cli.terminal import grouped, importing
from app.clock import utc_now
from app.errors import Diagnostic, ExpressionRefused, Refusal, Severity

if TYPE_CHECKING:
    from app.engine.run.adhoc import Trial

commands = typer.Typer(help="The Profile Query Language: check, convert and try expressions.", no_args_is_help=True)

Expressions = Annotated[list[str] | None, typer.Argument(help="Expressions; from standard input, one a line, if none.")]


@dataclass(frozen=True, slots=True)
class TrialFiles:
    """The files on which expressions are evaluated."""

    profiles: Annotated[
        Path, typer.Option(help="File of profiles: NDJSON, CSV or Parquet.", exists=True, dir_okay=False)
    ]
    events: Annotated[Path | None, typer.Option(help="Their events.", exists=True, dir_okay=False)] = None
    membership: Annotated[
        Path | None, typer.Option(help="Stored memberships, for inSegment.", exists=True, dir_okay=False)
    ] = None
    id: Annotated[str, typer.Option(help="Column of the profiles with their id.")] = "_id"
    event_id: Annotated[str, typer.Option(help="Column of the events with the profile id.")] = "profileId"
    time: Annotated[str, typer.Option(help="Column of the events with their time.")] = "timestamp"

    def load(self) -> "Trial":
        with importing():
            from app.engine.run.adhoc import load_trial

        columns = {"id": self.id, "event_id": self.event_id, "time": self.time}
        return load_trial(self.profiles, self.events, membership=self.membership, **columns)


@commands.command("eval", epilog="Example: `segmentation pql eval --profiles p.ndjson 'homeAddress.country = \"US\"'`")
@grouped
def evaluate(
    expressions: Expressions = None,
    *,
    data: TrialFiles,
    now: Annotated[datetime | None, typer.Option(help="Value of `now` (UTC).")] = None,
    time_zone: Annotated[
        str, typer.Option(help="IANA name of the time zone for calendar units.", envvar="SEGMENTATION_TIME_ZONE")
    ] = "UTC",
) -> None:
    """Print `expression<TAB>ids` for each expression, or `ERROR line:column kind message`; an error does not stop the
    others."""
    with importing():
        from app.engine.run.adhoc import evaluate_trial

    trial = data.load()
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
@grouped
def check_expression(
    expressions: Expressions = None,
    *,
    data: TrialFiles,
) -> None:
    """Print the canonical text of each expression, or its errors; the files determine the available fields."""
    with importing():
        from app.pql.check.checker import check

    trial = data.load()
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
    """Convert text into pql/json, and pql/json (input that starts with a brace) into text."""
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

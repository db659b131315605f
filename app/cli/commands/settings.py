"""`settings`: the settings in effect and their sources."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.terminal import load_settings

if TYPE_CHECKING:
    from app.settings import Settings

commands = typer.Typer()

MASK = "********"


@dataclass(frozen=True, slots=True)
class Setting:
    """`source` is `environment`, `.env` or `default`."""

    name: str
    value: Any
    source: str
    default: Any
    help: str


@commands.command(epilog="Example: `segmentation settings --changed`")
def settings(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON objects, one a line.")] = False,
    changed: Annotated[bool, typer.Option("--changed", help="Only those that are not the default.")] = False,
) -> None:
    """Print every setting: its variable, value, source and meaning. Secrets are masked."""
    for setting in _settings(load_settings()):
        if changed and setting.source == "default":
            continue
        if as_json:
            print(json.dumps(asdict(setting), default=str, ensure_ascii=False))
        else:
            print(f"{setting.name}={_text(setting.value)}  ({setting.source})\n    {setting.help}")


def _settings(settings: "Settings") -> Iterator[Setting]:
    from app.settings import SECRETS, variables_of_file

    prefix = "SEGMENTATION_"
    environment = {name.upper() for name in os.environ}
    file = {name.upper() for name in variables_of_file()}
    for field, info in type(settings).model_fields.items():
        name = f"{prefix}{field.upper()}"
        source = "environment" if name in environment else ".env" if name in file else "default"
        value = getattr(settings, field)
        if field in SECRETS and value is not None:
            value = MASK
        yield Setting(name, value, source, info.default, info.description or "")


def _text(value: object) -> str:
    if value is None:
        return ""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)

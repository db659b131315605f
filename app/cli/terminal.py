"""Shared by all commands: output, event loop and error handling."""

import asyncio
import gc
import inspect
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer
from rich.console import Console

from app.errors import (
    DatabaseAway,
    InvalidDatabaseUrl,
    InvalidSettings,
    MigrationRefused,
    Refusal,
    Refusals,
    Unconfirmed,
    outage,
)
from app.scope import Scope
from app.services.access.identity import DEFAULT_ORGANISATION, DEFAULT_SANDBOX, tenant_name

if TYPE_CHECKING:
    from app.settings import Settings
    from app.wiring import Services

T = TypeVar("T")

REFUSALS = (
    Refusal, Refusals, InvalidSettings, InvalidDatabaseUrl, MigrationRefused, DatabaseAway, Unconfirmed,
)  # fmt: skip
"""Errors whose message says what is wrong and what to do."""

console = Console(stderr=True, highlight=False)


def _tenant_name(parameter: typer.CallbackParam, value: str) -> str:
    """The name of an organisation or sandbox, by the rule for headers."""
    try:
        return tenant_name(f"--{parameter.name}", value)
    except Refusal as error:
        raise typer.BadParameter(error.message) from None


Organisation = Annotated[str, typer.Option(callback=_tenant_name, help="Whose data.")]
Sandbox = Annotated[str, typer.Option(callback=_tenant_name, help="Sandbox of the organisation.")]


@dataclass(frozen=True, slots=True)
class Tenancy:
    """The tenant that a command works on."""

    organisation: Organisation = DEFAULT_ORGANISATION
    sandbox: Sandbox = DEFAULT_SANDBOX

    @property
    def scope(self) -> Scope:
        return Scope(self.organisation, self.sandbox, user="cli")

    def __str__(self) -> str:
        return f"{self.organisation}/{self.sandbox}"


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """The command, with the fields of its dataclass parameters as options of their own."""
    groups: dict[str, type] = {}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        if not (isinstance(parameter.annotation, type) and is_dataclass(parameter.annotation)):
            parameters.append(parameter)
            continue
        groups[name] = parameter.annotation
        parameters += inspect.signature(parameter.annotation, eval_str=True).parameters.values()

    def flat(**values: Any) -> None:
        arguments = {
            name: group(**{field.name: values.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        command(**values, **arguments)

    named = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    flat.__name__, flat.__doc__ = command.__name__, command.__doc__
    flat.__signature__ = inspect.Signature(named)  # type: ignore[attr-defined]
    flat.__annotations__ = {parameter.name: parameter.annotation for parameter in named}
    return flat


def load_settings(**overrides: object) -> "Settings":
    """Like `app.settings.load_settings`, which is imported only when a command runs."""
    from app.settings import load_settings

    return load_settings(**overrides)


@contextmanager
def importing() -> Iterator[None]:
    """Imports without garbage collection, and excludes what is imported from later collections: these objects stay
    alive, and scanning them repeatedly takes a fourth of a server's start."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


async def with_services(settings: "Settings", use: "Callable[[Services], Awaitable[None]]") -> None:
    with importing():
        from app.wiring import open_services

    async with open_services(settings) as services:
        await use(services)


def run(work: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` on uvloop's event loop where available: its transports cost half as much.

    SIGTERM cancels the work like Ctrl+C, so that it leaves nothing half done.
    """

    async def until_terminated() -> T:
        task = asyncio.current_task()
        if task is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await work

    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(until_terminated())
    except asyncio.CancelledError:
        raise SystemExit(128 + signal.SIGTERM) from None


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # Windows
        return None
    return uvloop.new_event_loop


def observe(settings: "Settings", service: str) -> None:
    """Sets up logs and traces of a long-running process."""
    from app import logs, traces

    logs.configure(settings.log_format, settings.log_level)
    if settings.traces == "otlp":
        try:
            traces.configure(service)
        except traces.TracesUnavailable as problem:
            fail(str(problem))


def fail(message: str) -> NoReturn:
    console.print(f"segmentation: {message}", markup=False, soft_wrap=True)
    raise SystemExit(1)


@contextmanager
def failures_said() -> Iterator[None]:
    """Ends the process with one sentence and exit code 1 on rejected requests and on failures of disk, data folder or
    database."""
    try:
        yield
    except REFUSALS as refusal:
        fail(str(refusal))
    except Exception as error:
        from app.storage.database import is_unavailable

        if reason := outage(error):
            fail(reason)
        if is_unavailable(error):
            fail("the database went away, and only what it confirmed is done: try again")
        raise

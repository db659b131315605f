"""A single process that serves requests or runs jobs until it is stopped."""

import asyncio
import contextlib
import ipaddress
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

from app.cli.pages import build_if_stale
from app.cli.terminal import console, fail, importing

if TYPE_CHECKING:
    import uvicorn

    from app.settings import Settings
    from app.wiring import Services

Started = Callable[[Callable[[], None]], None]
"""Called once a process is open, with the function that stops it."""


async def work(settings: "Settings", metrics_port: int | None = None, started: Started | None = None) -> None:
    """Runs jobs until stopped: by the function given to `started`, by default by signals."""
    with importing():
        from app.wiring import open_services, working

    async with open_services(settings, wait=True) as services:
        stop = asyncio.Event()
        async with working(services), contextlib.AsyncExitStack() as stack:
            (started or _on_signals)(stop.set)
            if metrics_port is not None:
                await stack.enter_async_context(_metrics_served(services, metrics_port))
            await stop.wait()


@contextlib.asynccontextmanager
async def _metrics_served(services: "Services", port: int) -> AsyncIterator[None]:
    from app.main import worker_app

    settings = services.settings
    _refuse_open_door(settings)
    async with worker_app(services) as app:
        with _listen(settings.host, port) as listener:
            server = _server(app, settings)
            console.print(f"Metrics: {_address(listener)}/metrics", soft_wrap=True)
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            try:
                yield
            finally:
                server.should_exit = True
                await serving


async def serve_until_stopped(settings: "Settings") -> None:
    with opened(settings) as listener:
        await serve_on(listener, settings)


@contextlib.contextmanager
def opened(settings: "Settings") -> Iterator[socket.socket]:
    """The server's listening socket. Checks the host, builds stale web pages, and prints the addresses."""
    _refuse_open_door(settings)
    build_if_stale(console)
    with _listen(settings.host, settings.port) as listener:
        console.print(f"Workplace: {_address(listener)}/  (Ctrl+C stops)", soft_wrap=True)
        console.print(f"GraphiQL and the API: {_address(listener)}/graphql", soft_wrap=True)
        yield listener


async def serve_on(listener: socket.socket, settings: "Settings", started: Started | None = None) -> None:
    """Serves until stopped: by the function given to `started`, by default by signals."""
    with importing():
        from app.main import create_app

    app = create_app(settings)
    server = _server(app, settings)

    def leave() -> None:
        app.state.stopping.set()
        server.should_exit = True

    def stop() -> None:
        if app.state.draining.is_set():
            leave()
        app.state.draining.set()
        asyncio.get_running_loop().call_later(settings.drain_seconds, leave)

    # Opened here because uvicorn would log a traceback if the database or the lake cannot be opened.
    async with app.router.lifespan_context(app):
        (started or _on_signals)(stop)
        await server.serve(sockets=[listener])


def _server(app: Any, settings: "Settings") -> "uvicorn.Server":
    import uvicorn

    from app.api.transport.slow_clients import Patience, http_protocol, websocket_protocol

    class Server(uvicorn.Server):
        """Leaves signals to our code: uvicorn would raise them again after a clean stop, and the exit code would not be
        0."""

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    patience = Patience(settings.head_seconds, settings.send_seconds, app.state.metrics.refused)
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=settings.shutdown_seconds,
        http=http_protocol(patience),
        ws=websocket_protocol(patience),
        ws_max_size=settings.max_body_bytes,
        # A caller's identity may depend on the peer's address, so no header may override it.
        proxy_headers=False,
        server_header=False,
    )
    return Server(config)


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{host}:{port}"


def _listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket, with the protocol given explicitly: only then does asyncio set TCP_NODELAY, without which
    each response waits 40 ms for an acknowledgement. Exits the command if the address cannot be bound."""
    listener = None
    try:
        passive = socket.AI_PASSIVE
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=passive)[0]
        listener = socket.socket(family, kind, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        if listener is not None:
            listener.close()
        fail(f"cannot listen on {host}:{port}: {error.strerror}; choose another address or port")
    return listener


def _on_signals(stop: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)


def _refuse_open_door(settings: "Settings") -> None:
    if settings.auth == "none" and not _is_loopback(settings.host):
        fail(
            f"SEGMENTATION_AUTH=none admits every client, so `serve` serves loopback addresses only, "
            f"not {settings.host}: bind 127.0.0.1, or set SEGMENTATION_AUTH to keys, jwt or proxy"
        )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

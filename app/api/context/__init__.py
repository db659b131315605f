"""The context of one GraphQL operation: its caller, one read session and the loaders; knows no resource."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable, Mapping
from contextlib import AbstractContextManager, AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar
from uuid import uuid4

import strawberry

from app.api.context.loaders import Loaders
from app.api.context.metrics import Metrics
from app.clock import Clock
from app.coalescing import Coalesced
from app.engine.run.engine import Engine
from app.engine.store.lake import Lake
from app.errors import ErrorCode, Limit, Refusal
from app.scope import Scope
from app.services.access.authentication import AUTHORIZATION, KEY_HEADER, Authentication, AuthenticationRules
from app.services.access.identity import ANONYMOUS, Identity, Unauthenticated, tenant_name
from app.services.access.rates import Places, Rate
from app.services.datasets.batches import LEASE
from app.services.maintenance.figures import FigureReader
from app.services.people.profiles import ProfileReader
from app.services.search.find import SearchIndexes
from app.storage.columns import StoredValues
from app.storage.database import Database, DatabaseSession
from app.storage.sessions.reading import ReadSession
from app.storage.wakeups import Changes

T = TypeVar("T")

ANSWERS_KEPT = 32
"""Number of cached event responses, for streams that lag slightly behind; each may be as large as a response can be."""
ORGANISATION_HEADER = "x-gw-ims-org-id"
SANDBOX_HEADER = "x-sandbox-name"
TENANT_HEADERS = (ORGANISATION_HEADER, SANDBOX_HEADER)
CREDENTIALS = (AUTHORIZATION, KEY_HEADER)
CALLER_HEADERS = (*TENANT_HEADERS, *CREDENTIALS)


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on requests."""

    max_tokens: int = 5_000
    max_depth: int = 15
    max_aliases: int = 50
    max_body_bytes: int = 16 * 1024**2
    max_upload_bytes: int = 20 * 1024**3
    max_cost: int = 200_000
    introspection: Literal["everybody", "identified", "nobody"] = "everybody"
    max_text: int = 100_000
    max_list_items: int = 5_000
    max_json_depth: int = 100
    init_seconds: float = 5.0
    max_silent_sockets: int = 300
    max_socket_operations: int = 100
    persisted_queries: int = 1_000
    max_seconds: float = 60.0
    rate_requests: int = 0
    rate_cost: int = 0
    rate_failed_logins: int = 0
    max_streams: int = 0


@dataclass(frozen=True, slots=True)
class ApiServices:
    """The parts of the server that the API uses; `uploads` is a folder for files in transit.

    The server reports that it is not ready once `draining` is set. Streams of server-sent events end when `stopping` is
    set, because web servers do not notify applications of a stop early enough. `engine` is the engine of this process's
    jobs, None if it runs no jobs.
    """

    database: Database
    lake: Lake
    changes: Changes
    clock: Clock
    uploads: Path
    limits: Limits = field(default_factory=Limits)
    batch_lease: timedelta = LEASE
    search: SearchIndexes = field(default_factory=SearchIndexes)
    metrics: Metrics = field(default_factory=Metrics)
    draining: asyncio.Event = field(default_factory=asyncio.Event)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    origins: tuple[str, ...] = ()
    """Other origins whose pages may open sockets; `*` for all."""
    access: AuthenticationRules = field(default_factory=AuthenticationRules)
    engine: Engine | None = None
    answers: Coalesced[Any] = field(default_factory=lambda: Coalesced(ANSWERS_KEPT))
    """Responses shared by this server's streams: see `app.api.execution.shared`."""
    authentication: Authentication = field(init=False)
    figures: FigureReader = field(init=False)
    requests: Rate = field(init=False)
    """The remaining allowances of callers: requests, and the cost of operations."""
    costs: Rate = field(init=False)
    streams: Places = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "figures", FigureReader(self.database, self.lake, self.clock))
        failures = self.limits.rate_failed_logins
        authentication = Authentication(self.database, self.changes, self.clock, self.access, failures)
        object.__setattr__(self, "authentication", authentication)
        object.__setattr__(self, "requests", Rate("rate_requests", "requests", self.limits.rate_requests))
        object.__setattr__(self, "costs", Rate("rate_cost", "units of cost", self.limits.rate_cost))
        object.__setattr__(self, "streams", Places("max_streams", "streams", self.limits.max_streams))


def read_scope(identity: Identity, headers: Mapping[str, object]) -> Scope:
    """The tenant chosen by the headers (or by a connection payload with the same names); names are in lower case.

    Raises `Refusal` for an invalid name, with the header as its path, and for a tenant that the caller may not use.
    """
    names = [tenant_name(name, headers[name]) if name in headers else None for name in TENANT_HEADERS]
    return identity.scope(*names)


@dataclass(slots=True)
class Caller:
    """The client of a request or WebSocket; its identity is known once `identify` has returned."""

    services: ApiServices
    headers: Mapping[str, list[str]] = field(default_factory=dict)
    peer: str | None = None
    request_id: str = field(default_factory=lambda: uuid4().hex)
    identity: Identity | None = None
    scope: Scope | None = None
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the client has disconnected and can no longer receive a response."""
    connection_params: Any = None
    """Strawberry stores the payload of a WebSocket's first message here."""

    async def identify(self, payload: Mapping[str, object] | None = None) -> None:
        """Authenticates by the headers and by the payload of a WebSocket's first message, which takes precedence.

        Raises `Unauthenticated`, `RateExceeded`, and `Refusal` for a tenant that the caller may not use.
        """
        sent = {str(name).lower(): value for name, value in (payload or {}).items()}
        for name, values in self.headers.items():
            if len(values) > 1:
                raise Unauthenticated(f"{name} is sent {len(values)} times: send it once")
        headers: StoredValues = {name: values[0] for name, values in self.headers.items()}
        headers |= {name: sent[name] for name in CALLER_HEADERS if name in sent}
        for name in CREDENTIALS:
            if not isinstance(headers.get(name, ""), str):
                raise Unauthenticated(f"{name} must be a text")
        self.identity = await self.services.authentication.identify(headers, self.peer)
        self.scope = read_scope(self.identity, headers)

    @property
    def organisation(self) -> str:
        return "" if self.scope is None else self.scope.organisation

    @property
    def account(self) -> Hashable:
        """The key under which requests are counted: one subject, across all tenants it chooses."""
        return None if self.identity is None else (self.identity.organisation, self.identity.subject)

    def count_request(self) -> None:
        """Raises `RateExceeded`."""
        self.services.requests.take(self.account)

    def hold_stream(self) -> AbstractContextManager[None]:
        """A slot for one stream of the caller. Raises `Refusal`."""
        return self.services.streams.hold(self.account)

    async def until_ended(self) -> str:
        """Waits until the caller's identity is no longer valid and returns the reason; never returns for a permanent
        one."""
        if self.identity is None:
            raise RuntimeError("a stream began before its caller was known")
        return await self.services.authentication.until_ended(self.identity)

    def operation(self) -> "Operation":
        if self.scope is None:
            raise RuntimeError("an operation began before its caller was known")
        return Operation(self.services, self.scope, self.request_id, self.gone, self.account)


class Operation:
    """The context of one GraphQL operation. All of its reads see one snapshot of the database, until `renew`."""

    def __init__(
        self,
        services: ApiServices,
        scope: Scope,
        request_id: str,
        gone: asyncio.Event | None = None,
        account: Hashable = None,
    ) -> None:
        self.services = services
        self.scope = scope
        self.request_id = request_id
        self._account = account
        self.refused: Mapping[str, list[Refusal]] = {}
        """Mutations of this operation that its caller may not run, by response key."""
        self.stopping = (services.stopping, gone or asyncio.Event())
        """Long work stops soon after one of these is set: the server is stopping, or the client has disconnected."""
        self.begun = time.monotonic()
        self.event: Hashable = None
        """The event that a stream delivers next, if other streams may deliver the same; equal values mean equal
        responses."""
        # Loaders run concurrently, but a session runs one statement at a time.
        self._lock = asyncio.Lock()
        self._session: ReadSession | None = None
        self._open = AsyncExitStack()
        self._closed = False
        self._reads: set[asyncio.Task[object]] = set()

    def count_cost(self, cost: int) -> None:
        """Raises `RateExceeded`."""
        self.services.costs.take(self._account, cost)

    async def within_time(self, work: Awaitable[T]) -> T:
        """The result of `work`. Raises `Refusal` if it exceeds the time limit of an operation, and cancels it with its
        statements and threads."""
        seconds = self.services.limits.max_seconds
        try:
            async with asyncio.timeout(seconds) as deadline:
                return await work
        except TimeoutError:
            if not deadline.expired():
                raise
            await self._stop_reads()
            message = f"the operation took more than {seconds:g} seconds (max_seconds): ask for less, or in parts"
            raise Refusal(ErrorCode.LIMIT_EXCEEDED, message, limit=Limit("max_seconds", seconds)) from None

    async def _stop_reads(self) -> None:
        if self._session is not None and self._reads:
            await self._session.interrupt()
        for read in self._reads:
            read.cancel()

    def twin(self) -> "Operation":
        """Another operation of the same caller, with its own reads. The caller of `twin` closes it."""
        return Operation(self.services, self.scope, self.request_id)

    async def read(self, query: Callable[[DatabaseSession], Awaitable[T]]) -> T:
        """Runs `query` with the session of this operation, which is opened on first use.

        The query continues when its field is cancelled because a sibling failed: interrupting a statement would make
        the session unusable for all others.
        """
        task = asyncio.create_task(self._read(query))
        self._reads.add(task)
        task.add_done_callback(self._reads.discard)
        return await asyncio.shield(task)

    async def _read(self, query: Callable[[DatabaseSession], Awaitable[T]]) -> T:
        async with self._lock:
            if self._closed:
                raise RuntimeError("a read began after its operation had ended")
            if self._session is None:
                self._session = await self._open.enter_async_context(self.services.database.session())
            return await query(self._session)

    @cached_property
    def profiles(self) -> ProfileReader:
        return ProfileReader(self.services.database, self.services.lake, self.services.clock, self.scope)

    @cached_property
    def loaders(self) -> Loaders:
        services = self.services
        return Loaders(self.read, self.scope, services.database, services.lake, services.clock, self.profiles)

    @property
    def introspective(self) -> bool:
        """Whether the caller may read the schema and see names from it in suggestions."""
        allowed = self.services.limits.introspection
        return allowed == "everybody" or (allowed == "identified" and self.scope.user != ANONYMOUS.subject)

    async def renew(self) -> None:
        """Discards everything read: after a write, and between the items of a subscription."""
        async with self._lock:
            self.__dict__.pop("loaders", None)
            self.__dict__.pop("profiles", None)
            self._session = None
            await self._open.aclose()
            self._open = AsyncExitStack()

    async def close(self) -> None:
        await self.renew()
        self._closed = True


Info = strawberry.Info[Operation, None]

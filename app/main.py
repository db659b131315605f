"""Assembles the server; the only module that knows all parts."""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import fields
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path

from starlette.applications import Starlette

from app.api.context import ApiServices, Limits
from app.api.context.metrics import Metrics
from app.api.guards.documents import InvalidDocuments, TrustedDocuments
from app.api.schema import build_schema
from app.api.transport.guard import LOOPBACK, GuardRules, guards
from app.api.transport.health import health_routes
from app.api.transport.page import missing_reason
from app.api.transport.routes import api_routes
from app.clock import Clock, utc_now
from app.engine.store.lake import scratch_folder
from app.errors import InvalidSettings
from app.services.access.authentication import AuthenticationRules, Proxy
from app.services.access.identity import TokenRules
from app.settings import Settings
from app.storage.database import read_url
from app.wiring import Services, open_services, watching, working

log = logging.getLogger("segmentation")


def create_app(settings: Settings, clock: Clock = utc_now) -> Starlette:
    """Creates the ASGI application. Its parts open at startup and close at shutdown.

    To stop the server, set `app.state.draining` first, so that load balancers notice, and then `app.state.stopping`, so
    that streams end and do not delay the shutdown. Raises `InvalidDatabaseUrl` and `InvalidSettings`.
    """
    read_url(settings.database)
    trusted = _trusted(settings)
    draining, stopping, metrics = asyncio.Event(), asyncio.Event(), Metrics()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        if reason := missing_reason():
            log.warning("the workplace and GraphiQL are not available: %s", reason)
        async with open_services(settings, clock, wait=True) as services, _uploads(settings.folder) as uploads:
            api = _api(services, uploads, metrics, draining, stopping)
            app.router.routes.extend(api_routes(api, trusted))
            settle_garbage()
            async with working(services) if settings.worker else watching(services):
                yield
            await api.authentication.close()

    app = Starlette(lifespan=lifespan, middleware=guards(_guard(settings)))
    app.state.draining, app.state.stopping, app.state.metrics = draining, stopping, metrics
    return app


@asynccontextmanager
async def worker_app(services: Services) -> AsyncIterator[Starlette]:
    """The HTTP application of a worker process: health and metrics, as on a server, and nothing else."""
    settings, stopping = services.settings, asyncio.Event()
    api = _api(services, settings.folder, Metrics(), stopping, stopping)
    app = Starlette(routes=health_routes(api), middleware=guards(_guard(settings)))
    app.state.metrics = api.metrics
    yield app
    await api.authentication.close()


def _api(
    services: Services, uploads: Path, metrics: Metrics, draining: asyncio.Event, stopping: asyncio.Event
) -> ApiServices:
    settings = services.settings
    return ApiServices(
        database=services.database,
        lake=services.lake,
        changes=services.changes,
        clock=services.clock,
        uploads=uploads,
        limits=_limits(settings),
        batch_lease=settings.batch_lease,
        metrics=metrics,
        draining=draining,
        stopping=stopping,
        origins=settings.cors_origins,
        access=_access(settings),
        engine=services.engine if settings.worker else None,
    )


def _trusted(settings: Settings) -> TrustedDocuments | None:
    path = settings.trusted_documents
    try:
        return None if path is None else TrustedDocuments.read(path, build_schema(_limits(settings))._schema)
    except InvalidDocuments as problem:
        raise InvalidSettings(f"SEGMENTATION_TRUSTED_DOCUMENTS={path}: {problem}") from None


def _limits(settings: Settings) -> Limits:
    return Limits(**{limit.name: getattr(settings, limit.name) for limit in fields(Limits)})


def _guard(settings: Settings) -> GuardRules:
    hosts = (*settings.hosts, *LOOPBACK) if settings.auth == "none" else settings.hosts
    return GuardRules(hosts, settings.cors_origins, settings.cors_credentials, settings.upload_idle_seconds)


def _access(settings: Settings) -> AuthenticationRules:
    secret = settings.jwt_secret
    tokens = TokenRules(
        secret=None if secret is None else secret.get_secret_value(),
        jwks=settings.jwt_jwks,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        leeway=timedelta(seconds=settings.jwt_leeway_seconds),
    )
    proxy = Proxy(
        peers=tuple(ip_network(peer) for peer in settings.proxy_peers),
        subject=settings.proxy_subject_header,
        organisation=settings.proxy_organisation_header,
        permissions=settings.proxy_permissions_header,
        sandboxes=settings.proxy_sandboxes_header,
    )
    mode = settings.auth
    return AuthenticationRules(mode, tokens if mode == "jwt" else None, proxy if mode == "proxy" else None)


def settle_garbage() -> None:
    """Excludes the started server's objects from garbage collection and makes collections less frequent.

    A large response allocates tens of thousands of objects that reference counting frees. By default every 700
    allocations start a collection, and some of these scan all objects, which takes a third of the time of such
    responses.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@asynccontextmanager
async def _uploads(data_dir: Path) -> AsyncIterator[Path]:
    """A folder for uploads in transit, on the lake's disk; deleted with the process."""
    with scratch_folder(data_dir / "uploads") as folder:
        yield folder

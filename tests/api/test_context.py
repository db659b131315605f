"""Who an operation is for: headers, the payload of a WebSocket, and what is written in either."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from app.api.context import ApiServices, Caller
from app.clock import FixedClock
from app.engine.store.lake import Lake
from app.storage.database import Database
from app.storage.wakeups import Changes


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("headers", "payload", "tenant"),
    [
        ({"x-sandbox-name": ["dev"]}, None, ("default", "dev")),
        ({"x-sandbox-name": [" dev "]}, None, ("default", "dev")),
        ({}, {"x-sandbox-name": " dev "}, ("default", "dev")),
        ({"x-sandbox-name": ["dev"]}, {"X-Sandbox-Name": "stage"}, ("default", "stage")),
        ({"x-sandbox-name": ["dev"]}, {"x-gw-ims-org-id": "acme"}, ("acme", "dev")),
    ],
    ids=["header", "header with spaces", "payload with spaces", "the payload wins", "each name by itself"],
)
async def test_the_tenant_of_a_caller(
    database: Database,
    changes: Changes,
    clock: FixedClock,
    tmp_path: Path,
    headers: Mapping[str, list[str]],
    payload: Mapping[str, Any] | None,
    tenant: tuple[str, str],
) -> None:
    services = ApiServices(database, Lake(tmp_path / "lake"), changes, clock, tmp_path)
    caller = Caller(services, headers)
    await caller.identify(payload)
    assert caller.scope is not None
    assert (caller.scope.organisation, caller.scope.sandbox) == tenant

"""API keys of the organisation: list, create and revoke."""

from datetime import datetime
from typing import Annotated, Self

import strawberry

from app.api.context import Info, Operation
from app.api.described import mutation
from app.api.errors import UserError, attempt, errors_field
from app.api.global_ids import Node, global_id, need_id
from app.api.lists.connections import Connection, connect, connection
from app.api.permissions import is_permission
from app.api.scalars import given
from app.services.access import keys
from app.services.lists.paging import PageRequest
from app.storage.tables.access import ApiKeyRow


@strawberry.type(
    description="A secret that identifies a program, with its permissions. The secret itself is not stored."
)
class ApiKey(Node):
    name: str = strawberry.field(description="Name of the key.")
    prefix: str = strawberry.field(description="The first characters of the secret, to recognise it by.")
    permissions: list[str] = strawberry.field(description="Permissions, for example `read` or `audiences:write`.")
    sandboxes: list[str] | None = strawberry.field(description="Sandboxes that it is valid for; null for all.")
    created_by: str = strawberry.field(description="Creator.")
    created_at: datetime = strawberry.field(description="Creation time.")
    last_used_at: datetime | None = strawberry.field(description="Last use, to the minute; null when never used.")
    expires_at: datetime | None = strawberry.field(description="Expiry time; null for none.")
    revoked_at: datetime | None = strawberry.field(description="When it was revoked; null while it is valid.")

    @classmethod
    def of(cls, row: ApiKeyRow) -> Self:
        return cls(
            id=global_id("ApiKey", row.id),
            name=row.name,
            prefix=row.prefix,
            permissions=row.permissions,
            sandboxes=row.sandboxes,
            created_by=row.created_by,
            created_at=row.created_at,
            last_used_at=row.last_used_at,
            expires_at=row.expires_at,
            revoked_at=row.revoked_at,
        )

    @classmethod
    async def fetch(cls, operation: Operation, raw: str) -> Self | None:
        row = await operation.read(lambda session: keys.get(session, operation.scope, raw))
        return None if row is None else cls.of(row)


@strawberry.input(description="The key to create. It cannot have permissions that its creator lacks.")
class CreateApiKeyInput:
    name: str = strawberry.field(description="Name of the key.")
    permissions: list[str] = strawberry.field(
        description="`read`, `write`, `run`, `admin` for every resource, or one by its name: `audiences:write`."
    )
    sandboxes: list[str] | None = strawberry.field(
        default=strawberry.UNSET, description="Sandboxes that it is valid for; all of the organisation unless given."
    )
    expires_at: datetime | None = strawberry.field(default=strawberry.UNSET, description="Expiry time; default none.")

    def as_new(self) -> keys.NewKey:
        return keys.NewKey(self.name, self.permissions, given(self.sandboxes), given(self.expires_at))


@strawberry.type(description="Outcome of a change to an API key.")
class ApiKeyPayload:
    api_key: ApiKey | None = strawberry.field(description="The key; null when it was rejected.")
    secret: str | None = strawberry.field(description="The secret of a new key. It is shown this once.")
    errors: list[UserError] = errors_field()


KeyArgument = Annotated[CreateApiKeyInput, strawberry.argument(description="The key to create.")]
KeyId = Annotated[strawberry.ID, strawberry.argument(description="Global id, or the raw one that `key list` prints.")]


@strawberry.type
class ApiKeyQueries:
    @connection(description="The API keys of the organisation, newest first, also those that have ended.")
    async def api_keys(self, info: Info, *, page: PageRequest) -> Connection[ApiKey]:
        operation = info.context
        return await connect(
            info,
            lambda: operation.read(lambda session: keys.page(session, operation.scope, page)),
            ApiKey.of,
            lambda: operation.read(lambda session: keys.count(session, operation.scope)),
        )


@strawberry.type
class ApiKeyMutations:
    @mutation(description="Creates an API key of the organisation.")
    async def create_api_key(self, info: Info, input: KeyArgument) -> ApiKeyPayload:
        services, scope = info.context.services, info.context.scope
        created, errors = await attempt(
            info, lambda: keys.create(services.database, services.clock, scope, input.as_new(), is_permission), "input"
        )
        if created is None:
            return ApiKeyPayload(api_key=None, secret=None, errors=errors)
        row, secret = created
        return ApiKeyPayload(api_key=ApiKey.of(row), secret=secret, errors=errors)

    @mutation(description="Revokes an API key at once: its requests are rejected and its streams end.")
    async def revoke_api_key(self, info: Info, id: KeyId) -> ApiKeyPayload:
        services, scope = info.context.services, info.context.scope

        async def revoke() -> ApiKeyRow:
            return await keys.revoke(services.database, services.clock, scope, need_id("ApiKey", id, "id"))

        row, errors = await attempt(info, revoke)
        return ApiKeyPayload(api_key=None if row is None else ApiKey.of(row), secret=None, errors=errors)

"""The sandboxes that the caller can choose, and the time zone of its own."""

from typing import Annotated, Self

import strawberry

from app.api.context import Info
from app.api.described import mutation
from app.api.errors import UserError, attempt, errors_field
from app.api.scalars import BigInt
from app.services.evaluation import sandboxes


@strawberry.type(description="A sandbox of the organisation.")
class Sandbox:
    name: str = strawberry.field(description="Name, as in the header that chooses it.")
    time_zone: str = strawberry.field(description="IANA name; calendar words of PQL follow it.")
    total_profiles: BigInt = strawberry.field(description="Primary identities that have been loaded.")

    @classmethod
    def of(cls, sandbox: sandboxes.Sandbox) -> Self:
        return cls(name=sandbox.name, time_zone=sandbox.time_zone, total_profiles=BigInt(sandbox.total_profiles))


@strawberry.input(description="Changes of the sandbox that the request is about.")
class UpdateSandboxInput:
    time_zone: str = strawberry.field(description="IANA name, such as Europe/Berlin.")


@strawberry.type(description="Result of a mutation of a sandbox.")
class SandboxPayload:
    sandbox: Sandbox | None = strawberry.field(description="The sandbox; null if rejected.")
    errors: list[UserError] = errors_field()


UpdateArgument = Annotated[UpdateSandboxInput, strawberry.argument(description="What to change.")]


@strawberry.type
class SandboxMutations:
    @mutation(description="Updates the sandbox of the request; evaluations that begin from now on follow its zone.")
    async def update_sandbox(self, info: Info, input: UpdateArgument) -> SandboxPayload:
        services, scope = info.context.services, info.context.scope

        async def update() -> sandboxes.Sandbox:
            return await sandboxes.update(services.database, services.lake, services.clock, scope, input.time_zone)

        row, errors = await attempt(info, update, "input")
        return SandboxPayload(sandbox=None if row is None else Sandbox.of(row), errors=errors)

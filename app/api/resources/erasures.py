"""Erasure jobs: persons to erase, and the result in every place that had their data."""

from functools import partial
from typing import Annotated, ClassVar, Self

import strawberry

from app.api.context import Info, Operation
from app.api.described import mutation, resolver
from app.api.errors import UserError, attempt, errors_field
from app.api.execution.from_row import Column, FromRow, RowFields
from app.api.global_ids import Node, find_id, global_id
from app.api.resources.jobs import JOB_FROM_ROW, Job, JobId
from app.api.resources.profiles import IdentityInput
from app.api.scalars import BigInt, given
from app.services.jobs.erasure import requests as erasure_jobs
from app.storage.tables.erasure_jobs import ErasureJobRow


@strawberry.type(description="What was found of a person in one place.")
class ErasedRows:
    place: str = strawberry.field(
        description="Dataset, or another place that keeps data of people; `Left in: …` if the second search found it."
    )
    count: BigInt = strawberry.field(description="Rows, memberships or texts.")


@strawberry.type(
    description="Erases a person from every place that keeps data about them. The job does not reveal who it was."
)
class ErasureJob(FromRow, Node, Job):
    rows: list[ErasedRows] = strawberry.field(
        description="What was found and erased by place, in the order of the work; grows while the job runs."
    )
    verified: bool = strawberry.field(
        description="Whether a second search of all files and tables found nothing; false until then."
    )

    FROM_ROW: ClassVar[RowFields] = {
        **JOB_FROM_ROW,
        "id": Column("id", partial(global_id, "ErasureJob")),
        "rows": lambda row: [ErasedRows(place=place, count=BigInt(count)) for place, count in row.places],
    }

    @classmethod
    async def fetch(cls, operation: Operation, raw: str) -> Self | None:
        row = await operation.loaders.erasure_job.load(raw)
        return None if row is None else cls.of(row)


@strawberry.input(
    description="The person to erase, with all identities that the identity graph links to the given one."
)
class EraseProfileInput:
    identity: IdentityInput = strawberry.field(description="Any identity of the person.")
    reason: str | None = strawberry.field(
        default=strawberry.UNSET, description="Why; kept with the job, so it must not name the person."
    )
    idempotency_key: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="Idempotency key chosen by the client: the same key within 24 hours returns the same job.",
    )


@strawberry.type(description="Result of a mutation of an erasure job.")
class ErasurePayload:
    job: ErasureJob | None = strawberry.field(description="The job; null if rejected.")
    errors: list[UserError] = errors_field()


EraseArgument = Annotated[EraseProfileInput, strawberry.argument(description="The person to erase.")]


@strawberry.type
class ErasureQueries:
    @resolver(description="An erasure job by its id.")
    async def erasure_job(self, info: Info, id: JobId) -> ErasureJob | None:
        raw = find_id("ErasureJob", id)
        return None if raw is None else await ErasureJob.fetch(info.context, raw)


@strawberry.type
class ErasureMutations:
    @mutation(
        description="Starts to erase a person: records, events, memberships and their history, exports, older versions "
        "of all data and messages about it. Rows that arrive later are rejected unless a setting says otherwise."
    )
    async def erase_profile(self, info: Info, input: EraseArgument) -> ErasurePayload:
        services, scope = info.context.services, info.context.scope
        new = erasure_jobs.NewErasure(
            input.identity.namespace, input.identity.id, given(input.reason), given(input.idempotency_key)
        )

        async def create() -> ErasureJobRow:
            return await erasure_jobs.create(services.database, services.lake, services.clock, scope, new)

        row, errors = await attempt(info, create, "input")
        return ErasurePayload(job=None if row is None else ErasureJob.of(row), errors=errors)

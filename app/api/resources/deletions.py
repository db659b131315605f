"""The input and payload shared by all deletions; knows no resource."""

from typing import Annotated

import strawberry

from app.api.errors import UserError, errors_field


@strawberry.input(description="The object to delete.")
class DeleteInput:
    id: strawberry.ID = strawberry.field(description="Global or raw id.")
    etag: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="Optimistic lock: the mutation is rejected if the etag no longer matches. Default: no check.",
    )


@strawberry.type(description="Result of a deletion.")
class DeletePayload:
    deleted_id: strawberry.ID | None = strawberry.field(
        description="Global id of the deleted object; null if rejected."
    )
    errors: list[UserError] = errors_field()


DeleteArgument = Annotated[DeleteInput, strawberry.argument(description="The object.")]

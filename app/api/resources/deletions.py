"""How any object is deleted: the input and the payload that all deletions share; knows no resource."""

from typing import Annotated

import strawberry

from app.api.errors import UserError, errors_field


@strawberry.input(description="An object to delete.")
class DeleteInput:
    id: strawberry.ID = strawberry.field(description="Global or raw id.")
    etag: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="As it was read; refused when it has changed since. Unchecked unless given.",
    )


@strawberry.type(description="Outcome of a deletion.")
class DeletePayload:
    deleted_id: strawberry.ID | None = strawberry.field(
        description="Global id of what is gone; null when it was refused."
    )
    errors: list[UserError] = errors_field()


DeleteArgument = Annotated[DeleteInput, strawberry.argument(description="Which one.")]

"""Why a profile is in or out of an audience."""

from datetime import datetime
from typing import Annotated, Self, cast

import strawberry
from strawberry.scalars import JSON

from app.api.context import Info
from app.api.described import resolver
from app.api.errors import UserError, user_error
from app.api.lists.filters import one_id
from app.api.resources.insight import PeopleInput, people_of
from app.api.resources.profiles import IdentityInput
from app.api.scalars import BigInt
from app.engine.insight.explain import Explained
from app.errors import Refusal
from app.services.insight import explanation


@strawberry.type(
    description="A part of an expression with what it came to for one profile. Inside a test over an array or events "
    "it has a value for each element."
)
class ExplanationNode:
    text: str = strawberry.field(description="The part, as it is written.")
    start: int = strawberry.field(description="Where it begins in its expression, in characters from 0.")
    end: int = strawberry.field(description="Where it ends, exclusive.")
    value: JSON | None = strawberry.field(
        description="What it came to; null where it is missing. Of arrays the first 20 elements. Inside a test over an "
        "array, the values for its first 20 elements. Of a step of CHAIN, the event that matched."
    )
    holds: bool | None = strawberry.field(
        description="For a condition whether it holds; for a step of CHAIN whether the chain got that far. Null for "
        "other values, and inside a test over an array."
    )
    elements: BigInt | None = strawberry.field(
        description="Of a test over an array or events, and of the parts inside it: the number of elements."
    )
    passed: BigInt | None = strawberry.field(description="How many of the elements passed.")
    part: strawberry.Private[Explained]

    @resolver(
        description="The parts it is made of, in the order of the text; of `inSegment`, the other segment's expression."
    )
    def children(self) -> list["ExplanationNode"]:
        return [ExplanationNode.of(child) for child in self.part.children]

    @classmethod
    def of(cls, part: Explained) -> Self:
        return cls(
            text=part.text,
            start=part.start,
            end=part.end,
            value=cast(JSON | None, part.value),
            holds=part.holds,
            elements=None if part.elements is None else BigInt(part.elements),
            passed=None if part.passed is None else BigInt(part.passed),
            part=part,
        )


@strawberry.type(description="Why a profile is in or out.")
class Explanation:
    member: bool = strawberry.field(description="Whether the profile is in when the expression is evaluated now.")
    evaluated_at: datetime = strawberry.field(description="The instant that `now` and `today` mean.")
    root: ExplanationNode = strawberry.field(description="The whole expression.")
    error: UserError | None = strawberry.field(description="Why there is no answer; null when there is one.")


ProfileArgument = Annotated[IdentityInput, strawberry.argument(description="Any identity of the profile.")]
PeopleArgument = Annotated[
    PeopleInput, strawberry.argument(description="The audience, whose expression is evaluated now, or an expression.")
]
PolicyArgument = Annotated[
    strawberry.ID | None,
    strawberry.argument(
        description="Merge policy of the profile, by global or raw id; by default that of the audience, else the "
        "sandbox's."
    ),
]


@strawberry.type
class ExplainQueries:
    @resolver(
        description="Why a profile is in or out: the expression as a tree, with what each part came to for the profile."
    )
    async def explain(
        self,
        info: Info,
        profile: ProfileArgument,
        people: PeopleArgument,
        merge_policy_id: PolicyArgument = strawberry.UNSET,
    ) -> Explanation:
        operation = info.context
        identity = explanation.Identity(profile.namespace, profile.id)
        try:
            policy = one_id("MergePolicy", merge_policy_id, "merge_policy_id")
            group = await people_of(operation, people, "people")
            database, scope = operation.services.database, operation.scope
            result = await explanation.explain(database, scope, operation.profiles, identity, group, policy)
        except Refusal as refusal:
            nothing = ExplanationNode.of(Explained("", 0, 0))
            now = operation.services.clock()
            return Explanation(member=False, evaluated_at=now, root=nothing, error=user_error(refusal))
        return Explanation(
            member=result.member, evaluated_at=result.evaluated_at, root=ExplanationNode.of(result.root), error=None
        )

"""PQL as a service: expressions checked and converted without storing anything."""

from enum import Enum
from typing import Annotated, Self

import strawberry

from app.api.context import Info
from app.api.described import enum_value, resolver
from app.api.errors import PqlDiagnostic
from app.api.scalars import given
from app.errors import ExpressionRefused
from app.pql import checker, facts
from app.services import definitions, expressions


@strawberry.enum(description="How an expression is written.")
class ExpressionFormat(Enum):
    PQL_TEXT = enum_value("PQL_TEXT", description="As text, pql/text.")
    PQL_JSON = enum_value("PQL_JSON", description="As a tree in JSON, pql/json.")


def service_format(value: ExpressionFormat | None) -> expressions.ExpressionFormat:
    """Null and nothing mean text."""
    return expressions.ExpressionFormat("PQL_TEXT" if value is None or not given(value) else value.value)


FormatArgument = Annotated[ExpressionFormat | None, strawberry.argument(description="How it is written.")]
ExpressionArgument = Annotated[str, strawberry.argument(description="The expression.")]
FromArgument = Annotated[
    ExpressionFormat, strawberry.argument(name="from", description="How the expression is written now.")
]
ToArgument = Annotated[ExpressionFormat, strawberry.argument(description="How it is to be written.")]


@strawberry.type(description="Whether an expression can be evaluated as data arrive.")
class StreamingEligibility:
    eligible: bool = strawberry.field(description="Whether it can.")
    reasons: list[str] = strawberry.field(description="Why not; empty when it can.")

    @classmethod
    def of(cls, found: facts.StreamingEligibility) -> Self:
        return cls(eligible=found.eligible, reasons=list(found.reasons))


@strawberry.type(description="What is to be said of an expression.")
class PqlCheck:
    ok: bool = strawberry.field(description="Whether it can be used: no finding is an error.")
    diagnostics: list[PqlDiagnostic] = strawberry.field(description="Every finding, with its place.")
    canonical: str | None = strawberry.field(
        description="The canonical text: two expressions with the same meaning by form (spacing, keyword case, "
        "parentheses) print the same. Null when it does not parse."
    )
    streaming_eligibility: StreamingEligibility | None = strawberry.field(
        description="Whether it can be evaluated as data arrive; null when it cannot be used."
    )
    references: list[str] = strawberry.field(description="Ids of the segments that it refers to.")

    @classmethod
    def of(cls, found: checker.Checked) -> Self:
        return cls(
            ok=found.ok,
            diagnostics=[PqlDiagnostic.of(diagnostic) for diagnostic in found.diagnostics],
            canonical=found.canonical,
            streaming_eligibility=StreamingEligibility.of(found.streaming) if found.ok else None,
            references=sorted(found.references),
        )

    @classmethod
    def refused(cls, refusal: ExpressionRefused) -> Self:
        found = [PqlDiagnostic.of(diagnostic) for diagnostic in refusal.diagnostics]
        return cls(ok=False, diagnostics=found, canonical=None, streaming_eligibility=None, references=[])


@strawberry.type(description="An expression in another form.")
class PqlConversion:
    expression: str | None = strawberry.field(description="The expression; null when it does not parse.")
    diagnostics: list[PqlDiagnostic] = strawberry.field(description="Why it does not parse.")


@strawberry.type(description="What can be done with expressions without storing them.")
class PqlService:
    @resolver(description="Checks an expression against the profiles and segments of the sandbox.")
    async def check(
        self, info: Info, expression: ExpressionArgument, format: FormatArgument = ExpressionFormat.PQL_TEXT
    ) -> PqlCheck:
        parts, scope = info.context.parts, info.context.scope
        try:
            return PqlCheck.of(
                await definitions.check_expression(
                    parts.database, parts.lake, scope, expression, service_format(format)
                )
            )
        except ExpressionRefused as refusal:
            return PqlCheck.refused(refusal)

    @resolver(description="Writes an expression in another form; text comes out canonical.")
    def convert(self, expression: ExpressionArgument, from_: FromArgument, to: ToArgument) -> PqlConversion:
        try:
            converted = expressions.convert_expression(expression, service_format(from_), service_format(to))
        except ExpressionRefused as refusal:
            found = [PqlDiagnostic.of(diagnostic) for diagnostic in refusal.diagnostics]
            return PqlConversion(expression=None, diagnostics=found)
        return PqlConversion(expression=converted, diagnostics=[])


@strawberry.type
class PqlQueries:
    @resolver(description="PQL as a service.")
    def pql(self) -> PqlService:
        return PqlService()

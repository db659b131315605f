"""PQL as a service: checks and converts expressions without storing anything."""

from enum import Enum
from typing import Annotated, Self

import strawberry

from app.api.context import Info
from app.api.described import enum_value, resolver
from app.api.errors import PqlDiagnostic
from app.api.scalars import given
from app.errors import ErrorCode, ExpressionRefused, Refusal
from app.pql import eligibility
from app.pql.check import checker
from app.pql.editor import completion
from app.pql.functions import FUNCTIONS
from app.services.audiences import definition_reads
from app.services.evaluation import expressions

MOST_COMPLETIONS = 200


@strawberry.enum(description="Format of an expression.")
class ExpressionFormat(Enum):
    PQL_TEXT = enum_value("PQL_TEXT", description="Text (pql/text).")
    PQL_JSON = enum_value("PQL_JSON", description="JSON tree (pql/json).")


def service_format(value: ExpressionFormat | None) -> expressions.ExpressionFormat:
    """Null and omitted mean text."""
    return expressions.ExpressionFormat("PQL_TEXT" if value is None or not given(value) else value.value)


FormatArgument = Annotated[ExpressionFormat | None, strawberry.argument(description="Format.")]
ExpressionArgument = Annotated[str, strawberry.argument(description="The expression.")]
FromArgument = Annotated[ExpressionFormat, strawberry.argument(name="from", description="Format of the expression.")]
ToArgument = Annotated[ExpressionFormat, strawberry.argument(description="Format to convert to.")]


@strawberry.type(description="Eligibility of an expression for streaming evaluation.")
class StreamingEligibility:
    eligible: bool = strawberry.field(description="Whether it is eligible.")
    reasons: list[str] = strawberry.field(description="Reasons if it is not eligible; otherwise empty.")

    @classmethod
    def of(cls, found: eligibility.StreamingEligibility) -> Self:
        return cls(eligible=found.eligible, reasons=list(found.reasons))


@strawberry.type(description="Result of checking an expression.")
class PqlCheck:
    ok: bool = strawberry.field(description="Whether it is valid: no finding is an error.")
    diagnostics: list[PqlDiagnostic] = strawberry.field(description="All findings, with their positions.")
    canonical: str | None = strawberry.field(
        description="The canonical text: two expressions with the same meaning by form (spacing, keyword case, "
        "parentheses) print the same. Null when it does not parse."
    )
    streaming_eligibility: StreamingEligibility | None = strawberry.field(
        description="Eligibility for streaming evaluation; null if the expression is invalid."
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
        diagnostics = [PqlDiagnostic.of(diagnostic) for diagnostic in refusal.diagnostics]
        return cls(ok=False, diagnostics=diagnostics, canonical=None, streaming_eligibility=None, references=[])


@strawberry.type(description="A converted expression.")
class PqlConversion:
    expression: str | None = strawberry.field(description="The expression; null when it does not parse.")
    diagnostics: list[PqlDiagnostic] = strawberry.field(description="Why it does not parse; empty if it does.")


@strawberry.enum(description="Kind of a completion.")
class PqlCompletionKind(Enum):
    FIELD = enum_value("FIELD", description="A field, a path of fields, a variable or the label of a step.")
    FUNCTION = enum_value("FUNCTION", description="A function; its text ends in `(` when it takes arguments.")
    KEYWORD = enum_value("KEYWORD", description="A word or an operator of the language.")
    SEGMENT = enum_value("SEGMENT", description="The id of a segment of the sandbox.")
    VALUE = enum_value("VALUE", description="A value, for example one seen in the data of the compared field.")


@strawberry.type(description="A completion: replaces the characters from `replaceFrom` up to `replaceTo`.")
class PqlCompletion:
    text: str = strawberry.field(description="The text.")
    kind: PqlCompletionKind = strawberry.field(description="Kind.")
    detail: str | None = strawberry.field(
        description="Type of a field, signature of a function, name of a segment, or origin of a value."
    )
    replace_from: int = strawberry.field(description="Offset of the first character that it replaces.")
    replace_to: int = strawberry.field(description="Offset after the last character that it replaces.")

    @classmethod
    def of(cls, found: completion.Completion) -> Self:
        return cls(
            text=found.text,
            kind=PqlCompletionKind(found.kind.value),
            detail=found.detail,
            replace_from=found.start,
            replace_to=found.end,
        )


@strawberry.type(description="A function of PQL.")
class PqlFunction:
    name: str = strawberry.field(description="Its name; names are case-sensitive.")
    signature: str = strawberry.field(description="Receiver, arguments (`?`: optional) and result.")
    description: str = strawberry.field(description="Description of the result.")
    example: str = strawberry.field(description="Example.")


OffsetArgument = Annotated[
    int, strawberry.argument(description="Cursor position in characters; beyond the end means at the end.")
]
CompletionsArgument = Annotated[
    int | None, strawberry.argument(description=f"How many completions at most; at most {MOST_COMPLETIONS}.")
]


@strawberry.type(description="PQL tools: check, convert and complete expressions without storing them.")
class PqlService:
    @resolver(description="Checks an expression against the profiles and segments of the sandbox.")
    async def check(
        self, info: Info, expression: ExpressionArgument, format: FormatArgument = ExpressionFormat.PQL_TEXT
    ) -> PqlCheck:
        services, scope = info.context.services, info.context.scope
        try:
            return PqlCheck.of(
                await definition_reads.check_expression(
                    services.database, services.lake, scope, expression, service_format(format)
                )
            )
        except ExpressionRefused as refusal:
            return PqlCheck.refused(refusal)

    @resolver(description="Converts an expression to another format; text becomes canonical.")
    def convert(self, expression: ExpressionArgument, from_: FromArgument, to: ToArgument) -> PqlConversion:
        try:
            converted = expressions.convert_expression(expression, service_format(from_), service_format(to))
        except ExpressionRefused as refusal:
            diagnostics = [PqlDiagnostic.of(diagnostic) for diagnostic in refusal.diagnostics]
            return PqlConversion(expression=None, diagnostics=diagnostics)
        return PqlConversion(expression=converted, diagnostics=[])

    @resolver(description="Completions at a position of an expression, which need not be complete; best first.")
    async def complete(
        self, info: Info, expression: ExpressionArgument, offset: OffsetArgument, first: CompletionsArgument = 20
    ) -> list[PqlCompletion]:
        services, scope = info.context.services, info.context.scope
        count = 20 if first is None else first
        if not 0 <= count <= MOST_COMPLETIONS or offset < 0:
            message = f"`first` is from 0 to {MOST_COMPLETIONS} and `offset` from 0, not {count} and {offset}"
            raise Refusal(ErrorCode.INVALID_INPUT, message, ("first" if offset >= 0 else "offset",))
        suggestions = await expressions.completions(services.database, services.lake, scope, expression, offset, count)
        return [PqlCompletion.of(each) for each in suggestions]

    @resolver(description="All functions of PQL.")
    def functions(self) -> list[PqlFunction]:
        return [
            PqlFunction(name=row.name, signature=row.signature, description=row.description, example=row.example)
            for row in FUNCTIONS
        ]


@strawberry.type
class PqlQueries:
    @resolver(description="PQL tools.")
    def pql(self) -> PqlService:
        return PqlService()

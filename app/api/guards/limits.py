"""What is done around every operation: limits before it, its context during it, masked errors after it."""

import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import strawberry
from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLSyntaxError,
    OperationDefinitionNode,
    SelectionSetNode,
)
from strawberry.extensions import AddValidationRules, MaxTokensLimiter, SchemaExtension
from strawberry.types import ExecutionContext

from app.api.context import Caller, Limits, Operation
from app.api.context.metrics import Measured
from app.api.errors import client_error, exceeded_limit, refusal_extensions
from app.api.execution import CompiledExecution
from app.api.guards.authorization import Authorization, guard_mutations
from app.api.guards.cost import CostLimit
from app.api.guards.inputs import PlainStrings, VariableSizes
from app.errors import ErrorCode, Limit, Refusal

DOCUMENTS_KEPT = 512
LONGEST_KEPT = 20_000
"""Valid documents that the process remembers, and how long (in characters) one may be to be remembered."""

_TOO_MANY_TOKENS = re.compile(r"more than (\d+) tokens")
_SUGGESTION = re.compile(r" Did you mean [^?]*\?")

Documents = OrderedDict[tuple[str, str], DocumentNode]
"""By organisation and text: how fast an answer comes must not say what another organisation asks."""


def extensions(limits: Limits) -> list[Callable[[], SchemaExtension]]:
    """Strawberry's extensions for one schema, outermost first. Strawberry makes each anew for every operation."""
    documents: Documents = OrderedDict()
    return [
        OperationContext,
        lambda: MaxTokensLimiter(limits.max_tokens),
        lambda: AddValidationRules([PlainStrings]),
        OneOperation,
        lambda: VariableSizes(limits),
        Authorization,
        lambda: CostLimit(limits),
        lambda: DocumentCache(documents),
        lambda: SelectionLimits(limits),
        Measured,
    ]


class OperationContext(SchemaExtension):
    """Gives every operation a context of its own, also those that share a WebSocket."""

    async def on_operation(self) -> AsyncIterator[None]:
        caller = self.execution_context.context
        if not isinstance(caller, Caller):
            raise TypeError(f"the context of a request is a Caller, not {caller!r}")
        operation = self.execution_context.context = caller.operation()
        try:
            yield
        finally:
            await operation.close()

    async def on_stream_result(self, result: object) -> AsyncIterator[None]:
        # What the next item shows must be read anew, and nothing stays open while it is awaited.
        await self._operation.renew()
        yield

    @property
    def _operation(self) -> Operation:
        operation: Operation = self.execution_context.context
        return operation


class OneOperation(SchemaExtension):
    """Of several operations one must be named. Strawberry would take the first."""

    def on_validate(self) -> Iterator[None]:
        context = self.execution_context
        definitions = context.graphql_document.definitions if context.graphql_document else ()
        operations = sum(isinstance(node, OperationDefinitionNode) for node in definitions)
        if operations > 1 and context._provided_operation_name is None:
            message = f"the document has {operations} operations: say which one to run by `operationName`"
            context.pre_execution_errors = [GraphQLError(message)]
        yield


class DocumentCache(SchemaExtension):
    """A document that was valid before is neither parsed nor validated again; the one used longest ago goes first.

    Strawberry's own two caches are not used: one raises syntax errors where streams expect none, the other hashes
    the whole tree for each request.
    """

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    def on_parse(self) -> Iterator[None]:
        if (document := self._documents.get(self._key)) is not None:
            self._documents.move_to_end(self._key)
            self.execution_context.graphql_document = document
        yield

    def on_validate(self) -> Iterator[None]:
        context = self.execution_context
        if self._key in self._documents and context.pre_execution_errors is None:
            context.pre_execution_errors = []
            yield
            return
        yield
        document, text = context.graphql_document, context.query or ""
        if document is not None and not context.pre_execution_errors and len(text) <= LONGEST_KEPT:
            self._documents[self._key] = document
            if len(self._documents) > DOCUMENTS_KEPT:
                self._documents.popitem(last=False)

    @property
    def _key(self) -> tuple[str, str]:
        operation: Operation = self.execution_context.context
        return operation.scope.organisation, self.execution_context.query or ""


class GatewaySchema(strawberry.Schema):
    """Errors are masked where they become visible, in one place for queries, mutations and streams."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        options["execution_context_class"] = CompiledExecution
        super().__init__(*arguments, **options)
        guard_mutations(self._schema)

    def process_errors(self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None) -> None:
        context = execution_context.context if execution_context else None
        request_id = getattr(context, "request_id", "unknown")
        errors[:] = [_named(client_error(error, request_id)) for error in errors]
        if isinstance(context, Operation):
            for error in errors:
                if (limit := exceeded_limit(error.extensions or {})) is not None:
                    context.services.metrics.refused(limit)
        if not getattr(context, "introspective", True):
            for error in errors:
                error.message = _SUGGESTION.sub("", error.message)


def _named(error: GraphQLError) -> GraphQLError:
    """A document with too many tokens is a syntax error to the parser; here it is a limit like the others."""
    if isinstance(error, GraphQLSyntaxError) and (tokens := _TOO_MANY_TOKENS.search(error.message)):
        limit = Limit("max_tokens", int(tokens[1]))
        message = f"the document has more than {limit.allowed:,} tokens: split it"
        refusal = Refusal(ErrorCode.LIMIT_EXCEEDED, message, limit=limit)
        return GraphQLError(message, extensions=refusal_extensions(refusal))
    return error


class SelectionLimits(SchemaExtension):
    """Documents that select too deep, or too much under other names, are rejected before they are validated: the rules
    of GraphQL take five times as long, and look at each spread of a fragment.

    Each fragment is looked at once, however often it is spread: a document of a few lines can spread one 2^30 times.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def on_validate(self) -> Iterator[None]:
        context = self.execution_context
        if context.graphql_document is not None and context.pre_execution_errors is None:
            errors = list(self._errors(context.graphql_document))
            context.pre_execution_errors = errors or None
        yield

    def _errors(self, document: DocumentNode) -> Iterator[GraphQLError]:
        fragments = {node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)}
        measure = _Measure(fragments)
        for node in document.definitions:
            if isinstance(node, OperationDefinitionNode):
                for refusal in _problems(self._limits, *measure.selection(node.selection_set)):
                    yield GraphQLError(refusal.message, node, extensions=refusal_extensions(refusal))


def _problems(limits: Limits, depth: int, aliases: int) -> Iterator[Refusal]:
    allowed = limits.max_depth
    if depth > allowed:
        message = f"the operation is {depth} levels deep, and at most {allowed} are allowed: split it"
        yield Refusal(ErrorCode.LIMIT_EXCEEDED, message, limit=Limit("max_depth", allowed, depth))
    allowed = limits.max_aliases
    if aliases > allowed:
        message = f"the operation has {aliases} aliases, and at most {allowed} are allowed: split it"
        yield Refusal(ErrorCode.LIMIT_EXCEEDED, message, limit=Limit("max_aliases", allowed, aliases))


class _Measure:
    """Depth and number of aliases of selections. Introspection has its own shape, and is not counted."""

    def __init__(self, fragments: dict[str, FragmentDefinitionNode]) -> None:
        self._fragments = fragments
        self._known: dict[str, tuple[int, int]] = {}

    def selection(self, selection_set: SelectionSetNode | None) -> tuple[int, int]:
        depth = aliases = 0
        for node in selection_set.selections if selection_set else ():
            if isinstance(node, FieldNode):
                if node.name.value in {"__schema", "__type"}:
                    continue
                deeper, more = self.selection(node.selection_set)
                deeper, more = deeper + 1, more + bool(node.alias)
            elif isinstance(node, FragmentSpreadNode):
                deeper, more = self.fragment(node.name.value)
            else:
                deeper, more = self.selection(getattr(node, "selection_set", None))
            depth, aliases = max(depth, deeper), aliases + more
        return depth, aliases

    def fragment(self, name: str) -> tuple[int, int]:
        if name not in self._known:
            # Unknown fragments and circles are refused by other rules; here they only must come to an end.
            self._known[name] = (0, 0)
            if name in self._fragments:
                self._known[name] = self.selection(self._fragments[name].selection_set)
        return self._known[name]

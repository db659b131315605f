"""Extensions around every operation: limits before it, its context during it, masked errors after it."""

import re
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
from strawberry.extensions.runner import SchemaExtensionsRunner
from strawberry.types import ExecutionContext, ExecutionResult

from app.api.context import Caller, Limits, Operation
from app.api.context.metrics import Measured
from app.api.errors import client_error, exceeded_limit, refusal_extensions
from app.api.execution import CompiledExecution
from app.api.guards.authorization import Authorization, guard_mutations
from app.api.guards.cost import CostLimit
from app.api.guards.hooks import Runner
from app.api.guards.inputs import PlainStrings, VariableSizes
from app.api.guards.known import Checks, KnownQueries
from app.api.guards.validity import PlainDocuments
from app.errors import ErrorCode, Limit, Refusal

DOCUMENTS_KEPT = 512
LONGEST_KEPT = 20_000
"""Number of valid documents that the process caches, and the maximum length (in characters) of a cached document."""

_TOO_MANY_TOKENS = re.compile(r"more than (\d+) tokens")
_SUGGESTION = re.compile(r" Did you mean [^?]*\?")


def _extensions(checks: Checks) -> list[Callable[[], SchemaExtension]]:
    """Strawberry's extensions for one schema, outermost first. Strawberry creates new instances for every operation."""
    limits = checks.limits
    return [
        OperationContext,
        lambda: MaxTokensLimiter(limits.max_tokens),
        lambda: AddValidationRules([PlainStrings]),
        OneOperation,
        lambda: VariableSizes(limits),
        lambda: Authorization(checks.needs),
        lambda: CostLimit(limits, checks.costs),
        lambda: DocumentCache(checks),
        lambda: SelectionLimits(limits),
        Measured,
        PlainDocuments,
    ]


class OperationContext(SchemaExtension):
    """Gives every operation its own context, including operations that share a WebSocket."""

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
        # The next item needs fresh reads, and nothing may stay open while waiting for it.
        await self._operation.renew()
        yield

    @property
    def _operation(self) -> Operation:
        operation: Operation = self.execution_context.context
        return operation


class OneOperation(SchemaExtension):
    """If a document has several operations, the request must name one. Strawberry would run the first."""

    def on_validate(self) -> Iterator[None]:
        context = self.execution_context
        definitions = context.graphql_document.definitions if context.graphql_document else ()
        operations = sum(isinstance(node, OperationDefinitionNode) for node in definitions)
        if operations > 1 and context._provided_operation_name is None:
            message = f"the document has {operations} operations: say which one to run by `operationName`"
            context.pre_execution_errors = [GraphQLError(message)]
        yield


class DocumentCache(SchemaExtension):
    """Skips parsing and validation of documents that were valid before; the least recently used is dropped.

    Strawberry's own two caches are not used: one raises syntax errors where streams do not expect any, the other hashes
    the whole tree on each request.
    """

    def __init__(self, checks: Checks) -> None:
        self._documents = checks.documents

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
    """Executes known queries directly, and masks errors in one place for queries, mutations and streams."""

    def __init__(self, *arguments: Any, limits: Limits, **options: Any) -> None:
        checks = Checks(limits)
        options |= {"execution_context_class": CompiledExecution, "extensions": _extensions(checks)}
        super().__init__(*arguments, **options)
        guard_mutations(self._schema)
        self._known = KnownQueries(self._schema, checks, _mask)

    async def execute(self, query: str | None, *arguments: Any, **options: Any) -> ExecutionResult:
        caller = options.get("context_value")
        if query and not arguments and isinstance(caller, Caller):
            name, variables = options.get("operation_name"), options.get("variable_values") or {}
            response = await self._known.response(query, name, variables, caller)
            if response is not None:
                return response
        return await super().execute(query, *arguments, **options)

    def create_extensions_runner(
        self, execution_context: ExecutionContext, extensions: list[SchemaExtension]
    ) -> SchemaExtensionsRunner:
        return Runner(execution_context, extensions)

    def process_errors(self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None) -> None:
        _mask(errors, execution_context.context if execution_context else None)


def _mask(errors: list[GraphQLError], operation: object) -> None:
    request_id = getattr(operation, "request_id", "unknown")
    errors[:] = [_named(client_error(error, request_id)) for error in errors]
    if isinstance(operation, Operation):
        for error in errors:
            if (limit := exceeded_limit(error.extensions or {})) is not None:
                operation.services.metrics.refused(limit)
    if not getattr(operation, "introspective", True):
        for error in errors:
            error.message = _SUGGESTION.sub("", error.message)


def _named(error: GraphQLError) -> GraphQLError:
    """Turns the parser's syntax error for a document with too many tokens into a limit error."""
    if isinstance(error, GraphQLSyntaxError) and (tokens := _TOO_MANY_TOKENS.search(error.message)):
        limit = Limit("max_tokens", int(tokens[1]))
        message = f"the document has more than {limit.allowed:,} tokens: split it"
        refusal = Refusal(ErrorCode.LIMIT_EXCEEDED, message, limit=limit)
        return GraphQLError(message, extensions=refusal_extensions(refusal))
    return error


class SelectionLimits(SchemaExtension):
    """Rejects documents with too deep selections or too many aliases before validation, which takes five times as long
    and visits every spread of a fragment.

    Visits each fragment once, however often it is spread: a document of a few lines can spread one 2^30 times.
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
    """Depth and number of aliases of selections. Introspection has a fixed shape and is not counted."""

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
            # Other rules reject unknown fragments and cycles; this walk only needs to terminate.
            self._known[name] = (0, 0)
            if name in self._fragments:
                self._known[name] = self.selection(self._fragments[name].selection_set)
        return self._known[name]

"""Executes queries whose documents are known to be valid.

Strawberry runs eleven extensions around every operation, which takes longer than a small query itself. Here the same
checks are called one after another. Whatever is unusual (a new document, a mutation, a check that fails) is left to
Strawberry and the extensions, which report the errors: only a query that may run is executed here.
"""

import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from graphql import DocumentNode, GraphQLError, GraphQLSchema, OperationType, get_operation_ast
from strawberry.types import ExecutionResult
from strawberry.types.execution import PreExecutionError

from app.api.context import Caller, Limits, Operation
from app.api.context.metrics import code_of, record
from app.api.execution import CompiledExecution
from app.api.guards.authorization import Needs, lacking
from app.api.guards.cost import Cost, cost_errors, cost_of, shown_cost
from app.api.guards.inputs import value_errors
from app.api.guards.remembered import Remembered, Requested
from app.logs import bind
from app.traces import span


@dataclass(frozen=True, slots=True)
class Checks:
    """The limits of a schema, and what is remembered of its operations."""

    limits: Limits
    documents: OrderedDict[tuple[str, str], DocumentNode] = field(default_factory=OrderedDict)
    """Valid documents by organisation and text: response times must not reveal which documents another organisation
    uses."""
    needs: Remembered[dict[str, Needs]] = field(default_factory=Remembered)
    costs: Remembered[Cost] = field(default_factory=Remembered)


class Mask(Protocol):
    """Replaces the errors of an operation by those that its client may see."""

    def __call__(self, errors: list[GraphQLError], operation: Operation, /) -> None: ...


class KnownQueries:
    """The queries of one schema."""

    def __init__(self, schema: GraphQLSchema, checks: Checks, mask: Mask) -> None:
        self._schema: Final = schema
        self._checks: Final = checks
        self._mask: Final = mask

    async def response(
        self, text: str, name: str | None, variables: Mapping[str, object], caller: Caller
    ) -> ExecutionResult | None:
        """The response to a query; None for what is left to Strawberry, of which nothing was executed or counted."""
        operation, checks = caller.operation(), self._checks
        request = self._request(text, name, variables, operation.scope.organisation)
        if request is None or value_errors(checks.limits, text, request.document, variables):
            return None
        if lacking(operation.scope, request, checks.needs):
            return None
        executor = CompiledExecution.of(self._schema, request.document, request.name, variables, operation)
        cost = cost_of(request, checks.limits, checks.costs)
        if executor is None or cost_errors(cost, checks.limits, operation):
            return None
        try:
            try:
                result = await self._executed(executor, operation, request.name)
            finally:
                await operation.close()
        except Exception as error:
            errors = [error if isinstance(error, GraphQLError) else GraphQLError(str(error), original_error=error)]
            self._mask(errors, operation)
            return PreExecutionError(data=None, errors=errors, extensions={})
        if result.data is not None and not result.errors:
            result.extensions = shown_cost(cost.cost, checks.limits)
        return result

    def _request(
        self, text: str, name: str | None, variables: Mapping[str, object], organisation: str
    ) -> Requested | None:
        """The query that is to be executed, if its document is known."""
        documents, key = self._checks.documents, (organisation, text)
        document = documents.get(key)
        selected = None if document is None else get_operation_ast(document, name)
        if document is None or selected is None or selected.operation is not OperationType.QUERY:
            return None
        documents.move_to_end(key)
        name = selected.name.value if selected.name else name
        return Requested(self._schema, document, selected, name, variables)

    async def _executed(self, executor: CompiledExecution, operation: Operation, name: str | None) -> ExecutionResult:
        """Executes the query, and records it in the metrics, the log and traces."""
        began, scope, metrics = time.perf_counter(), operation.scope, operation.services.metrics
        bind(request_id=operation.request_id, organisation=scope.organisation, sandbox=scope.sandbox)
        running = metrics.running.labels("query")
        running.inc()
        outcome, error = "cancelled", None
        try:
            with span("GraphQL operation"):
                executed = await executor.run()
            if executed.errors:
                self._mask(executed.errors, operation)
            error = code_of(executed.errors)
            outcome = "error" if error else "ok"
        finally:
            running.dec()
            record(metrics, scope, "query", name, outcome, error, time.perf_counter() - began)
        return ExecutionResult(data=executed.data, errors=executed.errors, extensions={})

"""graphql-core's executor, extended to execute operations by plans."""

from collections.abc import Awaitable, Mapping, Sequence
from copy import copy
from typing import Any, Final

from graphql import DocumentNode, ExecutionResult, GraphQLError, GraphQLObjectType, GraphQLSchema
from graphql.execution.collect_fields import DeferUsage, GroupedFieldSet
from graphql.execution.executor import CollectedErrors
from strawberry.execution import optimized_is_awaitable
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext

from app.api.context import Operation
from app.api.execution.levels import Levels
from app.api.execution.plan import OperationPlan, Plans, compiled, shown_variables
from app.api.execution.shared import Answer, sharing_key

_PLANS: Final = Plans()


class CompiledExecution(StrawberryGraphQLCoreExecutionContext):
    """Executes operations by plans, each within the time limit of its context. Operations with middleware, abort
    signals, error propagation turned off, or fragment variables are left to graphql-core; this server has none."""

    @classmethod
    def of(
        cls,
        schema: GraphQLSchema,
        document: DocumentNode,
        name: str | None,
        variables: Mapping[str, object],
        context: Operation,
    ) -> "CompiledExecution | None":
        """The execution of an operation of a valid document; None if its variables are invalid."""
        is_awaitable: Any = optimized_is_awaitable
        built = cls.build(
            schema,
            document,
            context_value=context,
            raw_variable_values=dict(variables),
            operation_name=name,
            is_awaitable=is_awaitable,
        )
        return built if isinstance(built, CompiledExecution) else None

    async def run(self) -> ExecutionResult:
        result: Any = self.execute_operation()
        executed: ExecutionResult = await result if self.is_awaitable(result) else result
        return executed

    def execute_collected_root_fields(
        self,
        root_type: GraphQLObjectType,
        root_value: object,
        grouped_field_set: GroupedFieldSet,
        serially: bool,
        new_defer_usages: Sequence[DeferUsage],
    ) -> Any:
        if not self._is_covered():
            self.context_value.services.metrics.fallbacks.inc()
            return super().execute_collected_root_fields(
                root_type, root_value, grouped_field_set, serially, new_defer_usages
            )
        plan = _PLANS.get(
            self, lambda: OperationPlan(compiled(self, root_type, grouped_field_set), shown_variables(self))
        )
        if getattr(self.context_value, "event", None) is not None:
            answer = self._shared_answer(plan, root_value)
        else:
            answer = Levels(self, plan).answer(root_value, serially)
        within_time = getattr(self.context_value, "within_time", None)
        # Mutations are not interrupted, because it would be unknown what they had changed.
        return answer if serially or within_time is None else _bounded(within_time(answer))

    async def _shared_answer(self, plan: OperationPlan, event: object) -> dict[str, object]:
        """The response to an event, from the stream that executed it first. If it has errors, each stream executes the
        event itself."""
        operation: Operation = self.context_value

        async def execute() -> Answer | None:
            executor = copy(self)
            executor.collected_errors = CollectedErrors()
            # The stream that executes the event may end before the others have received the response.
            executor.context_value = operation.twin()
            try:
                data = await executor.context_value.within_time(Levels(executor, plan).answer(event, serially=False))
            except Exception:
                return None
            finally:
                await executor.context_value.close()
            return None if executor.collected_errors.errors else Answer(data)

        key = sharing_key(plan, self.variable_values.coerced, operation)
        answer = await operation.services.answers.get(key, operation.begun, execute)
        return answer if answer is not None else await Levels(self, plan).answer(event, serially=False)

    def _is_covered(self) -> bool:
        return (
            not (self.middleware_manager and self.middleware_manager.middlewares)
            and self.abort_signal is None
            and self.error_propagation
            and all(fragment.variable_signatures is None for fragment in self.fragments.values())
        )


async def _bounded(answer: Awaitable[dict[str, object]]) -> dict[str, object]:
    """The response; converts exceptions to the `GraphQLError` that the executor expects."""
    try:
        return await answer
    except GraphQLError:
        raise
    except Exception as error:
        raise GraphQLError(str(error), original_error=error) from error

"""The response to one event of a subscription, executed and encoded once for all streams with the same response."""

from collections.abc import Hashable
from functools import cached_property

import orjson

from app.api.context import Operation
from app.api.execution.plan import OperationPlan


class Answer(dict[str, object]):
    """The data of a response, encoded once however often it is sent."""

    @cached_property
    def encoded(self) -> orjson.Fragment:
        """The data as JSON, for inclusion in a larger document by orjson."""
        return orjson.Fragment(orjson.dumps(self))


def sharing_key(plan: OperationPlan, variables: dict[str, object], operation: Operation) -> Hashable:
    """What two streams must have in common to share the response to an event.

    The arguments of the subscription itself are not included: they determine which events arrive, not what is shown.
    """
    shown = repr([variables.get(name) for name in plan.shown_variables])
    scope = operation.scope
    return plan, shown, scope.tenant, scope.permissions, operation.event

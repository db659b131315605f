"""The answer to one event of a subscription, executed and encoded once for all streams that give the same one."""

from collections.abc import Hashable
from functools import cached_property

import orjson

from app.api.context import Operation
from app.api.execution.plan import OperationPlan


class Answer(dict[str, object]):
    """The data of an answer, which is encoded once however often it is sent."""

    @cached_property
    def encoded(self) -> orjson.Fragment:
        """The data as JSON, to be a part of a larger text of orjson's."""
        return orjson.Fragment(orjson.dumps(self))


def sharing_key(plan: OperationPlan, variables: dict[str, object], operation: Operation) -> Hashable:
    """What two streams must have in common to give the same answer to an event.

    The arguments of the subscription itself are not among it: they decide which events come, not what is shown.
    """
    shown = repr([variables.get(name) for name in plan.shown_variables])
    scope = operation.scope
    return plan, shown, scope.tenant, scope.permissions, operation.event

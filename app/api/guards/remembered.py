"""What a request wants to execute, and the results of checks, cached for the next request with the same operation."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Generic, NamedTuple, TypeVar

from graphql import DocumentNode, GraphQLSchema, OperationDefinitionNode, get_operation_ast
from strawberry.types import ExecutionContext

T = TypeVar("T")

DOCUMENTS_KEPT: Final = 512
VARIABLES_KEPT: Final = 16
"""Maximum number of variable combinations cached per document."""

_PLAIN: Final = (str, int, float, bool, type(None))


class Requested(NamedTuple):
    """An operation of a document, by its name or as the only one, with the variables as they were sent."""

    schema: GraphQLSchema
    document: DocumentNode
    operation: OperationDefinitionNode
    name: str | None
    variables: Mapping[str, object]


def requested(context: ExecutionContext) -> Requested | None:
    """What Strawberry's context is about to execute; None if the document could not be parsed, or has no such
    operation."""
    document, name = context.graphql_document, context.operation_name
    operation = None if document is None else get_operation_ast(document, name)
    if document is None or operation is None:
        return None
    return Requested(context.schema._schema, document, operation, name, context.variables or {})


@dataclass(slots=True)
class Remembered(Generic[T]):
    """Caches by parsed document (each organisation has its own), operation and variables; drops the least recently used
    document. Operations with lists or objects in their variables are checked each time."""

    entries: OrderedDict[int, tuple[DocumentNode, dict[object, T]]] = field(default_factory=OrderedDict)
    """By `id()` of the document, which is referenced here so that no other document can get the same id."""

    def get(self, request: Requested, make: Callable[[], T]) -> T:
        document, variables = request.document, request.variables
        if not all(isinstance(value, _PLAIN) for value in variables.values()):
            return make()
        # As dictionary keys, True and 1 are equal, but their costs differ.
        key = request.name, *((name, type(value), value) for name, value in variables.items())
        entry = self.entries.get(id(document))
        if entry is None:
            entry = self.entries[id(document)] = document, {}
            if len(self.entries) > DOCUMENTS_KEPT:
                self.entries.popitem(last=False)
        else:
            self.entries.move_to_end(id(document))
        costs = entry[1]
        if key not in costs:
            if len(costs) == VARIABLES_KEPT:
                costs.clear()
            costs[key] = make()
        return costs[key]

"""How an operation is executed: compiled once, then level by level.

graphql-core resolves field after field and object after object, with a task for each that waits. Here an operation
becomes a *plan* (`plan`): for each object type that it meets, the list of fields with their resolvers, arguments and
types, all looked up once. The plan is executed a *level* at a time (`levels`): first the fields of the root, then those
of all objects that the root's fields gave, and so on. So each field is one loop over all objects of its level, and
whatever waits (the loaders, mostly) is awaited once a level.

Streams whose next event is the same one share its answer (`shared`): a resolver of a subscription says which it is. No
other resolver knows of any of this. The answers are those of graphql-core, errors and nulls included;
`tests/api/test_execution.py` compares both over random operations. What the plan does not cover (see
`CompiledExecution`) is left to graphql-core.
"""

from app.api.execution.levels import CompiledExecution
from app.api.execution.shared import Answer

__all__ = ["Answer", "CompiledExecution"]

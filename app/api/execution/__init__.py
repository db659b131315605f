"""Executes operations: compiles each once, then executes it level by level.

graphql-core resolves one field of one object after another, with a task for each that waits. Here an operation is
compiled to a *plan* (`plan`): for each object type, the list of its fields with their resolvers, arguments and types,
all looked up once. The plan is executed one *level* at a time (`levels`): first the fields of the root, then those of
all objects that the root's fields returned, and so on. Each field is thus one loop over all objects of its level, and
everything that waits (mostly the loaders) is awaited together.

Streams with the same next event share its response (`shared`); the subscription's resolver identifies the event. No
other resolver is aware of any of this. The responses equal those of graphql-core, including errors and nulls;
`tests/api/test_execution.py` compares both over random operations. Operations that plans do not cover (see
`CompiledExecution`) are left to graphql-core.
"""

from app.api.execution.executor import CompiledExecution
from app.api.execution.shared import Answer

__all__ = ["Answer", "CompiledExecution"]

"""Finds the dependents of an object that is to be deleted or deactivated, and names them in a uniform error."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import HasDependents
from app.scope import Scope

MOST_NAMED = 20
"""Maximum number of dependents that an error names."""
MOST_FOUND = MOST_NAMED + 1
"""How many dependents a finder reads: one more than are named shows that there are more."""


@dataclass(frozen=True, slots=True)
class Dependent:
    """A dependent: its API type, raw id, how a message names it, and how it depends.

    Dependents of one finder share `does` and `subject`, as in "`subject` a, b `does`": "the export jobs 1, 2 use it".
    """

    type: str
    id: str
    label: str
    does: str
    subject: str = ""


Finder = Callable[[AsyncSession, Scope, str], Awaitable[list[Dependent]]]
"""Returns at most `MOST_FOUND` dependents of one type, in order."""


async def refuse_dependents(
    session: AsyncSession,
    scope: Scope,
    id: str,
    path: str,
    finders: Sequence[Finder],
    advice: str = "change or delete them first",
) -> None:
    """Raises `HasDependents` if a finder finds any dependent of the object `id`."""
    dependents = [dependent for finder in finders for dependent in await finder(session, scope, id)]
    if not dependents:
        return
    named = dependents[:MOST_NAMED]
    groups = [
        f"{subject}{', '.join(dependent.label for dependent in group)} {does}"
        for (subject, does), group in groupby(named, key=lambda dependent: (dependent.subject, dependent.does))
    ]
    more = " (and more)" if len(dependents) > MOST_NAMED else ""
    message = f"{'; '.join(groups)}{more}: {advice}"
    raise HasDependents(message, [(dependent.type, dependent.id) for dependent in named], (path,))

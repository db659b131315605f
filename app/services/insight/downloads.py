"""The members of an audience as a file, made while it is sent: a bucket and a part of the file are in memory."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass

from app.engine.export.members import ENCODERS, Members
from app.errors import ErrorCode, Refusal
from app.pql.schema import EVENTS, leaf_paths
from app.scope import Scope
from app.services.audiences import reads
from app.services.insight.overlap import refuse_unevaluated
from app.services.insight.population import open_population
from app.services.people.attributes import split_paths
from app.services.people.profiles import ProfileReader
from app.storage.database import Database

STATUSES = ("REALIZED", "EXISTING", "EXITED")
MEMBERS_NOW = ("REALIZED", "EXISTING")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Of which members what: `columns` are paths of attributes, None for all."""

    audience: str
    format: str
    columns: Sequence[str] | None = None
    statuses: Sequence[str] = MEMBERS_NOW


@dataclass(frozen=True, slots=True)
class Download:
    """A file that is made while it is read."""

    name: str
    media: str
    parts: AsyncIterator[bytes]


async def open_download(database: Database, scope: Scope, reader: ProfileReader, wanted: Wanted) -> Download:
    """All that can be wrong is found here, before the first byte. Raises `Refusal`."""
    async with database.session() as session:
        audience = (await reads.get_many(session, scope, [wanted.audience])).get(wanted.audience)
    if audience is None:
        message = f"there is no audience {wanted.audience!r} in this sandbox"
        raise Refusal(ErrorCode.NOT_FOUND, message, ("id",))
    for status in wanted.statuses:
        if status not in STATUSES:
            message = f"{status!r} is no status of a member: use {', '.join(STATUSES)}"
            raise Refusal(ErrorCode.INVALID_INPUT, message, ("status",))
    population = await open_population(reader, audience.merge_policy_id)
    refuse_unevaluated(population, audience, ("id",))
    paths = None if wanted.columns is None else frozenset(split_paths(wanted.columns))
    known = {tuple(path.split(".")) for path, _ in leaf_paths(population.snapshot.schema)}
    for path in sorted(paths or ()):
        if path[0] == EVENTS or not any(leaf[: len(path)] == path for leaf in known):
            message = f"profiles have no attribute {'.'.join(path)!r}: name attributes of the datasets"
            raise Refusal(ErrorCode.INVALID_INPUT, message, ("columns",))
    stored = await asyncio.to_thread(population.stored, [audience.id])
    members = Members(population.snapshot, lambda bucket: stored.read(bucket).get(audience.id), wanted.statuses, paths)
    media, encode = ENCODERS[wanted.format]
    return Download(f"members.{wanted.format}", media, _in_thread(encode(members.schema, members.tables())))


async def _in_thread(parts: Iterator[bytes]) -> AsyncIterator[bytes]:
    """One part after the other, each when the one before has been taken; one thread at a time touches the iterator."""
    turn = threading.Lock()

    def following() -> bytes | None:
        with turn:
            return next(parts, None)

    while (part := await asyncio.to_thread(following)) is not None:
        if part:
            yield part

"""The members of an audience as a file, generated while it is sent: one bucket and one part of the file are in
memory."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from app.engine.export.members import ENCODERS, Members, Tables
from app.engine.insight.members_in_order import Order, members_in_order
from app.engine.insight.scan import Answers, Buckets
from app.engine.limits.pool import Stopped, in_threads
from app.engine.members.membership import MEMBERS_NOW, STATUSES, Ordinals
from app.errors import ErrorCode, Refusal
from app.pql.schema import EVENTS, leaves
from app.scope import Scope
from app.services.audiences import reads
from app.services.insight.moments import heads_at
from app.services.insight.population import Population, in_thread, open_population
from app.services.insight.profiles import CHOSEN, VALUE, Among, ProfileOrder, select
from app.services.people.attributes import split_paths
from app.services.people.profiles import ProfileReader
from app.storage.database import Database


@dataclass(frozen=True, slots=True)
class Wanted:
    """The members, attributes and order of a download: `columns` are attribute paths, None for all; `where`, `order`
    and `as_of` are those of `members` in the API."""

    audience: str
    format: str
    columns: Sequence[str] | None = None
    statuses: Sequence[str] = MEMBERS_NOW
    where: str | None = None
    order: ProfileOrder | None = None
    as_of: datetime | None = None


@dataclass(frozen=True, slots=True)
class Download:
    """A file that is generated while it is read."""

    name: str
    media: str
    parts: AsyncIterator[bytes]


async def open_download(
    database: Database, scope: Scope, reader: ProfileReader, wanted: Wanted, threads: int = 1
) -> Download:
    """Finds all errors before the first byte is sent, and therefore evaluates expressions first. Raises `Refusal`."""
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
    paths = None if wanted.columns is None else frozenset(split_paths(wanted.columns))
    attributes = {path for path, _ in leaves(population.snapshot.schema)}
    for path in sorted(paths or ()):
        if path[0] == EVENTS or not any(leaf[: len(path)] == path for leaf in attributes):
            message = f"profiles have no attribute {'.'.join(path)!r}: name attributes of the datasets"
            raise Refusal(ErrorCode.INVALID_INPUT, message, ("columns",))
    among = Among(audience.id, wanted.statuses)
    if wanted.as_of is not None:
        async with database.session() as session:
            heads = await heads_at(session, scope, [audience.id], wanted.as_of, population.now)
        if isinstance(then := heads[audience.id], Refusal):
            raise then
        among = replace(among, heads=then)
    stored = await asyncio.to_thread(among.stored, population)
    members = Members(population.snapshot, lambda bucket: stored.read(bucket).get(audience.id), wanted.statuses, paths)
    tables = await in_thread(lambda stopped: _tables(population, members, wanted, among, threads, stopped))
    media, encode = ENCODERS[wanted.format]
    return Download(f"members.{wanted.format}", media, _in_thread(encode(members.schema, tables)))


def _tables(
    population: Population, members: Members, wanted: Wanted, among: Among, threads: int, stopped: Stopped
) -> Tables:
    if wanted.where is None and wanted.order is None:
        return members.tables()
    selection = select(population, wanted.where, wanted.order, among)
    if wanted.order is None:
        return replace(members, chosen=_chosen(selection.buckets, threads, stopped)).tables()
    type_, descending = selection.plan.values[VALUE].type, wanted.order.descending
    order = Order(selection.buckets, CHOSEN, VALUE, type_, descending)
    return members_in_order(members, order, population.files.lake.spool, threads=threads, stopped=stopped)


def _chosen(scan: Buckets, threads: int, stopped: Stopped) -> dict[int, Ordinals]:
    selected: dict[int, Ordinals] = {}

    def finished(answers: Answers) -> None:
        selected[answers.bucket] = answers.members[CHOSEN]

    in_threads(scan.bucket, scan.buckets, finished=finished, cancelled=stopped, threads=threads)
    return selected


async def _in_thread(parts: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Yields one part after another, each when the previous one has been consumed; one thread at a time uses the
    iterator."""
    turn = threading.Lock()

    def following() -> bytes | None:
        with turn:
            return next(parts, None)

    while (part := await asyncio.to_thread(following)) is not None:
        if part:
            yield part

"""Creates, watches, cancels and deletes previews of expressions; `preview/run.py` reads the sample."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import takewhile

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import Clock
from app.engine.members.membership import MembershipFiles
from app.engine.people.profiles import Key, MergeRule, Person
from app.engine.run.sampling import Estimate, estimate
from app.engine.store.lake import Lake
from app.errors import ErrorCode, ExpressionRefused, Refusal, Refusals
from app.pql.check.checker import Checked
from app.scope import Scope, Tenant
from app.services import merge_policies
from app.services.audiences.definition_rows import kept
from app.services.audiences.definition_rules import Limit, misfits_of_limit
from app.services.evaluation.expressions import ExpressionFormat, as_text, read_segments, require, vocabulary
from app.services.evaluation.heads import read_heads
from app.services.jobs import shared as jobs
from app.services.jobs import watching
from app.services.lists.paging import PageRequest, Slice, decode_person, encode_cursor, slice_of
from app.services.lists.rows import as_row, get_rows, select_rows
from app.services.people.members import Who, beyond, nearest
from app.services.people.profiles import ProfileReader
from app.storage.columns import columns
from app.storage.database import Database
from app.storage.ids import new_id
from app.storage.job_log import add_job
from app.storage.queue.claims import cancel_now
from app.storage.tables.jobs import FINAL, RUNNING, WAITING, JobBucketRow, JobKind, JobStatus, JobUpdateRow
from app.storage.tables.merge_policies import IdentityGraph, MergePolicyRow
from app.storage.tables.previews import PreviewRow
from app.storage.tenancy import within
from app.storage.wakeups import Changes

KIND = JobKind.PREVIEW
MOST_UNDER_WAY = 100
"""Maximum number of unfinished previews of a sandbox; clients that type faster should cancel outdated ones."""
STATES = {
    JobStatus.NEW: "NEW",
    JobStatus.QUEUED: "NEW",
    JobStatus.PROCESSING: "RUNNING",
    JobStatus.CANCELLING: "RUNNING",
    JobStatus.SUCCEEDED: "RESULT_READY",
    JobStatus.FAILED: "FAILED",
    JobStatus.CANCELLED: "CANCELLED",
}
"""The state of a preview, by the status of its row."""

_PREVIEWS = columns(PreviewRow)
_BUCKETS = columns(JobBucketRow)
_UPDATES = columns(JobUpdateRow)
_PLACE = "SAMPLE"


@dataclass(frozen=True, slots=True)
class NewPreview:
    """`graph_type` PDG links fragments even if the merge policy does not; NONE follows the policy."""

    expression: str
    format: ExpressionFormat = ExpressionFormat.PQL_TEXT
    merge_policy_id: str | None = None
    graph_type: IdentityGraph = IdentityGraph.NONE
    exclude_opt_out: bool = True
    limit: Limit | None = None


async def create(database: Database, lake: Lake, clock: Clock, scope: Scope, new: NewPreview) -> PreviewRow:
    """Queues a preview. Raises `ExpressionRefused`, and `Refusal` for an unknown merge policy or too many previews."""
    policy = await merge_policies.choose(database, clock, scope, new.merge_policy_id)
    text = await _accept(database, lake, clock, scope, new)
    now, stitched = clock(), IdentityGraph.PDG in (new.graph_type, policy.identity_graph)
    async with database.write(scope.tenant) as session:
        await _refuse_too_many(session, scope)
        row = PreviewRow(
            **jobs.new_columns(scope, now, new_id(now)),
            expression=text,
            merge_policy=merge_policies.policy_as_json(policy),
            graph_type=IdentityGraph.PDG if stitched else IdentityGraph.NONE,
            exclude_opt_out=new.exclude_opt_out,
            kept=kept(new.limit),
        )
        await add_job(session, row, KIND)
        return row


async def cancel(database: Database, clock: Clock, scope: Scope, id: str) -> PreviewRow:
    """Ends a preview at once; a cancelled one is returned unchanged. Raises `Refusal` for an unknown or ended one."""
    async with database.write(scope.tenant) as session:
        row = (await get_many(session, scope, [id])).get(id)
        if row is None:
            raise Refusal(ErrorCode.NOT_FOUND, f"there is no preview {id!r} in this sandbox", ("id",))
        if row.status in {JobStatus.SUCCEEDED, JobStatus.FAILED}:
            ended = "has its result" if row.status == JobStatus.SUCCEEDED else "has failed"
            raise Refusal(ErrorCode.INVALID_STATE, f"the preview {ended} and can no longer be cancelled", ("id",))
        await cancel_now(session, scope.tenant, id, clock(), KIND)
        return (await get_many(session, scope, [id]))[id]


async def get_many(session: AsyncSession, scope: Scope, ids: Iterable[str]) -> dict[str, PreviewRow]:
    return await get_rows(session, PreviewRow, scope, ids)


async def page(session: AsyncSession, scope: Scope, request: PageRequest) -> Slice[PreviewRow]:
    """A page of previews, newest first."""
    return await jobs.page(session, scope, KIND, request, iter(()))


async def count(session: AsyncSession, scope: Scope) -> int:
    return await jobs.count(session, scope, KIND, iter(()))


def watch(
    database: Database, changes: Changes, scope: Scope, id: str, after: int | None = None
) -> AsyncGenerator[PreviewRow, None]:
    """Yields the current state, then each later one by `sequence`, until a final one. See `watching.watch`."""
    return watching.watch(database, changes, scope, KIND, id, after)


def figures(row: PreviewRow) -> Estimate | None:
    """The estimate in one state of a preview; None until something has been read."""
    if not row.rows_to_read and row.status != JobStatus.SUCCEEDED:
        return None
    matching = estimate(row.total_profiles, row.profiles_read, row.profiles_matched)
    if matching is None or row.kept is None:
        return matching
    size, low, high = (min(number, row.kept["first"]) for number in (matching.size, matching.low, matching.high))
    # A limit that is certainly reached leaves nothing to estimate.
    return Estimate(size, matching.standard_error if low < high else 0.0, low, high)


def policy_of(row: PreviewRow) -> MergePolicyRow:
    """The merge policy as of the preview's creation."""
    return merge_policies.policy_from_json(Tenant(row.organisation, row.sandbox), row.merge_policy)


def rule_of(row: PreviewRow) -> MergeRule:
    """A policy's view with linked fragments is a separate view if the policy itself does not link them."""
    rule = merge_policies.rule_of(policy_of(row))
    if rule.identity_graph == row.graph_type:
        return rule
    return replace(rule, id=f"{rule.id}+pdg", identity_graph="PDG")


# ---------------------------------------------------------------- who was found


async def read_buckets(
    session: AsyncSession, scope: Scope, rows: Iterable[PreviewRow]
) -> dict[str, list[JobBucketRow]]:
    """The buckets read for each preview, in sample order, up to the first missing one."""
    orders = {row.id: (row.snapshot or {}).get("order", ()) for row in rows}
    buckets_of: dict[str, dict[int, JobBucketRow]] = {id: {} for id in orders}
    for bucket_row in await session.execute(select_rows(JobBucketRow, scope).where(_BUCKETS.job_id.in_(list(orders)))):
        buckets_of[bucket_row.job_id][bucket_row.bucket] = as_row(JobBucketRow, bucket_row)
    return {
        id: [buckets_of[id][bucket] for bucket in takewhile(buckets_of[id].__contains__, order)]
        for id, order in orders.items()
    }


async def people_page(
    lake: Lake, scope: Scope, reader: ProfileReader, read: Sequence[JobBucketRow], request: PageRequest
) -> Slice[tuple[Who, Person]]:
    """The people of the sample who qualify, ordered by sample position and ordinal, an order that stays stable while
    the list grows. People are shown with current data; people who no longer exist are left out."""
    place = decode_person(_PLACE, request)
    files = MembershipFiles(lake.tenant(scope.tenant))
    keys, more = await asyncio.to_thread(_page, files, read, place, request)
    profiles = dict(zip(keys, await reader.people_at(list(keys.values())), strict=True))
    people = await reader.people(list(profiles.values())) if profiles else {}
    items = {cursor: (who, people[who]) for cursor, who in profiles.items() if who in people}
    return slice_of(items, request, has_next=more, behind=place is not None)


def people_count(read: Iterable[JobBucketRow]) -> int:
    """The current length of that list."""
    return sum(bucket.counts["members"] for bucket in read)


def _page(
    files: MembershipFiles, read: Sequence[JobBucketRow], place: Key | None, request: PageRequest
) -> tuple[dict[str, Key], bool]:
    """Keys by cursor, and whether there are more. A cursor contains the bucket's position and the ordinal."""
    keys: dict[str, Key] = {}
    positions = range(len(read))
    if place is not None:
        positions = positions[: place[0] + 1] if request.backward else positions[place[0] :]
    for position in reversed(positions) if request.backward else positions:
        row = read[position]
        if not row.counts["members"]:
            continue
        members = files.read(row.job_id, row.bucket, row.file)[row.job_id].members
        if place is not None and position == place[0]:
            members = beyond(members, place[1], request.backward)
        room = request.limit - len(keys)
        for ordinal in nearest(members, room, request.backward):
            keys[encode_cursor(_PLACE, (position, ordinal))] = row.bucket, ordinal
        if len(members) > room:
            return keys, True
    return keys, False


# ---------------------------------------------------------------- retention


async def clean(database: Database, lake: Lake, clock: Clock, keep: timedelta) -> None:
    """Deletes previews that ended longer ago than the given period, in every sandbox, with all their data."""
    old = select(_PREVIEWS.organisation, _PREVIEWS.sandbox, _PREVIEWS.id).where(
        _PREVIEWS.status.in_(FINAL), _PREVIEWS.finished_at < clock() - keep
    )
    while True:
        async with database.session() as session:
            gone = [(Tenant(row.organisation, row.sandbox), row.id) for row in await session.execute(old.limit(100))]
        if not gone:
            return
        for tenant, id in gone:
            await remove(database, lake, tenant, id)


async def remove(database: Database, lake: Lake, tenant: Tenant, id: str) -> None:
    """Deletes an ended preview with all its data."""
    async with database.write(tenant) as session:
        for table, column in (
            (JobBucketRow, _BUCKETS.job_id),
            (JobUpdateRow, _UPDATES.job_id),
            (PreviewRow, _PREVIEWS.id),
        ):
            await session.execute(within(delete(table), table, tenant).where(column == id))
    await asyncio.to_thread(MembershipFiles(lake.tenant(tenant)).remove, id)


# ---------------------------------------------------------------- inside


async def _accept(database: Database, lake: Lake, clock: Clock, scope: Scope, new: NewPreview) -> str:
    """The expression as text. It must fit the data and may only reference segments with known members; so must the
    value of its limit."""
    texts = (new.expression,) if new.limit is None else (new.expression, new.limit.by)
    words = await vocabulary(database, lake, scope, texts)
    refusals = [] if new.limit is None else list(misfits_of_limit(new.limit))
    references: dict[str, tuple[str, ...]] = {}
    text = ""
    try:
        checked: Checked = await asyncio.to_thread(words.check, new.expression, new.format)
        text = as_text(new.expression, new.format)
        require(checked, ("expression",))
        references |= dict.fromkeys(checked.references, ("expression",))
    except ExpressionRefused as refused:
        refusals.append(ExpressionRefused(refused.diagnostics, ("expression",)))
    if new.limit is not None:
        value = await asyncio.to_thread(words.check_value, new.limit.by)
        references = dict.fromkeys(value.references, ("limit", "by")) | references
        if value.diagnostics:
            refusals.append(ExpressionRefused(value.diagnostics, ("limit", "by")))
    if refusals:
        raise refusals[0] if len(refusals) == 1 else Refusals(refusals)
    if not references:
        return text
    async with database.session() as session:
        heads, segments = await read_heads(session, scope, now=clock()), await read_segments(session, scope)
    if missing := sorted(references.keys() - heads.audiences - segments.external):
        names = ", ".join(f"{words.segments[id]!r} ({id})" for id in missing)
        message = f"{names} has never been evaluated, so its members are unknown: run a segment job of it first"
        raise Refusal(ErrorCode.INVALID_STATE, message, references[missing[0]])
    return text


async def _refuse_too_many(session: AsyncSession, scope: Scope) -> None:
    counted = within(select(func.count()).select_from(PreviewRow), PreviewRow, scope.tenant)
    under_way = (await session.execute(counted.where(_PREVIEWS.status.in_(WAITING | RUNNING)))).scalar_one()
    if under_way >= MOST_UNDER_WAY:
        message = f"{under_way} previews of this sandbox have not ended: cancel some of them, or wait until they end"
        raise Refusal(ErrorCode.LIMIT_EXCEEDED, message)

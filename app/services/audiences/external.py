"""External audiences: created elsewhere, with the people of a dataset as their members."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import isfinite
from typing import Any, TypedDict

from sqlalchemy import delete as delete_rows
from sqlalchemy import select
from sqlalchemy import update as update_rows
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import Clock
from app.engine.store.lake import Lake
from app.errors import ErrorCode, Refusal, refuse_all
from app.scope import Scope
from app.services.audiences.external_members import Joining, Written, landed_batches, publish, write_all
from app.services.audiences.lifecycle import HOLDERS, refuse_start, refuse_step
from app.services.audiences.reads import expired, get_many, publish_change, required
from app.services.evaluation.membership_log import Moved, note_changes
from app.services.lists.dependents import refuse_dependents
from app.services.lists.rows import get_rows
from app.services.lists.validation import LONGEST_NAME, refuse_bad_labels, refuse_bad_name
from app.services.search import folders
from app.storage.columns import StoredValues, columns
from app.storage.database import Database
from app.storage.ids import new_id
from app.storage.queue.turns import lock_turn
from app.storage.sessions.writing import insert_rows, update_row
from app.storage.tables.audiences import AudienceRow, AudienceType, LifecycleState
from app.storage.tables.datasets import DatasetKind, DatasetRow
from app.storage.tenancy import within

NAMESPACE = "CustomerAudienceUpload"
"""The namespace of external audiences that do not specify one."""
DAYS_TO_LIVE = 30
MOST_DAYS = 90

_AUDIENCES = columns(AudienceRow)


@dataclass(frozen=True, slots=True)
class NewExternal:
    """The input of `create`; `audience_id` defaults to the audience's own id."""

    name: str
    description: str | None = None
    audience_id: str | None = None
    namespace: str = NAMESPACE
    origin: str = "CUSTOM_UPLOAD"
    dataset_id: str | None = None
    ttl_in_days: int = DAYS_TO_LIVE
    audience_meta: Any = None
    linked_audience_ref: Mapping[str, Any] | None = None
    exclude_opt_out: bool = True
    labels: Sequence[str] = ()
    folder_id: str | None = None
    lifecycle_state: LifecycleState = LifecycleState.PUBLISHED


class ExternalChanges(TypedDict, total=False):
    """Only keys that are present change. The audience id from the source system cannot change."""

    name: str
    description: str | None
    origin: str
    dataset_id: str | None
    ttl_in_days: int
    audience_meta: Any
    linked_audience_ref: Mapping[str, Any] | None
    exclude_opt_out: bool
    labels: Sequence[str]
    folder_id: str | None
    lifecycle_state: LifecycleState


_CHANGEABLE = tuple(ExternalChanges.__annotations__)


async def create(database: Database, lake: Lake, clock: Clock, scope: Scope, new: NewExternal) -> AudienceRow:
    """Creates an audience whose members are all people in its dataset. Raises `Refusals` or `Refusal`."""
    refuse_all([*refuse_start(AudienceType.EXTERNAL_SEGMENT, new.lifecycle_state), *_misfits(new)])
    now = clock()
    id_ = new_id(now)
    values = {
        "organisation": scope.organisation,
        "sandbox": scope.sandbox,
        "id": id_,
        "audience_id": new.audience_id or id_,
        "namespace": new.namespace,
        "type": AudienceType.EXTERNAL_SEGMENT,
        "evaluates_batch": False,
        "created_by": scope.user,
        "last_modified_by": scope.user,
        "created_at": now,
        "updated_at": now,
        **_columns({name: getattr(new, name) for name in _CHANGEABLE}),
    }
    while True:
        people = await _everybody(database, lake, clock, scope, id_, new)
        async with database.write(scope.tenant) as session:
            await _refuse_taken_id(session, scope, new)
            await _refuse_strangers(session, scope, new)
            if not await people.still_hold(session, scope):
                continue
            await insert_rows(session, AudienceRow(**values))
            await people.join(session, scope)
            await publish_change(session, scope, id_)
            return (await get_many(session, scope, [id_]))[id_]


async def update(
    database: Database, lake: Lake, clock: Clock, scope: Scope, id: str, etag: str | None, changes: ExternalChanges
) -> AudienceRow:
    """Updates the given fields; a new dataset brings new members. Raises like `create`, `StaleEtag`, `HasDependents`.

    A new `exclude_opt_out` takes effect with the next upload, as it does with the next job of a computed audience.
    """
    while True:
        async with database.session() as session:
            present = await required(session, scope, id, etag)
        merged = _merged(present, changes)
        refuse_all(_misfits(merged))
        moved = merged.dataset_id != present.dataset_id
        people = await _everybody(database, lake, clock, scope, present.id, merged if moved else None)
        async with database.write(scope.tenant) as session:
            current = await required(session, scope, present.id, etag)
            await _refuse_strangers(session, scope, merged)
            if current.revision != present.revision or not await people.still_hold(session, scope):
                continue
            await refuse_step(session, scope, current.id, current.lifecycle_state, merged.lifecycle_state)
            values = {
                **_columns(dict(changes)),
                **_lifetime(current, merged, clock()),
                "revision": current.revision + 1,
                "last_modified_by": scope.user,
                "updated_at": clock(),
            }
            await lock_turn(session, scope.tenant)
            await update_row(session, AudienceRow, scope.tenant, current.id, values)
            if current.membership_run_id is not None and "membership_run_id" in values:
                gone = Moved(0, current.total_profiles or 0)
                await note_changes(session, scope, values["metrics_updated_at"], {current.id: gone})
            await people.join(session, scope)
            await publish_change(session, scope, current.id)
            return (await get_many(session, scope, [current.id]))[current.id]


async def delete(database: Database, scope: Scope, id: str, etag: str | None = None) -> None:
    """Deletes the audience; the dataset and its people remain. Raises `HasDependents` if it is in use."""
    async with database.write(scope.tenant) as session:
        current = await required(session, scope, id, etag)
        await refuse_dependents(session, scope, current.id, "id", HOLDERS)
        await publish_change(session, scope, current.id)
        await session.execute(
            within(delete_rows(AudienceRow), AudienceRow, scope.tenant).where(_AUDIENCES.id == current.id)
        )


# ---------------------------------------------------------------- members


async def expire(database: Database, clock: Clock) -> None:
    """Updates the rows of audiences whose members have expired. Any process may do it at any time."""
    due = (_AUDIENCES.expires_at <= clock(), _AUDIENCES.membership_run_id.is_not(None))
    async with database.session() as session:
        # This query deliberately spans tenants.
        rows = await session.execute(select(_AUDIENCES.organisation, _AUDIENCES.sandbox, _AUDIENCES.id).where(*due))
        expired_audiences = [(Scope(row.organisation, row.sandbox, user="system"), row.id) for row in rows]
    for scope, id_ in expired_audiences:
        async with database.write(scope.tenant) as session:
            await lock_turn(session, scope.tenant)
            mine = (_AUDIENCES.id == id_, *due)
            total = within(select(_AUDIENCES.total_profiles, _AUDIENCES.expires_at), AudienceRow, scope.tenant)
            gone = (await session.execute(total.where(*mine))).first()
            if gone is None:
                continue
            change = within(update_rows(AudienceRow), AudienceRow, scope.tenant).where(*mine)
            await session.execute(change.values(**{**emptied(None), "metrics_updated_at": _AUDIENCES.expires_at}))
            await note_changes(session, scope, gone.expires_at, {id_: Moved(0, gone.total_profiles or 0)})
            await publish_change(session, scope, id_)


@dataclass(frozen=True, slots=True)
class _Everybody:
    """The people of a dataset, written as members of an audience, and the batches they come from."""

    dataset_id: str | None = None
    batches: Sequence[str] = ()
    written: Written | None = None

    async def still_hold(self, session: AsyncSession, scope: Scope) -> bool:
        """Whether no batch has been committed since, which could not have included the audience."""
        return self.dataset_id is None or await landed_batches(session, scope, self.dataset_id) == self.batches

    async def join(self, session: AsyncSession, scope: Scope) -> None:
        if self.written is not None:
            await publish(session, scope, self.written)


async def _everybody(
    database: Database, lake: Lake, clock: Clock, scope: Scope, id: str, new: NewExternal | None
) -> _Everybody:
    if new is None or new.dataset_id is None:
        return _Everybody()
    audience = Joining(id, None, new.exclude_opt_out, new.ttl_in_days)
    return _Everybody(new.dataset_id, *await write_all(database, lake, clock, scope, new.dataset_id, audience))


def _lifetime(current: AudienceRow, merged: NewExternal, now: datetime) -> StoredValues:
    """The effect of an update on the members and their expiry."""
    if current.dataset_id != merged.dataset_id:
        return {**emptied(now), "expires_at": None}
    if current.expires_at is None:
        return {}
    if expired(current, now):
        return emptied(current.expires_at)
    return {"expires_at": current.expires_at + timedelta(days=merged.ttl_in_days - (current.ttl_in_days or 0))}


# ---------------------------------------------------------------- rules


def emptied(at: datetime | None) -> StoredValues:
    """The columns of an audience whose members have expired at an instant."""
    return {
        "membership_run_id": None,
        "total_profiles": 0,
        "by_namespace": {},
        "metrics_updated_at": at,
        "metrics_job_id": None,
    }


def _merged(current: AudienceRow, changes: ExternalChanges) -> NewExternal:
    present = {name: getattr(current, name) for name in _CHANGEABLE}
    return NewExternal(namespace=current.namespace, **{**present, **changes})


def _misfits(new: NewExternal) -> list[Refusal]:
    refusals: list[Refusal] = []

    def refuse(message: str, path: str) -> None:
        refusals.append(Refusal(ErrorCode.INVALID_INPUT, message, (path,)))

    refuse_bad_name(new.name, refusals)
    for path, value in (("audience_id", new.audience_id), ("namespace", new.namespace)):
        if value is not None and (not value.strip() or value != value.strip() or len(value) > LONGEST_NAME):
            refuse(f"it is {value!r}: write 1 to {LONGEST_NAME} characters without space around them", path)
    if new.origin == "REAL_TIME_CUSTOMER_PROFILE":
        refuse("audiences of this origin are computed by the gateway: name the system that created this one", "origin")
    if not 1 <= new.ttl_in_days <= MOST_DAYS:
        refuse(f"members expire after 1 to {MOST_DAYS:,} days, not {new.ttl_in_days:,}", "ttl_in_days")
    if not _is_finite(new.audience_meta):
        refuse("a number in it is larger than JSON can hold: send numbers below 1.8e308", "audience_meta")
    refuse_bad_labels(new.labels, refusals)
    return refusals


async def _refuse_taken_id(session: AsyncSession, scope: Scope, new: NewExternal) -> None:
    statement = within(select(_AUDIENCES.id), AudienceRow, scope.tenant)
    same = statement.where(_AUDIENCES.namespace == new.namespace, _AUDIENCES.audience_id == new.audience_id)
    if new.audience_id is not None and (await session.execute(same)).first() is not None:
        message = f"audience {new.audience_id!r} already exists in the namespace {new.namespace!r}: update it instead"
        raise Refusal(ErrorCode.ALREADY_EXISTS, message, ("audience_id",))


async def _refuse_strangers(session: AsyncSession, scope: Scope, new: NewExternal) -> None:
    """Raises `Refusal` for a dataset or folder that the audience cannot use."""
    if new.dataset_id is not None:
        dataset = (await get_rows(session, DatasetRow, scope, [new.dataset_id])).get(new.dataset_id)
        if dataset is None:
            message = f"there is no dataset {new.dataset_id!r} in this sandbox"
            raise Refusal(ErrorCode.NOT_FOUND, message, ("dataset_id",))
        if dataset.kind != DatasetKind.AUDIENCE:
            message = f"{dataset.name!r} is a dataset of kind {dataset.kind}: members come from one of kind AUDIENCE"
            raise Refusal(ErrorCode.INVALID_INPUT, message, ("dataset_id",))
    if new.folder_id is not None:
        await folders.choose(session, scope, new.folder_id, new.namespace)


def _columns(values: StoredValues) -> StoredValues:
    """The values in their stored form."""
    if "labels" in values:
        values["labels"] = list(values["labels"])
    if values.get("linked_audience_ref") is not None:
        values["linked_audience_ref"] = dict(values["linked_audience_ref"])
    return values


def _is_finite(value: object) -> bool:
    """Whether a JSON value contains only finite numbers."""
    if isinstance(value, Mapping):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or isfinite(value)

"""The input of an export: as values, as stored JSON, and as data paths; knows no database."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.engine.export.rows import attributes_of
from app.engine.members.membership import MEMBERS_NOW
from app.errors import ErrorCode, Refusal
from app.pql.schema import EVENTS, ArrayType, ObjectType, Type
from app.pql.suggestions import did_you_mean, nearest
from app.pql.syntax.paths import leaf_paths, path_names
from app.storage.columns import StoredValues

SCHEMA = "_xdm.context.profile"


@dataclass(frozen=True, slots=True)
class ExportSegment:
    """An audience by its `audienceId` or its raw id; the namespace is required only if several audiences share the
    `audienceId`."""

    segment_id: str
    namespace: str | None = None
    status: tuple[str, ...] = MEMBERS_NOW


@dataclass(frozen=True, slots=True)
class TimeRange:
    """Both ends are inclusive; None means unbounded."""

    start: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True, slots=True)
class ExportFilter:
    """All given conditions must match. People with events but no record are excluded unless requested, by a segment
    that includes them or by `empty_profiles`."""

    segments: tuple[ExportSegment, ...] = ()
    segment_qualification_time: TimeRange = TimeRange()
    from_ingest_timestamp: datetime | None = None
    empty_profiles: bool = False


@dataclass(frozen=True, slots=True)
class ExportEvents:
    """Paths within an event (empty means all) and the range of ingestion times."""

    fields: tuple[str, ...] = ()
    ingested: TimeRange = TimeRange()


@dataclass(frozen=True, slots=True)
class NewExport:
    """The input of an export. Without a filter all profiles are exported; without `fields` all attributes."""

    destination_id: str
    schema_name: str
    fields: tuple[str, ...] = ()
    merge_policy_id: str | None = None
    filter: ExportFilter | None = None
    additional_fields: ExportEvents | None = None
    segment_per_batch: bool = False
    evaluate_first: bool = False

    def as_json(self) -> StoredValues:
        """JSON values in API terms, for storage in a schedule; `from_json` reads them."""
        return {
            "fields": list(self.fields),
            "mergePolicyId": self.merge_policy_id,
            "filter": filter_as_json(self.filter),
            "additionalFields": events_as_json(self.additional_fields),
            "destination": {"datasetId": self.destination_id, "segmentPerBatch": self.segment_per_batch},
            "schemaName": self.schema_name,
            "evaluateFirst": self.evaluate_first,
        }

    @classmethod
    def from_json(cls, value: Any) -> "NewExport":
        return cls(
            destination_id=value["destination"]["datasetId"],
            schema_name=value["schemaName"],
            fields=tuple(value["fields"]),
            merge_policy_id=value["mergePolicyId"],
            filter=filter_from_json(value["filter"]),
            additional_fields=events_from_json(value["additionalFields"]),
            segment_per_batch=value["destination"]["segmentPerBatch"],
            evaluate_first=value["evaluateFirst"],
        )

    @property
    def segments(self) -> tuple[ExportSegment, ...]:
        return () if self.filter is None else self.filter.segments


def filter_as_json(filter: ExportFilter | None) -> StoredValues | None:
    if filter is None:
        return None
    return {
        "segments": [
            {"segmentId": segment.segment_id, "namespace": segment.namespace, "status": list(segment.status)}
            for segment in filter.segments
        ],
        "segmentQualificationTime": _range_as_json(filter.segment_qualification_time, "start", "end"),
        "fromIngestTimestamp": instant_as_json(filter.from_ingest_timestamp),
        "emptyProfiles": filter.empty_profiles,
    }


def filter_from_json(value: Any) -> ExportFilter | None:
    if value is None:
        return None
    return ExportFilter(
        tuple(
            ExportSegment(segment["segmentId"], segment["namespace"], tuple(segment["status"]))
            for segment in value["segments"]
        ),
        _range_from_json(value["segmentQualificationTime"], "start", "end"),
        _instant_from_json(value["fromIngestTimestamp"]),
        value["emptyProfiles"],
    )


def events_as_json(events: ExportEvents | None) -> StoredValues | None:
    if events is None:
        return None
    return {"fields": list(events.fields), **_range_as_json(events.ingested, "from", "to")}


def events_from_json(value: Any) -> ExportEvents | None:
    return None if value is None else ExportEvents(tuple(value["fields"]), _range_from_json(value, "from", "to"))


def _range_as_json(range: TimeRange, start: str, end: str) -> dict[str, str | None]:
    return {start: instant_as_json(range.start), end: instant_as_json(range.end)}


def _range_from_json(value: Any, start: str, end: str) -> TimeRange:
    return TimeRange(_instant_from_json(value[start]), _instant_from_json(value[end]))


def instant_as_json(instant: datetime | None) -> str | None:
    return None if instant is None else instant.isoformat()


def _instant_from_json(value: str | None) -> datetime | None:
    return None if value is None else datetime.fromisoformat(value)


# ---------------------------------------------------------------- paths


_BUILT_IN = frozenset({"identityMap", "segmentMembership"})


def split_fields(new: NewExport) -> frozenset[tuple[str, ...]] | None:
    """The requested attributes; None for all. The built-in maps always have columns of their own."""
    paths = {path_names(field) for field in new.fields}
    return frozenset(path for path in paths if path and path[0] not in _BUILT_IN) if new.fields else None


def split_event_fields(events: ExportEvents) -> frozenset[tuple[str, ...]] | None:
    """The requested fields of an event, optionally prefixed as in PQL (`xEvent.…`); None for all."""
    paths = (path_names(field.removeprefix(f"{EVENTS}.")) for field in events.fields)
    return frozenset(path for path in paths if path) if events.fields else None


def path_refusals(new: NewExport, schema: ObjectType) -> Iterator[Refusal]:
    """Errors in the paths, according to the schema of the data."""
    for at, field in enumerate(new.fields):
        if field not in _BUILT_IN:
            yield from _path_refusal(attributes_of(schema), field, ("fields", str(at)))
    events = schema.fields[EVENTS]
    if new.additional_fields is not None and isinstance(events, ArrayType):
        for at, field in enumerate(new.additional_fields.fields):
            path = field.removeprefix(f"{EVENTS}.")
            yield from _path_refusal(events.element, path, ("additional_fields", "fields", str(at)))


def _path_refusal(fields: Type, path: str, at: tuple[str, ...]) -> Iterator[Refusal]:
    """Yields an error unless the path leads to a field. Paths continue through arrays; maps are exported as a whole."""
    names = path_names(path) or (path,)
    if names[0] == EVENTS:
        message = f"{path!r} is about events, which are no attribute: ask for them by `additionalFields`"
        yield Refusal(ErrorCode.INVALID_INPUT, message, at)
        return
    reached: Type = fields
    for name in names:
        while isinstance(reached, ArrayType):
            reached = reached.element
        if not isinstance(reached, ObjectType) or name not in reached.fields:
            every = [leaf for leaf, _ in leaf_paths(fields)] if isinstance(fields, ObjectType) else []
            message = f"the data have no field {path!r}{did_you_mean(nearest(path, every))}"
            yield Refusal(ErrorCode.INVALID_INPUT, message, at)
            return
        reached = reached.fields[name]

"""What the first attempt at a job fixes for all later ones: everything that the result depends on, as JSON in the job's
row.

Jobs survive upgrades. Values that an older version did not record get defaults if those cannot change the result;
otherwise the job fails and asks to be run again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from app.errors import ErrorCode, Refusal
from app.storage.columns import StoredValues

EVALUATOR = 1
"""Increment it with a change in the meaning of expressions: results of earlier programs are then no longer reused
between runs."""


@dataclass(frozen=True, slots=True)
class HeadPins:
    """The memberships to read: newest run and identity graph version by audience, and patches up to `turn`."""

    runs: Mapping[str, str]
    turn: int
    graphs: Mapping[str, int]

    def as_json(self) -> StoredValues:
        return {"heads": dict(self.runs), "turn": self.turn, "graphs": dict(self.graphs)}

    @classmethod
    def from_json(cls, value: StoredValues) -> "HeadPins":
        """Raises `Refusal`. Versions before streaming and identity graphs recorded no turns and no graphs."""
        return cls(_required(value, "heads"), value.get("turn") or 0, value.get("graphs") or {})


@dataclass(frozen=True, slots=True)
class SegmentPins:
    """The pins of a segment job. `lake` maps merge policies to data versions (`Snapshot.pinned`)."""

    evaluated_at: datetime
    merge_policies: Mapping[str, StoredValues]
    lake: Mapping[str, StoredValues]
    heads: HeadPins
    inactive: frozenset[str]
    without_consent: frozenset[str]
    time_zone: str = "UTC"
    evaluator: int = EVALUATOR

    @property
    def now(self) -> datetime:
        """The evaluation instant, in the time zone of the calendar."""
        return self.evaluated_at.astimezone(ZoneInfo(self.time_zone))

    def as_json(self) -> StoredValues:
        return {
            "evaluated_at": self.evaluated_at.isoformat(),
            "merge_policies": dict(self.merge_policies),
            "lake": dict(self.lake),
            **self.heads.as_json(),
            "inactive": sorted(self.inactive),
            "without_consent": sorted(self.without_consent),
            "time_zone": self.time_zone,
            "evaluator": self.evaluator,
        }

    def data_of(self, policy_id: str) -> StoredValues:
        """The pinned data versions of a merge policy. Raises `Refusal`."""
        return _lake(_required(self.lake, policy_id))

    @classmethod
    def from_json(cls, value: StoredValues) -> "SegmentPins":
        """Raises `Refusal`."""
        return cls(
            datetime.fromisoformat(_required(value, "evaluated_at")),
            _required(value, "merge_policies"),
            _required(value, "lake"),
            HeadPins.from_json(value),
            frozenset(value.get("inactive", ())),
            frozenset(_required(value, "without_consent")),
            value.get("time_zone", "UTC"),
            value.get("evaluator", 0),
        )


@dataclass(frozen=True, slots=True)
class PreviewPins:
    """The pins of a preview. `order` lists the buckets of its sample in reading order."""

    evaluated_at: datetime
    lake: StoredValues
    heads: HeadPins
    order: Sequence[int]
    rows_to_read: int
    time_zone: str = "UTC"

    @property
    def now(self) -> datetime:
        """The evaluation instant, in the time zone of the calendar."""
        return self.evaluated_at.astimezone(ZoneInfo(self.time_zone))

    def as_json(self) -> StoredValues:
        return {
            "evaluated_at": self.evaluated_at.isoformat(),
            "lake": self.lake,
            **self.heads.as_json(),
            "order": list(self.order),
            "rows_to_read": self.rows_to_read,
            "time_zone": self.time_zone,
        }

    @classmethod
    def from_json(cls, value: StoredValues) -> "PreviewPins":
        """Raises `Refusal`."""
        return cls(
            datetime.fromisoformat(_required(value, "evaluated_at")),
            _lake(_required(value, "lake")),
            HeadPins.from_json(value),
            _required(value, "order"),
            _required(value, "rows_to_read"),
            value.get("time_zone", "UTC"),
        )


@dataclass(frozen=True, slots=True)
class AudiencePin:
    """An exported audience as profiles show it, and the statuses to export."""

    id: str
    namespace: str
    name: str
    statuses: Sequence[str]


@dataclass(frozen=True, slots=True)
class BatchPin:
    """A batch that an export writes: the members of `audiences`, or all profiles if None."""

    id: str
    audiences: Sequence[str] | None


@dataclass(frozen=True, slots=True)
class ExportPins:
    """The pins of an export job."""

    started: datetime
    merge_policy: StoredValues
    lake: StoredValues
    heads: HeadPins
    audiences: Sequence[AudiencePin]
    batches: Sequence[BatchPin]

    def as_json(self) -> StoredValues:
        return {
            "started": self.started.isoformat(),
            "merge_policy": self.merge_policy,
            "lake": self.lake,
            **self.heads.as_json(),
            "audiences": [[pin.id, pin.namespace, pin.name, list(pin.statuses)] for pin in self.audiences],
            "batches": [[pin.id, None if pin.audiences is None else list(pin.audiences)] for pin in self.batches],
        }

    @classmethod
    def from_json(cls, value: StoredValues) -> "ExportPins":
        """Raises `Refusal`."""
        return cls(
            datetime.fromisoformat(_required(value, "started")),
            _required(value, "merge_policy"),
            _lake(_required(value, "lake")),
            HeadPins.from_json(value),
            [AudiencePin(*pin) for pin in _required(value, "audiences")],
            [BatchPin(*pin) for pin in _required(value, "batches")],
        )


def _lake(value: StoredValues) -> StoredValues:
    for name in ("datasets", "view"):
        _required(value, name)
    return value


def _required(value: Mapping[str, object], name: str) -> Any:
    if name not in value:
        message = f"this version cannot finish the job: the version that started it did not record {name!r}"
        raise Refusal(ErrorCode.INVALID_STATE, f"{message}; run it again")
    return value[name]

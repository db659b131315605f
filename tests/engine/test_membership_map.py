"""`segmentMembership`: what is stored, what the data say, and both under one name of a namespace."""

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from pyroaring import BitMap

from app.engine.members.membership import Membership
from app.engine.members.membership_map import with_memberships
from app.engine.plan.plan import Plan
from app.engine.store.arrow_types import arrow_type
from app.pql.check.checker import check
from app.pql.schema import SEGMENT_MEMBERSHIP, ObjectType, Scalar, Segment, profile_schema

MAY, JUNE = datetime(2026, 5, 1, 12, tzinfo=UTC), datetime(2026, 6, 1, 0, 0, 0, 1, tzinfo=UTC)
ORDINALS = np.array([2, 3, 5, 9], np.uint32)
STORED = Membership(
    "gold", 1, BitMap([2, 3, 7]), BitMap([3]), BitMap([5]), ((MAY, BitMap([2, 5, 9])), (JUNE, BitMap([3, 7])))
)
"""2 is in since May, 3 since June, 5 has just left, 9 left long ago; 7 is not among the rows."""


def entry(status: str | None, at: datetime | None) -> dict[str, object]:
    return {"status": status, "lastQualificationTime": at}


def maps(table: pa.Table) -> list[dict[str, dict[str, object]] | None]:
    rows = table["segmentMembership"].to_pylist()
    return [None if row is None else {name: dict(inner) for name, inner in row} for row in rows]


def test_members_stay_or_have_left_since_they_last_entered() -> None:
    table = with_memberships(pa.table({"name": ["b", "c", "e", "i"]}), ORDINALS, {("AEPSegments", "gold"): STORED})
    assert table["name"].to_pylist() == ["b", "c", "e", "i"]
    assert maps(table) == [
        {"AEPSegments": {"gold": entry("existing", MAY)}},
        {"AEPSegments": {"gold": entry("realized", JUNE)}},
        {"AEPSegments": {"gold": entry("exited", MAY)}},
        {"AEPSegments": {"gold": entry("exited", MAY)}},
    ]


def test_the_data_say_the_rest() -> None:
    """The stored entry replaces a loaded one of the same segment, whichever name its namespace has there."""
    loaded: list[object] = [
        [
            ("ups", [("gold", entry("realized", None)), ("other", entry(None, JUNE))]),
            ("AAM", [("x", entry("exited", None))]),
        ],
        None,
        [],
        [("ups", [])],
    ]
    profiles = pa.table({"segmentMembership": pa.array(loaded, arrow_type(SEGMENT_MEMBERSHIP))})
    stored = {("AEPSegments", "gold"): Membership("gold", 1, BitMap([2]), BitMap(), BitMap(), ((MAY, BitMap([2])),))}
    assert maps(with_memberships(profiles, ORDINALS, stored)) == [
        {
            "AAM": {"x": entry("exited", None)},
            "AEPSegments": {"gold": entry("existing", MAY), "other": entry(None, JUNE)},
        },
        None,
        None,
        None,
    ]


def test_nobody_is_in_nothing() -> None:
    assert maps(with_memberships(pa.table({}), ORDINALS, {})) == [None] * 4
    assert maps(with_memberships(pa.table({}), ORDINALS[:0], {("a", "b"): STORED})) == []


@pytest.mark.parametrize(
    ("expression", "segments"),
    [
        ('segmentMembership.get("ups").get("a").status = "realized"', {("AEPSegments", "a")}),
        (
            'let m = segmentMembership in m.get("AAM").get("b").isNull() and m.get("ups").get("a").isNull()',
            {("AAM", "b"), ("AEPSegments", "a")},
        ),
        ('segmentMembership.get("ups").keys().includes("a")', None),
        ('segmentMembership.keys().includes("AEPSegments")', None),
        ("segmentMembership.isNull()", None),
        ('segmentMembership.get(name).get("a").isNull()', None),
        ('segmentMembership.get("ups").get(name).isNull()', None),
        ('name = "a"', set()),
    ],
)
def test_a_plan_knows_which_entries_it_reads(expression: str, segments: set[Segment] | None) -> None:
    schema = profile_schema(ObjectType({"name": Scalar.STRING}), ObjectType({}))
    condition = check(expression, schema, segments=()).condition
    assert condition is not None
    plan = Plan({"one": condition})
    assert plan.segments == (None if segments is None else frozenset(segments))
    assert plan.needs_memberships is (segments != set())

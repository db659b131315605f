"""Uploaded members and the payload of their rows, one bucket at a time; knows no audiences."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from pyroaring import BitMap

from app.engine.evaluate import EvaluationError, evaluate
from app.engine.ingest.rows import user_fields
from app.engine.members.membership import BucketCounts, Membership, counts, next_membership
from app.engine.people.pages import Key, newest_rows
from app.engine.people.snapshot import Snapshot
from app.engine.plan.plan import Plan
from app.engine.store.bitmaps import bitmap_of
from app.engine.store.delta import open_table
from app.engine.store.lake import TenantLake
from app.json_values import JsonObject
from app.pql.consent import with_consent
from app.pql.core import Builder
from app.pql.schema import ObjectType, Scalar

_EVERYBODY = "everybody"
_VERSION = 1
"""Uploaded members belong to no version of an expression."""


class Consent:
    """The people who have not opted out, according to a snapshot of the profiles. Thread-safe."""

    def __init__(self, snapshot: Snapshot, at: datetime) -> None:
        builder = Builder()
        anyone = builder.condition("truth", builder.constant(True, Scalar.BOOLEAN))
        condition = with_consent(anyone, snapshot.schema, builder)
        self._snapshot, self._at = snapshot, at
        self._plan = None if condition is anyone else Plan({_EVERYBODY: condition})

    def of(self, people: BitMap, bucket: int) -> BitMap:
        """The people in the bucket who have not opted out. Raises `RuntimeError` if the condition cannot be
        evaluated."""
        if self._plan is None or not people:
            return people
        bucket_read = self._snapshot.read(bucket, self._plan.needs, people)
        results = evaluate(
            self._plan,
            bucket_read,
            now=self._at,
            member=lambda _id: np.zeros(len(bucket_read.ordinals), bool),
            cancelled=lambda: False,
        )[_EVERYBODY]
        if isinstance(results, EvaluationError):
            raise RuntimeError(f"consent could not be evaluated: {results.message}")
        return people & bitmap_of(bucket_read.ordinals, results)


@dataclass(frozen=True, slots=True)
class Upload:
    """People who join audiences (each with whether it excludes opted-out people) or, if not `joined`, the only members
    who stay in them."""

    audiences: Mapping[str, bool]
    snapshot: Snapshot
    consent: Consent
    at: datetime
    joined: bool = True

    def members(
        self, bucket: int, people: BitMap, previous: Mapping[str, Membership]
    ) -> dict[str, tuple[Membership, BucketCounts]]:
        """The memberships of a bucket after the upload, by audience. Members who stay keep their entry time."""
        namespaces = self.snapshot.namespaces(bucket)
        by_audience = {}
        for audience, excludes in self.audiences.items():
            before = previous.get(audience)
            old_members = before.members if before is not None else BitMap()
            members = people | old_members if self.joined else people & old_members
            members = self.consent.of(members, bucket) if excludes else members
            membership = next_membership(before, audience, members, _VERSION, self.at)
            by_audience[audience] = membership, counts(membership, namespaces)
        return by_audience


def payloads(
    lake: TenantLake, dataset_id: str, keys: Sequence[Key], batches: Collection[str], identity_column: str
) -> dict[Key, JsonObject]:
    """The newest row of each person among the batches, without the identity, as JSON values without nulls."""
    table = open_table(lake.dataset(dataset_id))
    if table is None:
        return {}
    fields = user_fields(table.schema)
    said = ObjectType({name: type_ for name, type_ in fields.fields.items() if name != identity_column})
    return newest_rows(table, keys, said, batches)

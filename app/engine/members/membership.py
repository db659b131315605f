"""Memberships of segments: bitmaps per bucket, their changes in a run, and their files; knows no expressions."""

import io
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyroaring import BitMap

from app.engine.store.checksums import sealed_name, verified
from app.engine.store.files import remove_tree
from app.engine.store.lake import TenantLake, write_atomically
from app.errors import ErrorCode, LakeAway, Refusal

log = logging.getLogger(__name__)


class MembershipStatus(StrEnum):
    """A person's status after a run (segmentation-service.md): entered, stayed, or left."""

    REALIZED = "REALIZED"
    EXISTING = "EXISTING"
    EXITED = "EXITED"


STATUSES = tuple(MembershipStatus)
MEMBERS_NOW = MembershipStatus.REALIZED, MembershipStatus.EXISTING

Ordinals = BitMap
"""Ordinals of people in one bucket."""
Cohorts = tuple[tuple[datetime, BitMap], ...]

_SCHEMA = pa.schema(
    [
        ("definition", pa.string()),
        ("version", pa.int32()),
        ("members", pa.binary()),
        ("entered", pa.binary()),
        ("exited", pa.binary()),
        ("qualified", pa.list_(pa.struct([("at", pa.timestamp("us", tz="UTC")), ("members", pa.binary())]))),
    ]
)


@dataclass(frozen=True, slots=True)
class Membership:
    """One definition in one bucket after one run; the bitmaps contain ordinals.

    `entered` are members that were not members before the run; `exited` were members before it and are not any more.
    `qualified` has the time of each person's last entry: cohorts by time of members and of all former members, each
    person in one cohort.
    """

    definition: str
    version: int
    members: BitMap
    entered: BitMap
    exited: BitMap
    qualified: Cohorts

    def last_qualified(self, ordinal: int) -> datetime | None:
        """The time of the person's last entry; None for a person who was never a member."""
        return next((at for at, cohort in self.qualified if ordinal in cohort), None)

    def with_status(self, statuses: Collection[str]) -> BitMap:
        """A new bitmap of the people with one of the statuses, which are names of `MembershipStatus`."""
        by_status = {
            MembershipStatus.REALIZED: self.entered,
            MembershipStatus.EXISTING: self.members - self.entered,
            MembershipStatus.EXITED: self.exited,
        }
        return BitMap.union(BitMap(), *(by_status[MembershipStatus(status)] for status in statuses))

    def status(self, ordinal: int) -> MembershipStatus:
        """The status of a current or former member."""
        if ordinal in self.entered:
            return MembershipStatus.REALIZED
        return MembershipStatus.EXISTING if ordinal in self.members else MembershipStatus.EXITED


@dataclass(frozen=True, slots=True)
class BucketCounts:
    """`members` = `realized` + `existing`; `by_namespace` counts the members with an identity in each namespace."""

    members: int
    realized: int
    existing: int
    exited: int
    by_namespace: Mapping[str, int]


def next_membership(
    previous: Membership | None,
    definition: str,
    members: BitMap,
    version: int,
    evaluated_at: datetime,
    only: BitMap | None = None,
) -> Membership:
    """The membership after a run in which `members` qualified, given the previous one (None for the first run).

    If `only` some people were evaluated, all others keep their status.
    """
    before = previous.members if previous is not None else BitMap()
    if only is not None:
        members = (before - only) | (members & only)
    entered, exited = members - before, before - members
    cohorts = [
        (at, rest) for at, cohort in (previous.qualified if previous is not None else ()) if (rest := cohort - entered)
    ]
    if entered:
        cohorts.append((evaluated_at, entered))
    if only is not None and previous is not None:
        entered, exited = entered | (previous.entered - only), exited | (previous.exited - only)
    return Membership(definition, version, members, entered, exited, tuple(cohorts))


def differences(before: Membership | None, after: Membership | None) -> tuple[BitMap, BitMap]:
    """New bitmaps of the people who entered, and of those who exited."""
    old = before.members if before is not None else BitMap()
    new = after.members if after is not None else BitMap()
    return new - old, old - new


def counts(membership: Membership, namespaces: Mapping[str, BitMap]) -> BucketCounts:
    members, realized = membership.members, len(membership.entered)
    by_namespace = {name: n for name, people in namespaces.items() if (n := members.intersection_cardinality(people))}
    return BucketCounts(len(members), realized, len(members) - realized, len(membership.exited), by_namespace)


class MembershipLost(Refusal):
    """A stored membership is missing or unreadable."""

    def __init__(self, run_id: str, name: str) -> None:
        super().__init__(
            ErrorCode.INVALID_STATE,
            f"the stored members of run {run_id}, file {name}, are missing or cannot be read: `segmentation doctor` "
            "names the audiences and what to do",
        )


@dataclass(frozen=True, slots=True)
class MembershipFiles:
    """The membership files of a sandbox: one per run and bucket, named by the attempt that wrote it.

    With `mending`, for callers that rebuild the memberships, a missing or unreadable file is logged and treated as
    empty.
    """

    lake: TenantLake
    mending: bool = False

    def write(self, run_id: str, bucket: int, attempt: int | str, memberships: Sequence[Membership]) -> str:
        """Writes all definitions of one bucket atomically and returns the file's name.

        The name contains bucket and attempt, so that an attempt that lost its lease never overwrites another's file,
        and the checksum, so that damage is detected.
        """
        folder = self.lake.membership(run_id)
        folder.mkdir(parents=True, exist_ok=True)
        rows = [
            {
                "definition": membership.definition,
                "version": membership.version,
                "members": membership.members.serialize(),
                "entered": membership.entered.serialize(),
                "exited": membership.exited.serialize(),
                "qualified": [{"at": at, "members": cohort.serialize()} for at, cohort in membership.qualified],
            }
            # In a fixed order, so that equal memberships have equal bytes.
            for membership in sorted(memberships, key=lambda membership: membership.definition)
        ]
        content = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows, _SCHEMA), content, compression="zstd", store_schema=False)
        name = sealed_name(f"{bucket}-{attempt}", content.getvalue())
        write_atomically(folder / name, content.getvalue())
        return name

    def remove(self, run_id: str) -> None:
        """Removes all files of a run; a run without files is not an error."""
        remove_tree(self.lake.membership(run_id))

    def read(
        self, run_id: str, bucket: int, name: str, definitions: Collection[str] | None = None
    ) -> dict[str, Membership]:
        """The memberships in one file, of all definitions or the given ones. Raises `MembershipLost`."""
        try:
            memberships = self.read_path(self.lake.membership(run_id) / name, definitions)
        except LakeAway:
            raise
        except Exception as error:  # Arrow and the bitmaps raise many types of errors for damaged files.
            lost = MembershipLost(run_id, name)
            if not self.mending:
                raise lost from error
            log.warning("%s; rebuilding them", lost.message)
            return {}
        return memberships

    def read_path(self, path: Path, definitions: Collection[str] | None = None) -> dict[str, Membership]:
        """Like `read`, for a file at any path; errors are raised unchanged."""
        return _memberships(verified(path), definitions)


def _memberships(content: bytes, definitions: Collection[str] | None) -> dict[str, Membership]:
    table = pq.ParquetFile(pa.BufferReader(content)).read(use_threads=False)
    if definitions is not None:
        table = table.filter(pc.is_in(table["definition"], pa.array(list(definitions), pa.string())))
    # Without a zone, Arrow's times become Python's without needing a time zone database.
    return {row["definition"]: _membership(row) for row in table.cast(_READ).to_pylist()}


_READ = pa.schema(
    [
        *(_SCHEMA.field(position) for position in range(5)),
        ("qualified", pa.list_(pa.struct([("at", pa.timestamp("us")), ("members", pa.binary())]))),
    ]
)


def _membership(row: Mapping[str, Any]) -> Membership:
    members, entered, exited = (BitMap.deserialize(row[name]) for name in ("members", "entered", "exited"))
    qualified = tuple(
        (item["at"].replace(tzinfo=UTC), BitMap.deserialize(item["members"])) for item in row["qualified"]
    )
    return Membership(row["definition"], row["version"], members, entered, exited, qualified)

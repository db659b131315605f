"""A person in stored memberships: bits in the bitmaps of every kept run; knows audiences only by id."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from pyroaring import BitMap

from app.engine.erasure.subject import Subject
from app.engine.members.membership import Membership, MembershipFiles
from app.engine.store.lake import TenantLake


def bits(membership: Membership, ordinals: BitMap) -> int:
    """How many of the people a membership mentions."""
    members = BitMap.union(
        membership.members, membership.entered, membership.exited, *(people for _, people in membership.qualified)
    )
    return len(members & ordinals)


def without(membership: Membership, ordinals: BitMap) -> Membership:
    """The membership as if the people had never existed."""
    qualified = ((at, people - ordinals) for at, people in membership.qualified)
    return replace(
        membership,
        members=membership.members - ordinals,
        entered=membership.entered - ordinals,
        exited=membership.exited - ordinals,
        qualified=tuple((at, people) for at, people in qualified if people),
    )


def rewritten(
    files: MembershipFiles, run_id: str, bucket: int, name: str, memberships: Mapping[str, Membership], ordinals: BitMap
) -> str:
    """Rewrites a file of a run without the people, without affecting readers of the old file. Returns the new name."""
    attempt = name.split(".")[0].partition("-")[2]
    return files.write(run_id, bucket, attempt, [without(membership, ordinals) for membership in memberships.values()])


def stray_files(lake: TenantLake, subject: Subject, known: Collection[tuple[str, str]]) -> list[Path]:
    """Membership files that contain the person and that no run (folder, file) references."""
    return [path for path in holding_files(lake, subject) if (path.parent.name, path.name) not in known]


def holding_files(lake: TenantLake, subject: Subject) -> list[Path]:
    """Every membership file that contains the person. Raises `MembershipLost` for an unreadable one."""
    files = MembershipFiles(lake)
    paths = []
    for path in sorted((lake.folder / "membership").glob("*/*.parquet")):
        bucket = path.name.partition("-")[0]
        ordinals = subject.ordinals.get(int(bucket)) if bucket.isdigit() else None
        if ordinals is not None and any(bits(membership, ordinals) for membership in files.read_path(path).values()):
            paths.append(path)
    return paths

"""The subject of an erasure, stored in a file of the lake while the job runs and nowhere afterwards.

The identity graph defines a person: all linked identities, regardless of merge policies.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyroaring import BitMap

from app.engine.ingest.identities import find
from app.engine.people.identity_graph import graph_of
from app.engine.people.merged_view import namespaces
from app.engine.store.delta import open_table
from app.engine.store.erased import Identity, note_erased
from app.engine.store.lake import TenantLake, write_atomically

Fragment = tuple[int, int]
"""Bucket and ordinal."""
SHORTEST_WORD = 5
"""A shorter id may also be a number, a size or a code: in text it is only searched for with its namespace."""


@dataclass(frozen=True)
class Subject:
    """A person: its identities, and the places of those that are primary identities."""

    asked: Identity
    identities: frozenset[Identity] = frozenset()
    fragments: frozenset[Fragment] = frozenset()
    namespaces: Mapping[str, Mapping[int, Mapping[str, BitMap]]] = field(default_factory=dict)
    """For each policy, the namespaces in which the fragments had identities in the merged profiles, by bucket."""
    names: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", frozenset(f"{namespace}:{id}" for namespace, id in self.identities))

    @cached_property
    def ordinals(self) -> Mapping[int, BitMap]:
        """By bucket."""
        by_bucket: dict[int, BitMap] = {}
        for bucket, ordinal in self.fragments:
            by_bucket.setdefault(bucket, BitMap()).add(ordinal)
        return by_bucket

    @cached_property
    def searched(self) -> Sequence[str]:
        """The search terms for texts: names, and ids that are long enough to be unambiguous."""
        ids = {id for _, id in self.identities if len(id) >= SHORTEST_WORD}
        return sorted(self.names | ids, key=len, reverse=True)

    @cached_property
    def anywhere(self) -> str:
        """The search terms at any place of a text, as a regular expression of RE2."""
        return "|".join(map(_re2_quoted, self.searched))

    @cached_property
    def words(self) -> re.Pattern[str]:
        """Finds the person's names and ids in a text as separate words."""
        return re.compile(rf"(?<![\w.-])(?:{self._any})(?![\w-])")

    @cached_property
    def parts(self) -> re.Pattern[str]:
        """Finds them also as parts of words that programs have put together, between signs such as `-` and `_`.

        >>> parts = Subject(("crm", "c-17"), frozenset({("crm", "ann-17")})).parts
        >>> [bool(parts.search(text)) for text in ("load_ann-17_2", "crm:ann-17", "joann-17", "ann-177")]
        [True, True, False, False]
        """
        return re.compile(rf"(?<![^\W_])(?:{self._any})(?![^\W_])")

    @property
    def _any(self) -> str:
        return "|".join(re.escape(word) for word in self.searched)


def _re2_quoted(word: str) -> str:
    return "".join(character if character.isalnum() else f"\\x{{{ord(character):x}}}" for character in word)


def ask(lake: TenantLake, job_id: str, identity: Identity) -> None:
    """Records whom to erase."""
    _write(lake.erasure(job_id), Subject(identity))


def subject_of(lake: TenantLake, job_id: str) -> Subject | None:
    """None if it is no longer known, because the erasure is complete."""
    try:
        content = json.loads(lake.erasure(job_id).read_bytes())
    except FileNotFoundError:
        return None
    return Subject(
        tuple(content["asked"]),
        frozenset((namespace, id) for namespace, id in content["identities"]),
        frozenset((bucket, ordinal) for bucket, ordinal in content["fragments"]),
        {
            policy: {
                int(bucket): {name: BitMap(ordinals) for name, ordinals in names.items()}
                for bucket, names in by_bucket.items()
            }
            for policy, by_bucket in content["namespaces"].items()
        },
    )


def find_subject(
    lake: TenantLake, job_id: str, datasets: Sequence[str], policies: Sequence[str] = ()
) -> Subject | None:
    """Resolves the person with its identities once: later attempts get the same result, although the data is gone.

    Batches that start loading afterwards recognise its identities as erased.
    """
    subject = subject_of(lake, job_id)
    if subject is None or subject.identities:
        return subject
    subject = _found(lake, subject.asked, datasets)
    subject = replace(subject, namespaces={policy: _namespaces(lake, policy, subject) for policy in policies})
    note_erased(lake, subject.identities)
    _write(lake.erasure(job_id), subject)
    return subject


def forget(lake: TenantLake, job_id: str) -> None:
    """Removes the subject, the last trace of the person."""
    lake.erasure(job_id).unlink(missing_ok=True)


def forget_others(lake: TenantLake, jobs: Iterable[str], before: datetime) -> None:
    """Removes the subjects, if written before `before`, of jobs other than these: the jobs have failed, or were never
    created."""
    live = {lake.erasure(job).name for job in jobs}
    for path in (lake.folder / "erasures").glob("*.json"):
        if path.name not in live and datetime.fromtimestamp(path.stat().st_mtime, UTC) < before:
            path.unlink(missing_ok=True)


def _found(lake: TenantLake, asked: Identity, datasets: Sequence[str]) -> Subject:
    identities, fragments = {asked}, set()
    if lake.layout() is not None:
        graph = graph_of(lake, datasets)
        person = graph.find(*asked)
        if person is not None:
            table = graph.members_of(person[0])
            rows = table.filter(pc.equal(table["person"], pa.scalar(person[1], pa.int32())))
            identities |= set(zip(rows["namespace"].to_pylist(), rows["id"].to_pylist(), strict=True))
            fragments |= set(graph.fragments(person))
        # Identities unknown to the graph: their data was deleted, and may be in older files.
        fragments |= {place for identity in identities if (place := find(lake, *identity)) is not None}
    return Subject(asked, frozenset(identities), frozenset(fragments))


def _namespaces(lake: TenantLake, policy: str, subject: Subject) -> dict[int, dict[str, BitMap]]:
    """From the newest merged profiles of the policy, if any."""
    generations = [path for path in lake.views(policy).glob("[0-9]*") if path.name.isdigit()]
    view = open_table(max(generations, key=lambda path: int(path.name))) if generations else None
    by_bucket: dict[int, dict[str, BitMap]] = {}
    for bucket, ordinals in subject.ordinals.items():
        for path in view.paths(bucket) if view is not None else ():
            by_bucket[bucket] = {
                name: present for name, people in namespaces(path).items() if (present := people & ordinals)
            }
    return by_bucket


def _write(path: Path, subject: Subject) -> None:
    content = {
        "asked": subject.asked,
        "identities": sorted(subject.identities),
        "fragments": sorted(subject.fragments),
        "namespaces": {
            policy: {
                bucket: {name: list(people) for name, people in names.items()} for bucket, names in by_bucket.items()
            }
            for policy, by_bucket in subject.namespaces.items()
        },
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(content).encode())

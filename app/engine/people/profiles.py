"""The public interface of profiles: the merged view, its snapshots, and pages."""

from app.engine.ingest.identities import find
from app.engine.people.pages import Event, EventPage, Identity, Key, People, Person
from app.engine.people.snapshot import (
    Changed,
    Snapshot,
    find_person,
    open_snapshot,
    open_snapshots,
    people_changed_since,
    reopen,
)
from app.engine.people.sources import Dataset, MergeRule, people_graph, schema_of

__all__ = [
    "Changed",
    "Dataset",
    "Event",
    "EventPage",
    "Identity",
    "Key",
    "MergeRule",
    "People",
    "Person",
    "Snapshot",
    "find",
    "find_person",
    "open_snapshot",
    "open_snapshots",
    "people_changed_since",
    "people_graph",
    "reopen",
    "schema_of",
]

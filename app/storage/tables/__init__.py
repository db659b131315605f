"""The tables, one module for each resource; importing the package registers them all."""

from app.storage.tables import (
    access,
    audiences,
    datasets,
    definitions,
    export_jobs,
    folders,
    jobs,
    membership_changes,
    merge_policies,
    previews,
    sandboxes,
    schedules,
    search,
    segment_jobs,
    streaming,
    workers,
)

__all__ = [
    "access",
    "audiences",
    "datasets",
    "definitions",
    "export_jobs",
    "folders",
    "jobs",
    "membership_changes",
    "merge_policies",
    "previews",
    "sandboxes",
    "schedules",
    "search",
    "segment_jobs",
    "streaming",
    "workers",
]

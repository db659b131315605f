"""The tables, one module for each resource; importing the package registers them all."""

from app.storage.tables import audiences, datasets, definitions, jobs, merge_policies, segment_jobs

__all__ = ["audiences", "datasets", "definitions", "jobs", "merge_policies", "segment_jobs"]

"""Whose data batches brought; knows no attributes and no expressions."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyroaring import BitMap

from app.engine.ingest.notes import batch_files
from app.engine.store.lake import TenantLake


@dataclass(frozen=True, slots=True)
class Touched:
    """The people of some batches, by bucket; they are read a bucket at a time. Safe to share between threads."""

    files: Mapping[int, tuple[Path, ...]]

    @property
    def buckets(self) -> list[int]:
        return sorted(self.files)

    def people(self, bucket: int) -> BitMap:
        """The ordinals of those who have a row there."""
        found = BitMap()
        for path in self.files.get(bucket, ()):
            try:
                ordinals = pq.read_table(path, columns=["__ordinal"], partitioning=None)["__ordinal"]
            except FileNotFoundError:
                continue  # The dataset was deleted meanwhile, and its people are not as the batch left them.
            found |= BitMap(pc.unique(ordinals).to_numpy().astype("uint32"))
        return found


def touched(lake: TenantLake, batches: Iterable[tuple[str, str]]) -> Touched:
    """The people of the batches (dataset id, batch id); one whose dataset is gone touches nobody."""
    files: dict[int, list[Path]] = {}
    for dataset_id, batch_id in batches:
        for bucket, path in batch_files(lake, dataset_id, batch_id):
            files.setdefault(bucket, []).append(path)
    return Touched({bucket: tuple(paths) for bucket, paths in files.items()})

"""The people in batches; knows no attributes and no expressions."""

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
    """The people of some batches, by bucket; read one bucket at a time. Thread-safe."""

    files: Mapping[int, tuple[Path, ...]]

    @property
    def buckets(self) -> list[int]:
        return sorted(self.files)

    def people(self, bucket: int) -> BitMap:
        """The ordinals of the people with a row in the bucket."""
        found = BitMap()
        for path in self.files.get(bucket, ()):
            try:
                ordinals = pq.read_table(path, columns=["__ordinal"], partitioning=None)["__ordinal"]
            except FileNotFoundError:
                continue  # The dataset was deleted meanwhile, so its people differ from those of the batch.
            found |= BitMap(pc.unique(ordinals).to_numpy().astype("uint32"))
        return found


def touched(lake: TenantLake, batches: Iterable[tuple[str, str]]) -> Touched:
    """The people of the batches (dataset id, batch id); a batch of a deleted dataset has none."""
    files: dict[int, list[Path]] = {}
    for dataset_id, batch_id in batches:
        for bucket, path in batch_files(lake, dataset_id, batch_id):
            files.setdefault(bucket, []).append(path)
    return Touched({bucket: tuple(paths) for bucket, paths in files.items()})

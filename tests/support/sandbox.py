"""A lake in a temporary folder, and short ways to put rows into it."""

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from app.engine.ingest.batch import ingest
from app.engine.ingest.formats import InputFile
from app.engine.ingest.rows import DatasetShape, Ingested
from app.engine.store.lake import Lake, TenantLake
from app.engine.store.layout import PEOPLE_IN_A_BUCKET
from app.scope import Tenant

CDNOW = Path(__file__).parents[1] / "data" / "cdnow_purchases.csv"
PURCHASES = DatasetShape("EVENT", "customer_id", "CRM", "date")
PEOPLE = DatasetShape("PROFILE", "id", "CRM")
EVENTS = DatasetShape("EVENT", "id", "CRM", "timestamp")


class Sandbox:
    """One sandbox; batches are numbered in the order in which they come."""

    def __init__(self, folder: Path, people_in_a_bucket: int = PEOPLE_IN_A_BUCKET) -> None:
        self.folder = folder
        lake = Lake(folder / "lake", memory_limit="500MB", people_in_a_bucket=people_in_a_bucket)
        self.lake: TenantLake = lake.tenant(Tenant("org", "prod"))
        self.batches = 0

    def csv(self, dataset: str, shape: DatasetShape, text: str | bytes, *, packed: bool = False) -> Ingested:
        content = text.encode() if isinstance(text, str) else text
        return self.take(dataset, shape, gzip.compress(content) if packed else content, "CSV")

    def rows(self, dataset: str, shape: DatasetShape, rows: Sequence[Mapping[str, Any]]) -> Ingested:
        return self.take(dataset, shape, "\n".join(json.dumps(row) for row in rows).encode(), "NDJSON")

    def take(self, dataset: str, shape: DatasetShape, content: bytes, format: Any) -> Ingested:
        self.batches += 1
        file = self.folder / f"upload-{self.batches}"
        file.write_bytes(content)
        return ingest(self.lake, dataset, shape, InputFile(file, format), f"batch-{self.batches:03d}")

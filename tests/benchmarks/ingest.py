"""What loading a file costs: `python -m tests.benchmarks.ingest [parquet|csv|ndjson|wide] [rows] [memory limit]`.

Without arguments, one line for each kind of file. Each is loaded in a process of its own, so that the printed peak is
that of the load alone. Parquet, CSV and NDJSON are the events of the demo shop, of a tenth as many people (CSV without
the nested columns); `wide` is a CSV file of profiles with 501 columns.
"""

import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from app.engine.ingest.batch import ingest
from app.engine.ingest.formats import FileFormat, InputFile
from app.engine.ingest.progress import Progress, Stage
from app.engine.ingest.rows import DatasetShape
from app.engine.run.demo_shop import IDENTITY_COLUMN, IDENTITY_NAMESPACE, write_shop
from app.engine.store.lake import Lake, text_literal
from app.scope import Tenant

ROWS = {"parquet": 10_000_000, "csv": 2_000_000, "ndjson": 2_000_000, "wide": 20_000}
FORMATS: dict[str, FileFormat] = {"parquet": "PARQUET", "csv": "CSV", "ndjson": "NDJSON", "wide": "CSV"}
COLUMNS = 500


def write(folder: Path, kind: str, rows: int) -> Path:
    if kind == "wide":
        return _write_wide(folder / "wide.csv", rows)
    _, events = write_shop(folder, max(rows // 10, 1), rows, datetime(2026, 11, 30, tzinfo=UTC))
    if kind == "parquet":
        return events
    file = folder / f"events.{kind}"
    nested = "" if kind == "ndjson" else " EXCLUDE (commerce, productListItems)"
    chosen = f"*{nested} REPLACE (strftime(timestamp, '%Y-%m-%dT%H:%M:%S.%fZ') AS timestamp)"
    with duckdb.connect() as database:
        database.execute("SET TimeZone = 'UTC'")
        source, target = text_literal(str(events)), text_literal(str(file))
        form = "json" if kind == "ndjson" else "csv"
        database.execute(f"COPY (SELECT {chosen} FROM read_parquet({source})) TO {target} (FORMAT {form})")
    return file


def _write_wide(file: Path, rows: int) -> Path:
    rng = np.random.default_rng(7)
    columns = {IDENTITY_COLUMN: pa.array([f"{number:07d}" for number in range(rows)])}
    for number in range(COLUMNS):
        match number % 4:
            case 0:
                values = pa.array(rng.integers(0, 1000, rows))
            case 1:
                values = pa.array(np.round(rng.gamma(2.0, 20.0, rows), 2))
            case 2:
                values = pa.array([f"text {code}" for code in rng.integers(0, 100, rows).tolist()])
            case _:
                values = pa.array(rng.random(rows) < 0.5)
        columns[f"c{number}"] = values
    pa_csv.write_csv(pa.table(columns), file)
    return file


class _Timed(Progress):
    """Progress that notes when each stage began."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[tuple[str, float, float]] = []

    def begin(self, stage: Stage, size: int = 0) -> None:
        self.begun.append((stage.name, time.perf_counter(), time.process_time()))
        super().begin(stage, size)


def load(file: Path, kind: str, limit: str, folder: Path) -> str:
    lake = Lake(folder / "lake", memory_limit=limit).tenant(Tenant("org", "prod"))
    shape = DatasetShape("EVENT", IDENTITY_COLUMN, IDENTITY_NAMESPACE, "timestamp")
    if kind == "wide":
        shape = DatasetShape("PROFILE", IDENTITY_COLUMN, IDENTITY_NAMESPACE)
    before, progress = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, _Timed()
    began, cpu = time.perf_counter(), time.process_time()
    result = ingest(lake, "rows", shape, InputFile(file, FORMATS[kind]), "batch", progress=progress)
    ends = [*progress.begun[1:], ("", time.perf_counter(), time.process_time())]
    seconds, cpu = ends[-1][1] - began, ends[-1][2] - cpu
    stages = ", ".join(
        f"{name} {end[1] - start:.1f} s ({end[2] - worked:.1f})"
        for (name, start, worked), end in zip(progress.begun, ends, strict=True)
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    speed = f"{seconds:.1f} s, {result.row_count / seconds:,.0f} a second, {cpu:.1f} s of CPU"
    memory = f"peak {peak / 1024:.0f} MB ({before / 1024:.0f} before), DuckDB at most {limit}"
    return f"{kind}: {result.row_count:,} rows, {speed}; {stages}; {memory}"


def main() -> None:
    chosen = sys.argv[1:]
    if chosen[:1] == ["--load"]:
        print(load(Path(chosen[1]), chosen[2], chosen[3], Path(chosen[4])), flush=True)
        return
    for kind in chosen[:1] or ROWS:
        rows = int(chosen[1]) if chosen[1:] else ROWS[kind]
        with tempfile.TemporaryDirectory(prefix="segmentation-ingest-") as folder:
            file = write(Path(folder), kind, rows)
            limit = chosen[2] if chosen[2:] else "1GB"
            arguments = [sys.executable, "-m", "tests.benchmarks.ingest", "--load", str(file), kind, limit, folder]
            subprocess.run(arguments, check=True)


if __name__ == "__main__":
    main()

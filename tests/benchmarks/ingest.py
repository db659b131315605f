"""How fast and in how much memory a file is taken in: `python tests/benchmarks/ingest.py [megabytes] [CSV|NDJSON]`."""

import json
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from app.engine.ingest.batch import ingest
from app.engine.ingest.formats import FileFormat, InputFile
from app.engine.ingest.rows import DatasetShape
from app.engine.store.lake import Lake
from app.scope import Tenant


def write(file: Path, megabytes: int, kind: FileFormat) -> int:
    with file.open("w") as out:
        if kind == "CSV":
            out.write("id,timestamp,amount,note\n")
        rows = 0
        while out.tell() < megabytes * 1_000_000:
            for n in range(rows, rows + 10_000):
                row = (f"{n * 7919 % 300_000:07d}", f"2026-01-{1 + n % 28:02d}T12:00:00Z", n % 997 / 10)
                if kind == "CSV":
                    out.write(f"{row[0]},{row[1]},{row[2]},note {n * 2654435761 % 2**32:010d} of this row\n")
                else:
                    fields = {"id": row[0], "timestamp": row[1], "order": {"total": row[2]}, "_id": f"e{n}"}
                    out.write(json.dumps(fields) + "\n")
            rows += 10_000
    return rows


def main() -> None:
    megabytes = int((sys.argv[1:] or ["500"])[0])
    kind: FileFormat = "NDJSON" if sys.argv[2:] == ["NDJSON"] else "CSV"
    process, peak, done = psutil.Process(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.05):
            peak = max(peak, process.memory_info().rss)

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows"
        rows = write(file, megabytes, kind)
        before = process.memory_info().rss
        watcher = threading.Thread(target=watch)
        watcher.start()
        lake = Lake(Path(folder) / "lake", memory_limit="200MB").tenant(Tenant("org", "prod"))
        start = time.perf_counter()
        result = ingest(lake, "e", DatasetShape("EVENT", "id", "CRM", "timestamp"), InputFile(file, kind), "b")
        seconds = time.perf_counter() - start
        done.set()
        watcher.join()
    print(f"{kind} of {megabytes} MB, {rows:,} rows ({result.row_count:,} stored): {megabytes / seconds:.0f} MB/s")
    print(f"memory: {before / 1e6:.0f} MB before, at most {peak / 1e6:.0f} MB, of which DuckDB may take 200 MB")


if __name__ == "__main__":
    main()

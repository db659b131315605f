"""Engines for tests: what another one leaves of each bucket must be what the local one leaves."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from app.engine.limits.pool import Stopped
from app.engine.run.engine import Done, Engine, LocalEngine, Work


class Elsewhere(LocalEngine):
    """Does what JSON tells of the work, as another machine would."""

    def run(self, work: Work, buckets: Iterable[int], finished: Callable[[Done], None], cancelled: Stopped) -> None:
        elsewhere = type(work).from_json(json.loads(json.dumps(work.as_json())))
        super().run(elsewhere, buckets, finished, cancelled)


@dataclass(slots=True)
class Compared:
    """Has all work done by another engine and by threads; `buckets` counts those of which both left the same.

    Names of files tell the checksum of what is in them, so equal names stand for equal bitmaps.
    """

    other: Engine
    buckets: int = 0
    parallel: int = 2
    lazy: bool = False

    def run(self, work: Work, buckets: Iterable[int], finished: Callable[[Done], None], cancelled: Stopped) -> None:
        buckets, theirs = list(buckets), dict[int, Done]()
        self.other.run(work, buckets, lambda done: theirs.update({done.bucket: _timeless(done)}), cancelled)

        def compare(done: Done) -> None:
            assert theirs.pop(done.bucket) == _timeless(done)
            self.buckets += 1
            finished(done)

        LocalEngine(2).run(work, buckets, compare, cancelled)
        assert theirs == {}

    def problem(self) -> str | None:
        return self.other.problem()

    def start(self) -> None:
        self.other.start()

    def stop(self) -> None:
        self.other.stop()


def _timeless(done: Done) -> Done:
    """Without what depends on the clock, or on the bucket that came first: by which numbers a limit was exceeded."""
    counts = {name: value for name, value in done.counts.items() if name != "seconds"}
    counts["errors"] = {id_: error["code"] for id_, error in counts["errors"].items()}
    return replace(done, seconds=0, counts=counts)

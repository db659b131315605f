"""Processes buckets on a Spark cluster; only this module and `spark_session` use Spark.

A job's pass is one Spark job with one task per bucket (`mapInArrow` over their numbers). The work is stored as JSON in
the lake, which every machine of the cluster has under the same path; executors only receive that path, the JSON's
checksum and the driver's release. Each Python process of an executor reads the JSON once, and evaluates with the same
code as the local engine. The result of a bucket is a file in the lake, as with the local engine. Its summary (`Done`)
is returned twice: as a note beside the JSON, so that it is recorded soon, and as the row of the task, so that nothing
depends on a folder's listing. Executors have no access to the database: the driver, which is the gateway's worker,
records results under the job's token.
"""

import hashlib
import json
import logging
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from app.engine.limits.pool import Cancelled, Stopped
from app.engine.run.engine import Done, Work, program, timed
from app.engine.run.spark_session import alive, missing, open_session, unreachable
from app.engine.store.lake import Lake, write_atomically
from app.errors import EngineAway, ErrorCode, InvalidSettings, Refusal, outage
from app.metrics import BUCKET_SECONDS

log = logging.getLogger("segmentation")

START_SECONDS = 180.0
"""How long the driver waits for a session and for the first executor."""
LOOK_SECONDS = 0.2
"""Interval at which the driver looks for results."""
ENDING_SECONDS = 30.0
"""How long the driver waits for the end of a Spark job whose buckets are all done."""
STILL_SECONDS = 1.0
"""Interval at which an executor checks whether the driver still waits for its work."""

Answer = TypeVar("Answer")

_PROBED = 1 << 12
"""Number of rows of the probe: enough for a partition on every core."""
_DONE = "number bigint, done string"
_DONE_SCHEMA = pa.schema([("number", pa.int64()), ("done", pa.string())])
_SENTENCE = re.compile(r"EngineAway: ([^\n]+)")


# ---------------------------------------------------------------- on the executors


@dataclass(frozen=True, slots=True)
class Order:
    """What executors receive: the path of the work's JSON, its checksum, and the release that wrote it."""

    path: str
    checksum: str
    program: str

    @classmethod
    def written(cls, path: Path, value: object) -> "Order":
        content = json.dumps(value).encode()
        write_atomically(path, content)
        return cls(str(path), hashlib.blake2b(content).hexdigest(), program())

    def read(self) -> Any:
        """The content of the JSON. Raises `EngineAway` with a message on what this machine lacks."""
        if program() != self.program:
            raise EngineAway(f"it has {program()}, and the gateway {self.program}: install the same there")
        try:
            content = Path(self.path).read_bytes()
        except OSError as error:
            raise EngineAway(
                f"it cannot read {Path(self.path).parent} ({error.strerror}): every machine of the cluster needs the "
                "folder of SEGMENTATION_DATA_DIR under the same path, for reading and writing"
            ) from error
        if hashlib.blake2b(content).hexdigest() != self.checksum:
            raise EngineAway(f"it has another folder at {Path(self.path).parent}: mount the gateway's there")
        return json.loads(content)


@contextmanager
def _said_where() -> Iterator[None]:
    """Turns an `OSError` into an `EngineAway` whose message names this machine."""
    try:
        yield
    except OSError as error:
        raise EngineAway(f"the Spark executor on {socket.gethostname()}: {outage(error) or error}") from error


def _seen(batches: Iterator[pa.RecordBatch], *, order: Order) -> Iterator[pa.RecordBatch]:
    """The probe: one row per partition, with the name of a machine that can read the order and write beside it."""
    for _ in batches:
        pass
    with _said_where():
        order.read()
        write_atomically(beside := Path(order.path).with_name(f".{secrets.token_hex(8)}"), b"")
        beside.unlink()
    yield _row(0, socket.gethostname())


def _worked(
    batches: Iterator[pa.RecordBatch], *, order: Order, load: Callable[[Any], Work]
) -> Iterator[pa.RecordBatch]:
    """Processes the buckets at these indexes of the order's list."""
    for batch in batches:
        for place in batch.column(0).to_pylist():
            yield _row(place, json.dumps(_outcome(order, load, place)))


def _outcome(order: Order, load: Callable[[Any], Work], place: int) -> Any:
    """The result, possibly from an earlier attempt of the same task, or why no executor can produce one."""
    folder = Path(order.path).parent
    try:
        with _said_where():
            work, buckets = _opened(order, load)
            note = folder / f"{buckets[place]}.done"
            if note.exists():
                return json.loads(note.read_bytes())
            outcome = {"done": asdict(timed(work, buckets[place], _abandoned(Path(order.path))))}
    except Refusal as refusal:
        return {"refused": {"code": refusal.code.value, "message": refusal.message}}
    except Cancelled:
        return {"refused": None}
    with suppress(FileNotFoundError):  # The driver no longer waits, and has removed the folder.
        write_atomically(note, json.dumps(outcome).encode())
    return outcome


@lru_cache(2)
def _opened(order: Order, load: Callable[[Any], Work]) -> tuple[Work, list[int]]:
    value = order.read()
    return load(value["work"]), value["buckets"]


def _abandoned(path: Path) -> Stopped:
    """Returns a check whether the order was removed: its job was cancelled, or its gateway has stopped."""
    looked, gone = time.monotonic(), False

    def stopped() -> bool:
        nonlocal looked, gone
        if time.monotonic() - looked >= STILL_SECONDS:
            looked, gone = time.monotonic(), not path.exists()
        return gone

    return stopped


def _row(number: int, done: str) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"number": [number], "done": [done]}, _DONE_SCHEMA)


# ---------------------------------------------------------------- on the driver


@dataclass(slots=True)
class SparkEngine:
    """A cluster, given by the URL of its `master`: `local[2]`, `spark://…`, or `sc://…` for Spark Connect."""

    master: str
    lake: Lake
    parallel: int = 1
    _session: Any = None
    _doubted: bool = False
    """Whether a job failed, so that the server may no longer know the session."""
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> None:
        """Connects, and lets each core of the cluster read and write a file of the lake. Raises `InvalidSettings`."""
        try:
            self._connected()
        except EngineAway as away:
            raise InvalidSettings(f"SEGMENTATION_SPARK_MASTER={self.place}: {away}") from away

    @property
    def lazy(self) -> bool:
        return False

    @property
    def place(self) -> str:
        """The master's address, without the parameters after it, which may contain a token."""
        return self.master.partition(";")[0]

    def stop(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            with suppress(Exception):  # It may have ended long ago.
                session.stop()

    def problem(self) -> str | None:
        """What this machine lacks, or that the master does not answer; checked without starting a session."""
        return (missing(self.master) if self._session is None else None) or unreachable(self.master)

    def run(self, work: Work, buckets: Iterable[int], finished: Callable[[Done], None], cancelled: Stopped) -> None:
        """See `Engine`. Raises `EngineAway` if the cluster cannot do the work."""
        numbers = list(buckets)
        if not numbers:
            return
        session = self._connected()
        with work.lake.scratch() as folder:
            order = Order.written(folder / "order.json", {"work": work.as_json(), "buckets": numbers})
            function = partial(_worked, order=order, load=type(work).from_json)
            rows = session.range(0, len(numbers), 1, len(numbers)).mapInArrow(function, _DONE)
            waiting = set(numbers)
            try:
                with _collected(session, rows) as collecting:
                    while waiting:
                        if cancelled():
                            raise Cancelled
                        ended = collecting.wait(LOOK_SECONDS)
                        for outcome in collecting.outcomes() if ended else _noted(folder, waiting):
                            result = _done(outcome)
                            if result.bucket in waiting:
                                waiting.remove(result.bucket)
                                BUCKET_SECONDS.observe(result.seconds)
                                finished(result)
            except EngineAway:
                self._doubted = True
                raise

    def _connected(self) -> Any:
        with self._turn:
            if self._doubted and not self._answers():
                self.stop()
            self._doubted = False
            if self._session is None or not alive(self._session):
                if problem := self.problem():
                    raise EngineAway(problem)
                self._session, self.parallel = _within(START_SECONDS, self._opened_session)
            return self._session

    def _answers(self) -> bool:
        session = self._session
        try:
            _within(START_SECONDS, lambda: session.range(1).collect())
        except EngineAway:
            return False
        return True

    def _opened_session(self) -> tuple[Any, int]:
        session = open_session(self.master)
        path = self.lake.root / f".spark-{secrets.token_hex(8)}"
        try:
            order = Order.written(path, {})
            probed = session.range(_PROBED).mapInArrow(partial(_seen, order=order), _DONE).collect()
        except BaseException as error:
            with suppress(Exception):
                session.stop()
            raise _away(error) from error
        finally:
            path.unlink(missing_ok=True)
        hosts = sorted({row.done for row in probed})
        log.info("Spark at %s: %d parallel tasks on %s", self.place, len(probed), ", ".join(hosts))
        return session, len(probed)


def _noted(folder: Path, waiting: Collection[int]) -> list[Any]:
    names = {path.stem: path for path in folder.glob("[0-9]*.done")}
    return [json.loads(names[str(bucket)].read_bytes()) for bucket in list(waiting) if str(bucket) in names]


def _done(outcome: Any) -> Done:
    """The summary in an outcome. Raises the `Refusal` of an executor, and `EngineAway` if the order was removed."""
    if "done" in outcome:
        return Done(**outcome["done"])
    if (refused := outcome["refused"]) is None:
        raise EngineAway("the folder of the job's work was removed while executors worked")
    raise Refusal(ErrorCode(refused["code"]), refused["message"])


class _Collecting:
    """A Spark job, with a separate thread that waits for it."""

    def __init__(self, session: Any, rows: Any) -> None:
        self._tag = f"segmentation-{secrets.token_hex(8)}"
        self._session = session
        self._rows = rows
        self._answer: list[Any] = []
        self._error: BaseException | None = None
        self._ended = threading.Event()

    def collect(self) -> None:
        try:
            self._session.addTag(self._tag)
            self._answer = self._rows.collect()
        except BaseException as error:
            self._error = error
        finally:
            self._ended.set()

    def wait(self, seconds: float) -> bool:
        return self._ended.wait(seconds)

    def outcomes(self) -> list[Any]:
        """The outcomes of the tasks, after the job has ended. Raises `EngineAway` if it failed."""
        if self._error is not None:
            raise _away(self._error) from self._error
        return [json.loads(row.done) for row in self._answer]

    def interrupt(self) -> None:
        if not self._ended.is_set():
            with suppress(Exception):  # An unavailable cluster has nothing to interrupt.
                self._session.interruptTag(self._tag)


@contextmanager
def _collected(session: Any, rows: Any) -> Iterator[_Collecting]:
    """Runs the Spark job during the block; interrupts it after an error, or if it does not end soon after the block."""
    from pyspark import InheritableThread

    collecting = _Collecting(session, rows)
    thread = InheritableThread(target=collecting.collect, session=session, name="spark job", daemon=True)
    thread.start()
    try:
        yield collecting
        # All notes are written before the last task ends, and interrupting a task would end its Python process.
        collecting.wait(ENDING_SECONDS)
    finally:
        collecting.interrupt()


def _within(seconds: float, ask: Callable[[], Answer]) -> Answer:
    """The answer. Raises `EngineAway` for an error, and if there is no answer within this time: Spark itself would wait
    forever."""
    answer: list[Answer] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            answer.append(ask())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, name="spark start", daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise _away(errors[0]) from errors[0]
    if not answer:
        raise EngineAway(f"no executor answered within {seconds:.0f} seconds: see whether the cluster has free cores")
    return answer[0]


def _away(error: BaseException) -> EngineAway:
    """The error as a message: that of an `EngineAway` raised by an executor, otherwise the first line of Spark's."""
    if isinstance(error, EngineAway):
        return error
    text = str(error)
    if sentence := _SENTENCE.search(text):
        return EngineAway(sentence[1])
    log.warning("Spark failed", exc_info=error)
    first = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    return EngineAway(f"Spark gave up the work ({first[:300]}): see its logs and fix the cluster")

"""Errors caused by the caller, as values with a code and a path; a leaf that imports none of our modules."""

import errno
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum


class ErrorCode(StrEnum):
    """Why a request was rejected; the names are those of the API."""

    INVALID_INPUT = "INVALID_INPUT"
    INVALID_EXPRESSION = "INVALID_EXPRESSION"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    STALE_ETAG = "STALE_ETAG"
    HAS_DEPENDENTS = "HAS_DEPENDENTS"
    INVALID_STATE = "INVALID_STATE"
    NOT_ELIGIBLE = "NOT_ELIGIBLE"
    LIMIT_EXCEEDED = "LIMIT_EXCEEDED"
    FORBIDDEN = "FORBIDDEN"


class DiagnosticKind(StrEnum):
    """The kind of a mistake in a text of one of our languages."""

    SYNTAX = "SYNTAX"
    UNKNOWN_FIELD = "UNKNOWN_FIELD"
    UNKNOWN_FUNCTION = "UNKNOWN_FUNCTION"
    UNKNOWN_SEGMENT = "UNKNOWN_SEGMENT"
    ARGUMENT_COUNT = "ARGUMENT_COUNT"
    TYPE = "TYPE"
    LIMIT = "LIMIT"
    CYCLE = "CYCLE"
    DUPLICATE = "DUPLICATE"


class Severity(StrEnum):
    ERROR = "ERROR"
    WARNING = "WARNING"


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding in a text. `line` and `column` are 1-based and count characters; `length` covers the offending
    text."""

    kind: DiagnosticKind
    message: str
    line: int
    column: int
    length: int
    suggestions: tuple[str, ...] = ()
    severity: Severity = Severity.ERROR


@dataclass(frozen=True, slots=True)
class Limit:
    """An exceeded limit: its name (the setting's name, if there is one), the allowed value and the requested value."""

    name: str
    allowed: float
    value: float | None = None


class Refusal(Exception):
    """A rejected request. Nothing has changed when it is raised. `path` leads into the input, such as ("input",
    "definitionIds", "2"); it may be empty."""

    def __init__(self, code: ErrorCode, message: str, path: Sequence[str] = (), limit: Limit | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.path = tuple(path)
        self.limit = limit


class ExpressionRefused(Refusal):
    """An expression that does not parse or type-check; `diagnostics` locate the errors."""

    def __init__(self, diagnostics: Sequence[Diagnostic], path: Sequence[str] = ()) -> None:
        first = diagnostics[0]
        where = f"line {first.line}, column {first.column}: "
        more = f" (and {len(diagnostics) - 1} more)" if len(diagnostics) > 1 else ""
        super().__init__(ErrorCode.INVALID_EXPRESSION, where + first.message + more, path)
        self.diagnostics = tuple(diagnostics)


class StaleEtag(Refusal):
    """A write based on an outdated state; `current` is the current etag."""

    def __init__(self, current: str, path: Sequence[str] = ()) -> None:
        super().__init__(
            ErrorCode.STALE_ETAG,
            "the object has been changed since it was read: read it again and repeat the change",
            path,
        )
        self.current = current


class HasDependents(Refusal):
    """The object is still in use; `dependents` are (type name, raw id) pairs, and the message names them."""

    def __init__(self, message: str, dependents: Sequence[tuple[str, str]], path: Sequence[str] = ()) -> None:
        super().__init__(ErrorCode.HAS_DEPENDENTS, message, path)
        self.dependents = tuple(dependents)


class Refusals(Exception):
    """Several errors of one request, reported together."""

    def __init__(self, refusals: Sequence[Refusal]) -> None:
        super().__init__("; ".join(refusal.message for refusal in refusals))
        self.refusals = tuple(refusals)


def refuse_all(refusals: Sequence[Refusal]) -> None:
    """Raises `Refusals` if the list is not empty."""
    if refusals:
        raise Refusals(refusals)


class InvalidSettings(Exception):
    """Invalid settings; the message names each variable, its value and the problem."""


class InvalidDatabaseUrl(ValueError):
    """An invalid database URL; the message says what is wrong and shows a valid one."""


class MigrationRefused(Exception):
    """The database cannot be migrated to this program's schema version; the message says why and what to do."""


class DatabaseAway(ConnectionError):
    """No connection to the database is available at the moment."""


class LakeAway(ConnectionError):
    """The lake's folder is missing or has been replaced, or its object storage does not respond."""

    def __init__(
        self,
        message: str = "the data folder is missing, or is not the one used before: mount or restore the folder that "
        "SEGMENTATION_DATA_DIR names. Nothing was changed",
    ) -> None:
        super().__init__(message)


class EngineAway(ConnectionError):
    """The engine cannot evaluate jobs at the moment; the message says why and what to do."""


def outage(error: BaseException) -> str | None:
    """A message for errors caused by the disk or the data folder, with what to do; None for other errors. Libraries
    report the same problem with many exception types, so messages are matched as well as error numbers."""
    for cause in _causes(error):
        if isinstance(cause, LakeAway | EngineAway):
            return str(cause)
        if isinstance(cause, DatabaseAway):
            return None
        number = cause.errno if isinstance(cause, OSError) else None
        text = str(cause)
        for numbers, words, sentence in _OUTAGES:
            if number in numbers or any(word in text for word in words):
                return sentence
        if isinstance(cause, FileNotFoundError | NotADirectoryError):
            return (
                "a file or folder of the data folder is missing: check that it is mounted, and see what "
                "`segmentation doctor` says"
            )
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


_OUTAGES = (
    (
        {errno.ENOSPC, errno.EDQUOT},
        ("No space left on device", "database or disk is full", "Disk quota exceeded"),
        "the disk of the data folder or of the database is full, and nothing was changed: free space, and try again",
    ),
    (
        {errno.EROFS, errno.EACCES, errno.EPERM},
        ("Read-only file system", "attempt to write a readonly database", "Permission denied"),
        "the data folder cannot be written, and nothing was changed: mount it for writing and give this program the "
        "right to write there, and try again",
    ),
    (
        {errno.EIO, errno.ESTALE},
        ("disk I/O error", "Input/output error", "Stale file handle", "unable to open database file"),
        "the disk of the data folder does not work, or the folder is missing: check that it is mounted, and try again",
    ),
    (
        frozenset[int](),
        ("403 Forbidden", "401 Unauthorized", "the necessary privileges", "loading credentials"),
        "the object storage that SEGMENTATION_DATA_DIR names refuses access: give this program credentials "
        "(AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a role) that may list, read, write and delete there, and try "
        "again",
    ),
    (
        frozenset[int](),
        ("NoSuchBucket",),
        "the bucket that SEGMENTATION_DATA_DIR names does not exist: create it, or correct its name or the endpoint",
    ),
    (
        frozenset[int](),
        ("Error performing", "error sending request", "Generic S3 error"),
        "the object storage that SEGMENTATION_DATA_DIR names does not answer: check AWS_ENDPOINT_URL, the bucket and "
        "the network, and try again",
    ),
    (
        {errno.EMFILE, errno.ENFILE},
        ("Too many open files",),
        "this program may not open more files: raise its limit (`ulimit -n`), and try again",
    ),
    (
        frozenset[int](),
        ("database disk image is malformed", "file is not a database"),
        "the SQLite file is damaged: stop all processes and restore it from a copy",
    ),
)


class Unconfirmed(ConnectionError):
    """The rows of a batch are stored, but the database became unavailable before it confirmed the batch."""

    def __init__(self, batch_id: str) -> None:
        super().__init__(
            f"the rows of batch {batch_id} are stored, and the database stopped answering before it confirmed the "
            "batch: it will be ACTIVE soon after the database is back. Do not send the file again without the same "
            f"idempotency key; look at the batch {batch_id} first"
        )
        self.batch_id = batch_id

"""Tracks a definition's use of its budget; knows no operations."""

from app.engine.evaluate.columns import Array, Column, Interval, Map, Object, Text, Value
from app.engine.evaluate.failure import EvaluationError
from app.engine.limits.budget import Budget


class Spending:
    """A definition's use so far. Values that earlier definitions left for others do not count."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.held = 0
        self._before = 0
        self._until = budget.clock() + budget.seconds

    def begin(self) -> None:
        """Starts the next definition."""
        self._before = self.held
        self._until = self.budget.clock() + self.budget.seconds

    def hold(self, value: object) -> None:
        """Adds a value. Raises `EvaluationError` if the definition then exceeds its memory budget."""
        self.held += size_of(value)
        if self.held - self._before > self.budget.memory:
            raise EvaluationError(
                "LIMIT_EXCEEDED",
                f"it needs more than {self.budget.memory / 1e6:,.0f} MB of memory for one bucket: filter the arrays "
                "before combining them, or raise SEGMENTATION_DEFINITION_MEMORY",
            )

    def release(self, value: object) -> None:
        self.held -= size_of(value)

    def check(self) -> None:
        """Raises `EvaluationError` if the time budget is exceeded."""
        if self.budget.clock() > self._until:
            raise EvaluationError(
                "LIMIT_EXCEEDED",
                f"it takes more than {self.budget.seconds:g} seconds of processor time for one bucket: filter the "
                "events before pairing them, write a sequence as CHAIN(…), or raise SEGMENTATION_DEFINITION_SECONDS",
            )


def size_of(value: object) -> int:
    """The computed bytes: numbers, codes and indexes, without the columns that the value is a view of."""
    match value:
        case Column():
            return int(value.values.nbytes) + _bits(value)
        case Text():
            return int(value.codes.nbytes)
        case Interval():
            return int(value.start.nbytes + value.end.nbytes)
        case Object():
            return (0 if value.index is None else int(value.index.nbytes)) + _bits(value)
        case Array():
            return int(value.rows.parent.nbytes) + size_of(value.element) + _bits(value)
        case Map():
            return int(value.rows.parent.nbytes) + size_of(value.keys) + size_of(value.items) + _bits(value)
    return 0


def _bits(value: Value) -> int:
    return 0 if value.valid is None else int(value.valid.nbytes)

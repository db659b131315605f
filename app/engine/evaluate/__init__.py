"""Evaluates all definitions of a plan over one bucket, column by column; knows neither files nor jobs."""

import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from app.engine.evaluate.attempts import Attempts
from app.engine.evaluate.calendars import Instant
from app.engine.evaluate.columns import Array, Object, Rows, Value, spread
from app.engine.evaluate.failure import EvaluationError, dependency_failed
from app.engine.evaluate.kernels import KERNELS
from app.engine.evaluate.memo import Environment, Evaluation
from app.engine.evaluate.stored import table
from app.engine.evaluate.zones import in_zone_of
from app.engine.limits.budget import DEFAULT_BUDGET, Budget
from app.engine.limits.pool import Cancelled
from app.engine.plan.plan import Plan
from app.engine.store.bucket import Bucket
from app.errors import Refusal
from app.pql.core import Node
from app.pql.schema import EVENTS

__all__ = [
    "EvaluationError",
    "Result",
    "dependency_failed",
    "evaluate",
    "evaluate_values",
    "open_evaluation",
]

Answer = TypeVar("Answer")
Result = NDArray[np.bool_] | EvaluationError

_LOG = logging.getLogger(__name__)


def evaluate(
    plan: Plan,
    bucket: Bucket,
    *,
    now: datetime,
    member: Callable[[str], NDArray[np.bool_]],
    cancelled: Callable[[], bool],
    budget: Budget = DEFAULT_BUDGET,
    attempts: Attempts | None = None,
) -> dict[str, Result]:
    """Which rows of the bucket are in each segment (one boolean per row); for a definition that fails, the error.

    The calendar follows the time zone of `now`. `member(id)` returns the stored membership of a segment outside the
    plan, one boolean per row. `cancelled` is polled between nodes; `Cancelled` is raised once it returns true. The
    `budget` applies to each definition separately. `attempts` lists the definitions to skip, and receives the time of
    the others.
    """
    return evaluate_values(plan, bucket, now=now, member=member, cancelled=cancelled, budget=budget, attempts=attempts)[
        0
    ]


def evaluate_values(
    plan: Plan,
    bucket: Bucket,
    *,
    now: datetime,
    member: Callable[[str], NDArray[np.bool_]],
    cancelled: Callable[[], bool],
    budget: Budget = DEFAULT_BUDGET,
    attempts: Attempts | None = None,
) -> tuple[dict[str, Result], dict[str, Value | EvaluationError]]:
    """Like `evaluate`, and also the plan's values, with one entry per row of the bucket."""
    attempts = attempts or Attempts()
    results: dict[str, Result] = dict(attempts.failed)
    values: dict[str, Value | EvaluationError] = {}

    def membership(id: str) -> NDArray[np.bool_]:
        if id not in plan.conditions:
            return member(id)
        result = results[id]
        if isinstance(result, EvaluationError):
            raise dependency_failed(id, result)
        return result

    evaluation = open_evaluation(
        bucket, now=now, member=membership, cancelled=cancelled, users=plan.users, budget=budget
    )
    with in_zone_of(now), np.errstate(all="ignore"):  # out-of-range results become null
        for id in plan.order:
            if id in attempts.failed:
                continue
            evaluation.spending.begin()
            with attempts.timed(id):
                results[id] = _attempt(id, partial(_mask, evaluation, plan.conditions[id]))
            evaluation.drop(plan.last_users[id])
        for id, node in plan.values.items():
            evaluation.spending.begin()
            values[id] = _attempt(id, partial(_value, evaluation, node))
            evaluation.drop(plan.last_users[id])
    return results, values


def open_evaluation(
    bucket: Bucket,
    *,
    now: datetime,
    member: Callable[[str], NDArray[np.bool_]],
    cancelled: Callable[[], bool],
    users: Mapping[Node, int] | None = None,
    budget: Budget = DEFAULT_BUDGET,
) -> Evaluation:
    """The evaluation of a bucket. Without `users` it keeps every value, for callers that inspect them afterwards."""
    n, events = bucket.profiles.num_rows, bucket.events
    happened = Array(
        Rows(n, bucket.event_rows.astype(np.intp)),
        Object(table(events, len(bucket.event_rows)), len(bucket.event_rows)),
    )
    return Evaluation(
        KERNELS,
        table(bucket.profiles, n, {EVENTS: happened}),
        n,
        Environment(Instant.of(now), member, cancelled),
        users=users,
        budget=budget,
    )


def _mask(evaluation: Evaluation, node: Node) -> NDArray[np.bool_]:
    return evaluation.mask(node, evaluation.root).copy()


def _value(evaluation: Evaluation, node: Node) -> Value:
    return spread(evaluation.operand(node, evaluation.root), evaluation.root.n)


def _attempt(id: str, work: Callable[[], Answer]) -> Answer | EvaluationError:
    try:
        return work()
    except Cancelled:
        raise
    except EvaluationError as failure:
        return failure
    except Refusal as refusal:  # of a referenced stored membership
        return EvaluationError(refusal.code.value, refusal.message)
    except RecursionError:
        return EvaluationError("LIMIT_EXCEEDED", "the expression nests quantifiers too deeply to be evaluated")
    except MemoryError:
        return EvaluationError("OUT_OF_MEMORY", "the evaluation needs more memory than is available")
    except Exception:
        _LOG.exception("definition %s could not be evaluated", id)
        return EvaluationError("INTERNAL", "the evaluation failed; the log has the details under the definition's id")

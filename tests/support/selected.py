"""The people of a `Sandbox` whom an expression matches: through its merged view and the engine, without jobs."""

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from app.engine.evaluate import evaluate
from app.engine.people.merging import PROFILE
from app.engine.people.snapshot import Snapshot, open_snapshot
from app.engine.people.sources import Dataset, MergeRule
from app.engine.plan.plan import Plan
from app.engine.store.bucket import Needs
from app.pql.check.checker import check
from tests.support.sandbox import Sandbox

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
RULE = MergeRule("default", "TIMESTAMP_ORDERED")


def selected(sandbox: Sandbox, expression: str) -> list[str]:
    """Their ids, sorted; data are in the datasets `p` (of profiles) and `e` (of events)."""
    return selected_of(open_snapshot(sandbox.lake, RULE, [Dataset("p", "PROFILE"), Dataset("e", "EVENT")]), expression)


def selected_of(snapshot: Snapshot, expression: str) -> list[str]:
    """The same of a snapshot of any datasets."""
    checked = check(expression, snapshot.schema, segments=frozenset())
    assert checked.condition is not None, checked.diagnostics
    plan = Plan({"it": checked.condition})
    ids = []
    for number in snapshot.buckets:
        needs = Needs(plan.needs.profile | {(PROFILE,)}, plan.needs.event, plan.needs.events)
        bucket = snapshot.read(number, needs)
        result = evaluate(
            plan,
            bucket,
            now=NOW,
            member=_nobody,
            cancelled=lambda: False,
        )["it"]
        assert isinstance(result, np.ndarray), result
        ids += bucket.profiles[PROFILE].filter(pa.array(result)).to_pylist()
    return sorted(id.partition(":")[2] for id in ids)


def _nobody(segment: str) -> NDArray[np.bool_]:
    raise LookupError(segment)

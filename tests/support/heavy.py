"""One person with very many events, and expressions that would be slow if they were evaluated naively."""

# ruff: noqa: E501 (expressions)

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from app.engine.evaluate import EvaluationError, evaluate
from app.engine.plan.plan import Plan
from app.engine.store.bucket import Bucket
from app.pql.check.checker import check
from app.pql.schema import ObjectType, Scalar, profile_schema

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
SCHEMA = profile_schema(
    ObjectType({"income": Scalar.NUMBER, "name": Scalar.STRING}),
    ObjectType({"timestamp": Scalar.TIMESTAMP, "kind": Scalar.STRING, "total": Scalar.NUMBER}),
)
KINDS = "abcd"
STEPS = 10


def busy(events: int) -> Bucket:
    """An event a minute up to now; kinds in turn, totals from 0 to 96."""
    minute, last = 60_000_000, int(NOW.timestamp()) * 1_000_000
    happened = pa.table(
        {
            "timestamp": pa.array(last - np.arange(events, 0, -1) * minute, pa.timestamp("us", tz="UTC")),
            "kind": pa.array([KINDS[at % 4] for at in range(events)]).dictionary_encode(),
            "total": pa.array(np.arange(events) % 97 * 1.0),
        }
    )
    people = pa.table({"income": pa.array([1.0]), "name": pa.array(["a" * 50_000 + "b"])})
    return Bucket(0, np.zeros(1, np.uint32), people, happened, np.zeros(events, np.int32))


def matches(bucket: Bucket, expression: str) -> bool:
    checked = check(expression, SCHEMA, segments=())
    assert checked.condition is not None, checked.diagnostics
    plan = Plan({"it": checked.condition})
    found = evaluate(plan, bucket, now=NOW, member=lambda segment: np.zeros(1, np.bool_), cancelled=lambda: False)["it"]
    assert not isinstance(found, EvaluationError), found
    return bool(found[0])


def chain(*whens: str) -> str:
    """Ten steps of kinds in turn, each with the next WHEN of `whens` over and over; `PREV` is the step before."""
    steps = []
    for at in range(STEPS):
        when = f" WHEN({whens[at % len(whens)].replace('PREV', f'C{at - 1}')})" if at else ""
        steps.append(f'C{at}: WHAT(kind = "{KINDS[at % 4]}"){when}')
    return f"CHAIN(xEvent, timestamp, [{', '.join(steps)}])"


CHAINS = {
    "each after the one before": (chain("<= 7 days after PREV"), True),
    "each soon after the first": (chain("<= 9 minutes after C0"), True),
    "too soon after the first": (chain("<= 8 minutes after C0"), False),
    "both, in reach": (chain("<= 5 minutes after PREV", "<= 9 minutes after C0"), True),
    "both, out of reach": (chain("<= 5 minutes after PREV", "<= 8 minutes after C0"), False),
    "both, in wide windows": (chain("<= 9 days after PREV", "<= 9 days after C0"), True),
    "both, in wide windows, never": (chain("> 30 minutes after PREV", "<= 29 minutes after C0"), False),
    "at least and at most": (chain(">= 3 hours after PREV", "<= 12 hours after C0"), False),
}
PAIRS = {
    "compared": ("exists A from xEvent where A.kind = \"a\" and (exists B from xEvent where B.total > A.total + 96)", False),
    "compared in time": ("exists A from xEvent where exists B from xEvent where B.timestamp > A.timestamp and B.total = 96", True),
    "equal": ("exists A from xEvent where A.total = 3 and (exists B from xEvent where B.total = A.total + 96)", False),
}  # fmt: skip
NESTED = " ".join(f"let N{at} = {f'N{at - 1}' if at else 'income'} + 1 in" for at in range(100)) + " N99 = 101"
MANY = " and ".join(
    f'(income = {at} or not (xEvent[total = {at}].count() > 3 and name = "x{at}"))' for at in range(250)
)
PATHOLOGICAL = 'name.matches("^(a|aa|a*)*$") or name.matches("(x+x+)+y") or name like "%a%a%a%a%a%a%a%c"'

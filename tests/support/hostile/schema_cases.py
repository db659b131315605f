"""Schemathesis against a real server: operations that are valid by the schema, with any values that it allows.

`python -m tests.support.hostile.schema_cases 10000` sends 10,000 and prints what came back; `--seed` chooses others.
"""

import argparse
import time
import warnings
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis.core.result import Ok
from schemathesis.graphql import nodes

from tests.support.hostile.server import Target, target


def register_scalars() -> None:
    """How values of the schema's own scalars look."""
    times = st.datetimes().map(lambda moment: nodes.String(moment.isoformat() + "Z"))
    schemathesis.graphql.scalar("DateTime", times | st.text(max_size=30).map(nodes.String))
    schemathesis.graphql.scalar("BigInt", st.integers(-(2**63), 2**63 - 1).map(nodes.Int))
    schemathesis.graphql.scalar("JSON", st.text(max_size=30).map(nodes.String) | st.integers(-9, 9).map(nodes.Int))
    schemathesis.graphql.scalar("Upload", st.just(nodes.Null))


def send_cases(server: Target, cases: int, number: int) -> int:
    """Sends about as many cases, spread over all root fields; returns how many were sent."""
    register_scalars()
    schema = schemathesis.graphql.from_url(f"{server.url}/graphql")
    operations = [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]
    operations = [operation for operation in operations if not operation.label.startswith("Subscription.")]
    sent = 0
    for position, operation in enumerate(operations):
        share = cases // len(operations) + (position < cases % len(operations))
        if share:
            sent += _send(server, operation, share, number)
    return sent


def _send(server: Target, operation: Any, cases: int, number: int) -> int:
    sent = 0

    @seed(number)
    @settings(
        max_examples=cases,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def send(case: Any) -> None:
        nonlocal sent
        sent += 1
        began = time.perf_counter()
        response = server.http.post("/graphql", json={"query": str(case.body)})
        server.judge(f"{case.body}", response.status_code, response.text, time.perf_counter() - began)

    send()
    return sent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", type=int, nargs="?", default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    with target() as server:
        began = time.perf_counter()
        sent = send_cases(server, arguments.cases, arguments.seed)
        print(f"{sent:,} cases of schemathesis in {time.perf_counter() - began:.0f} s")
        return server.end()


if __name__ == "__main__":
    raise SystemExit(main())

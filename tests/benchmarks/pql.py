"""How long the language takes: `python -m tests.benchmarks.pql`. Prints milliseconds of processor time (other
work on the machine does not count); asserts nothing about them.

4,000 typical definitions parsed, checked and planned; completion on a profile of 2,000 fields; one person with 100,000
events under chains and nested quantifiers.
"""

# ruff: noqa: E501 (expressions)

import gc
import resource
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

from app.engine.plan.plan import Plan
from app.pql.check.checker import check
from app.pql.core import Builder
from app.pql.editor.completion import complete
from app.pql.schema import ArrayType, ObjectType, Scalar, Type, profile_schema
from app.pql.syntax.parser import parse
from tests.support.heavy import CHAINS, MANY, NESTED, PAIRS, busy, matches

DEFINITIONS = 4_000
EVENTS = 100_000
COUNTRIES = ("US", "CA", "DE", "FR", "GB", "JP")
KINDS = ("view", "cart", "purchase", "return")

TYPICAL: tuple[Callable[[Random], str], ...] = (
    lambda r: f'homeAddress.country = "{r.choice(COUNTRIES)}" and loyalty.points > {r.randrange(900)}',
    lambda r: f'person.birthDate occurs >= {r.randrange(18, 70)} years before today and not consents.email.equals("n")',
    lambda r: f'xEvent[eventType = "{r.choice(KINDS)}" and timestamp occurs <= {r.randrange(1, 90)} days before now].count() >= {r.randrange(1, 9)}',
    lambda r: f'select E from xEvent where E.eventType = "{r.choice(KINDS)}" and E.commerce.total > {r.randrange(500)}',
    lambda r: f'exists E from xEvent where E.timestamp occurs <= {r.randrange(1, 30)} days before now and '
    f'(exists I from E.items where I.sku.startsWith("{r.randrange(99)}") and I.price >= {r.randrange(90)})',
    lambda r: f'CHAIN(xEvent, timestamp, [C0: WHAT(eventType = "cart"), C1: WHAT(eventType = "purchase" and commerce.total > {r.randrange(300)}) WHEN(<= {r.randrange(1, 9)} days after C0)])',
    lambda r: f"let Spent = xEvent.sum(commerce.total) in Spent > {r.randrange(5_000)} and Spent / xEvent.count() < {r.randrange(1, 90)}",
    lambda r: f'homeAddress.city in ["{r.randrange(99)}", "{r.randrange(99)}"] or inSegment("s{r.randrange(50)}") and loyalty.tier.contains("gold", false)',
)  # fmt: skip


def profile(fields: int = 0) -> ObjectType:
    """A usual profile, and `fields` more in objects of fifty."""
    item = ObjectType({"sku": Scalar.STRING, "price": Scalar.NUMBER})
    usual: dict[str, Type] = {
        "homeAddress": ObjectType({"country": Scalar.STRING, "city": Scalar.STRING}),
        "person": ObjectType({"birthDate": Scalar.DATE}),
        "consents": ObjectType({"email": Scalar.STRING}),
        "loyalty": ObjectType({"points": Scalar.NUMBER, "tier": Scalar.STRING}),
    }
    for group in range(fields // 50):
        usual[f"group{group}"] = ObjectType({f"field{group}x{at}": Scalar.STRING for at in range(50)})
    event: dict[str, Type] = {"timestamp": Scalar.TIMESTAMP, "eventType": Scalar.STRING, "items": ArrayType(item)}
    return profile_schema(ObjectType(usual), ObjectType({**event, "commerce": ObjectType({"total": Scalar.NUMBER})}))


def milliseconds(work: Callable[[], Any]) -> float:
    start = time.process_time()
    work()
    return (time.process_time() - start) * 1000


def planning() -> None:
    random = Random(1)
    texts = [TYPICAL[at % len(TYPICAL)](random) for at in range(DEFINITIONS)]
    schema, segments, builder = profile(), {f"s{at}" for at in range(50)}, Builder()
    conditions: dict[str, Any] = {}

    def checked() -> None:
        for at, text in enumerate(texts):
            found = check(text, schema, segments=segments, builder=builder)
            assert found.condition is not None, (text, found.diagnostics)
            conditions[str(at)] = found.condition

    steps = {
        "parse": milliseconds(lambda: [parse(text) for text in texts]),
        "parse, check and print": milliseconds(checked),
        "plan, all together": milliseconds(lambda: Plan(conditions)),
    }
    print(f"{DEFINITIONS:,} definitions, {sum(map(len, texts)) // DEFINITIONS} characters each on average")
    for name, took in steps.items():
        print(f"  {name:<28}{took / DEFINITIONS:8.3f} ms each")
    total = steps["parse, check and print"] + steps["plan, all together"]
    print(f"  {'from text to plan':<28}{total / DEFINITIONS:8.3f} ms each")
    big = {"500 conditions": MANY.replace("total", "commerce.total").replace("income", "loyalty.points").replace("name", "loyalty.tier"),
           "100 nested let": NESTED.replace("income", "loyalty.points")}  # fmt: skip
    for name, text in big.items():
        took = statistics.median(milliseconds(partial(check, text, schema, segments=())) for _ in range(5))
        print(f"  {name:<28}{took:8.1f} ms to parse, check and print")


def completion() -> None:
    schema = profile(2_000)
    places = (
        "|", "fie|", "group7.|", "xEvent[|", "xEvent.items.|", "exists E from xEvent where E.|",
        'homeAddress.country = "US" and (loyalty.points > 5 or field12x|', "CHAIN(xEvent, timestamp, [C0: WHAT(event|",
        "xEvent.exists(items.exists(^^|", "let Spent = xEvent.sum(commerce.total) in Sp|",
    )  # fmt: skip
    print("completion on 2,000 fields")
    # As a started server does.
    gc.collect()
    gc.freeze()
    for place in places:
        at = place.index("|")
        took = sorted(milliseconds(partial(complete, place[:-1], at, schema, segments={})) for _ in range(50))
        print(f"  {place:<66}{took[25]:7.2f} ms median {took[-1]:7.2f} ms worst of 50")


def sizes() -> None:
    bucket = busy(EVENTS)
    half = busy(EVENTS // 2)
    print(f"one person with {EVENTS:,} events (and with half as many)")
    for name, (expression, expected) in {**{f"CHAIN of 10, {name}": case for name, case in CHAINS.items()},
                                         **{f"two quantifiers, {name}": case for name, case in PAIRS.items()}}.items():  # fmt: skip
        assert matches(half, expression) is expected
        before, took = (milliseconds(partial(matches, it, expression)) for it in (half, bucket))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
        print(f"  {name:<40}{took:9.1f} ms ({before:8.1f} ms)  {peak:5.0f} MB at most until now")


if __name__ == "__main__":
    planning()
    completion()
    sizes()

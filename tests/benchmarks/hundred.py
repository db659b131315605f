"""The hundred definitions of the benchmarks, each in PQL and as a good query in SQL; knows no engine.

40 ask for attributes, 40 for counts, sums and absence in a window of time, 10 for two steps within 7 days, and 10
refer to others. The SQL gives the ids (`who`) over `profiles p` and `events e`, with `$now` for the instant.
"""

from collections.abc import Iterator
from dataclasses import dataclass

KINDS = ("view", "search", "cart", "purchase", "login", "email.open", "email.click", "return")
COUNTRIES = ("DE", "FR", "GB", "US", "JP", "BR", "IN", "ES", "IT", "NL")
_IN_WINDOW = "e.eventType = '{}' AND e.timestamp >= $now - INTERVAL {} DAY AND e.timestamp <= $now"
_WITHIN = 'eventType = "{}" and timestamp occurs <= {} days before now'


@dataclass(frozen=True, slots=True)
class Example:
    """`others` are the numbers of the examples that the texts call `{0}` and `{1}`: an id in PQL, a query in SQL."""

    pql: str
    sql: str
    others: tuple[int, ...] = ()


def examples() -> list[Example]:
    return [*_attributes(), *_windows(), *_sequences(), *_references()]


def _attributes() -> Iterator[Example]:
    for country in COUNTRIES:
        yield _person(f'homeAddress.country = "{country}"', f"p.homeAddress.country = '{country}'")
    for points in range(1_000, 9_001, 1_000):
        yield _person(f"loyalty.points > {points}", f"p.loyalty.points > {points}")
    for year in range(1946, 2000, 6):
        yield _person(f"person.birthDate < date({year}, 1, 1)", f"p.person.birthDate < DATE '{year}-01-01'")
    for tier in ("bronze", "silver", "gold", "platinum"):
        for letter in ("a", "m"):
            yield _person(
                f'loyalty.tier = "{tier}" and person.name.firstName.startsWith("{letter}", false)',
                f"p.loyalty.tier = '{tier}' AND starts_with(lower(p.person.name.firstName), '{letter}')",
            )
    for country in COUNTRIES[:4]:
        yield _person(
            f'newsletter and homeAddress.country != "{country}"',
            f"p.newsletter AND p.homeAddress.country <> '{country}'",
        )


def _person(pql: str, where: str) -> Example:
    return Example(pql, f"SELECT p.who FROM profiles p WHERE {where}")


def _windows() -> Iterator[Example]:
    for kind in KINDS:
        for days, least in ((30, 2), (180, 5)):
            yield Example(
                f"xEvent[{_WITHIN.format(kind, days)}].count() >= {least}",
                _grouped(_IN_WINDOW.format(kind, days), f"count(*) >= {least}"),
            )
    for days, amount in zip((7, 14, 21, 30, 45, 60, 75, 90, 120, 180, 270, 365), range(60, 300, 20), strict=True):
        yield Example(
            f"xEvent[{_WITHIN.format('purchase', days)}].sum(commerce.order.priceTotal) > {amount}",
            _grouped(_IN_WINDOW.format("purchase", days), f"sum(e.commerce.order.priceTotal) > {amount}"),
        )
    for kind in ("view", "cart", "purchase"):
        for days in (7, 30, 90, 180):
            yield Example(
                f"not (exists E from xEvent where E.{_WITHIN.format(kind, days).replace('timestamp', 'E.timestamp')})",
                f"SELECT p.who FROM profiles p WHERE p.who NOT IN ({_grouped(_IN_WINDOW.format(kind, days), 'true')})",
            )


def _grouped(where: str, having: str) -> str:
    return f"SELECT e.who FROM events e WHERE {where} GROUP BY e.who HAVING {having}"


def _sequences() -> Iterator[Example]:
    for first, second in (
        *((kind, "purchase") for kind in ("view", "search", "cart", "login", "email.open")),
        *((kind, "cart") for kind in ("view", "search", "login")),
        ("purchase", "return"),
        ("email.open", "email.click"),
    ):
        yield Example(
            f'CHAIN(xEvent, timestamp, [A: WHAT(eventType = "{first}"), B: WHAT(eventType = "{second}") '
            "WHEN(<= 7 days after A)])",
            f"""SELECT DISTINCT b.who FROM (SELECT who, timestamp FROM events WHERE eventType = '{second}') b
                ASOF JOIN (SELECT who, timestamp FROM events WHERE eventType = '{first}') a
                ON a.who = b.who AND a.timestamp < b.timestamp WHERE b.timestamp <= a.timestamp + INTERVAL 7 DAY""",
        )


def _references() -> Iterator[Example]:
    for at in range(5):
        yield Example(
            'inSegment("{0}") and inSegment("{1}")', "SELECT * FROM ({0}) INTERSECT SELECT * FROM ({1})", (at, 40 + at)
        )
        yield Example(
            'inSegment("{0}") and not inSegment("{1}")',
            "SELECT * FROM ({0}) EXCEPT SELECT * FROM ({1})",
            (80 + at, 10 + at),
        )

"""The profiles of a sandbox, or of an audience, that an expression holds for, in the order of another one's value."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from app.engine.insight.ranking import Place, Ranking, in_place_order
from app.engine.insight.scan import Answers, Buckets, Scan
from app.engine.limits.pool import Stopped
from app.engine.members.membership import Ordinals
from app.engine.people.profiles import Key
from app.pql.schema import Scalar, Type
from app.services.insight.population import Population, in_thread
from app.services.lists.paging import (
    PageRequest,
    Slice,
    decode_cursor,
    decode_person,
    encode_cursor,
    not_a_cursor,
    slice_of,
)
from app.services.people.members import Who

_WHERE, _VALUE = "where", "value"
_IN_PLACE = "PROFILE"
_LARGEST_PLACE = 1 << 32
_KEPT_AS: Mapping[Type, tuple[type, ...]] = {
    Scalar.NUMBER: (int, float),
    Scalar.STRING: (str,),
    Scalar.BOOLEAN: (bool,),
    Scalar.DATE: (int,),
    Scalar.TIMESTAMP: (int,),
}
"""How cursors keep values, by the type of the expression."""


@dataclass(frozen=True, slots=True)
class ProfileOrder:
    """By the value of `expression`; profiles without one come last."""

    expression: str
    descending: bool = False

    @property
    def name(self) -> str:
        """What cursors are marked with: one of another expression is refused."""
        digest = hashlib.blake2b(self.expression.encode(), digest_size=6).hexdigest()
        return f"{digest} {'DESC' if self.descending else 'ASC'}"


async def page(
    population: Population, request: PageRequest, where: str | None, order: ProfileOrder | None, threads: int
) -> Slice[Who]:
    """Profiles that `where` holds for (all unless given), by bucket and ordinal unless `order` says otherwise.

    Without an order buckets are read until the page is full; with one every bucket is. Raises `Refusal`.
    """
    if order is None:
        return await _in_place(population, request, where)
    return await _by_value(population, request, where, order, threads)


async def count(population: Population, where: str | None) -> int:
    """Raises `Refusal`."""
    if where is None:
        return population.snapshot.total_profiles
    scan = _scan(population, where)

    def work(stopped: Stopped) -> int:
        return sum(len(scan.bucket(number, stopped).members[_WHERE]) for number in scan.buckets)

    return await in_thread(work)


def _scan(population: Population, where: str | None, order: ProfileOrder | None = None) -> Scan:
    conditions = {} if where is None else {_WHERE: population.condition(where, ("where",))}
    values = {} if order is None else {_VALUE: population.value(order.expression, ("order_by", "expression"))}
    return population.scan(conditions, values)


async def _in_place(population: Population, request: PageRequest, where: str | None) -> Slice[Who]:
    scan = _scan(population, where)

    def chosen(answers: Answers) -> Ordinals:
        return answers.present if where is None else answers.members[_WHERE]

    return await page_in_place(population, scan, chosen, request)


async def page_in_place(
    population: Population, scan: Buckets, chosen: Callable[[Answers], Ordinals], request: PageRequest
) -> Slice[Who]:
    """The profiles `chosen` of each bucket, by bucket and ordinal: buckets are read until the page is full."""
    after = decode_person(_IN_PLACE, request)

    def work(stopped: Stopped) -> list[Key]:
        return list(islice(in_place_order(scan, chosen, stopped, after, request.backward), request.limit + 1))

    keys = await in_thread(work)
    items = {encode_cursor(_IN_PLACE, key): Who(population.policy, *key) for key in keys[: request.limit]}
    return slice_of(items, request, has_next=len(keys) > request.limit, behind=after is not None)


async def _by_value(
    population: Population, request: PageRequest, where: str | None, order: ProfileOrder, threads: int
) -> Slice[Who]:
    scan = _scan(population, where, order)
    ranking = Ranking(scan, _VALUE, None if where is None else _WHERE, order.descending)
    after = _place(request, order, scan.plan.values[_VALUE].type)

    def work(stopped: Stopped) -> list[Place]:
        return ranking.page(request.limit + 1, after, request.backward, threads=threads, stopped=stopped)

    places = await in_thread(work)
    items = {
        encode_cursor(order.name, (place.value, place.bucket, place.ordinal)): Who(
            population.policy, place.bucket, place.ordinal
        )
        for place in places[: request.limit]
    }
    return slice_of(items, request, has_next=len(places) > request.limit, behind=after is not None)


# ---------------------------------------------------------------- cursors


def _place(request: PageRequest, order: ProfileOrder, type_: Type) -> Place | None:
    if request.cursor is None:
        return None
    place = decode_cursor(order.name, request.cursor, request.argument)
    if len(place) != 3 or not _is_place(place[1:]) or type(place[0]) not in (type(None), *_KEPT_AS.get(type_, ())):
        raise not_a_cursor(request)
    return Place(place[0], int(place[1]), int(place[2]), order.descending)


def _is_place(values: Sequence[object]) -> bool:
    return all(type(value) is int and 0 <= value < _LARGEST_PLACE for value in values)

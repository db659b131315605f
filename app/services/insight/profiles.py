"""The profiles of a sandbox or audience that match an expression, optionally ordered by another one's value."""

import asyncio
import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import islice

from app.engine.insight.ranking import Place, Ranking, in_place_order
from app.engine.insight.scan import Answers, Buckets, Selecting
from app.engine.limits.pool import Stopped
from app.engine.members.membership import Ordinals
from app.engine.members.regraph import MembershipSource
from app.engine.people.profiles import Key
from app.engine.plan.plan import Plan
from app.pql.schema import Scalar, Type
from app.services.evaluation.heads import Heads
from app.services.insight.population import Population, in_thread
from app.services.lists.paging import (
    PageRequest,
    Slice,
    decode_cursor,
    decode_person,
    encode_cursor,
    is_person,
    not_a_cursor,
    slice_of,
)
from app.services.people.members import Member, Who, membership_standing

CHOSEN, VALUE = "chosen", "value"
_IN_PLACE = "PROFILE"
_KEPT_AS: Mapping[Type, tuple[type, ...]] = {
    Scalar.NUMBER: (int, float),
    Scalar.STRING: (str,),
    Scalar.BOOLEAN: (bool,),
    Scalar.DATE: (int,),
    Scalar.TIMESTAMP: (int,),
}
"""How cursors encode values, by the type of the expression."""


@dataclass(frozen=True, slots=True)
class ProfileOrder:
    """Orders by the value of `expression`; profiles without a value come last."""

    expression: str
    descending: bool = False

    @property
    def name(self) -> str:
        """The name stored in cursors, so that those of another expression are rejected."""
        digest = hashlib.blake2b(self.expression.encode(), digest_size=6).hexdigest()
        return f"{digest} {'DESC' if self.descending else 'ASC'}"


@dataclass(frozen=True, slots=True)
class Among:
    """The members of an audience with some statuses: currently, or as of `heads`."""

    audience: str
    statuses: Collection[str]
    heads: Heads | None = None

    def stored(self, population: Population) -> MembershipSource:
        return population.stored([self.audience], self.heads)


async def page(
    population: Population,
    request: PageRequest,
    where: str | None,
    order: ProfileOrder | None,
    threads: int,
    among: Among | None = None,
) -> Slice[Who]:
    """Profiles that match `where` (all if omitted), by bucket and ordinal unless `order` is given.

    Without an order, buckets are read until the page is full; with one, all buckets are read. Raises `Refusal`.
    """
    selection = await asyncio.to_thread(select, population, where, order, among)
    narrowed = where is not None or among is not None
    if order is None:
        return await page_in_place(population, selection.buckets, _chosen if narrowed else _everybody, request)
    ranking = Ranking(selection.buckets, VALUE, CHOSEN if narrowed else None, order.descending)
    after = _place(request, order, selection.plan.values[VALUE].type)

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


async def count(population: Population, where: str | None, among: Among | None = None) -> int:
    """Raises `Refusal`."""
    if where is None and among is None:
        return population.snapshot.total_profiles
    buckets = (await asyncio.to_thread(select, population, where, None, among)).buckets

    def work(stopped: Stopped) -> int:
        return sum(len(_chosen(buckets.bucket(number, stopped))) for number in buckets.buckets)

    return await in_thread(work)


async def members_of(population: Population, people: Slice[Who], among: Among) -> Slice[Member]:
    """A page of an audience's members with their statuses; reads each bucket of the page once."""
    audience = among.audience

    def read() -> list[Member]:
        stored = among.stored(population)
        memberships = {bucket: stored.read(bucket)[audience] for bucket in {who.bucket for who in people.items}}
        return [
            Member(who, audience, *membership_standing(memberships[who.bucket], who.ordinal)) for who in people.items
        ]

    members = await asyncio.to_thread(read)
    return Slice(members, people.cursors, people.has_next, people.has_previous)


@dataclass(frozen=True, slots=True)
class Selection:
    """Buckets whose set `CHOSEN` are the requested profiles, with `VALUE` if there is an order."""

    buckets: Buckets
    plan: Plan


def select(population: Population, where: str | None, order: ProfileOrder | None, among: Among | None) -> Selection:
    """May read the membership files of all buckets. Raises `Refusal`."""
    conditions = {} if where is None else {CHOSEN: population.condition(where, ("where",))}
    values = {} if order is None else {VALUE: population.value(order.expression, ("order_by", "expression"))}
    scan = population.scan(conditions, values)
    if among is None:
        return Selection(scan, scan.plan)
    selecting = Selecting(scan, CHOSEN, among.audience, among.statuses, among.stored(population))
    return Selection(selecting, scan.plan)


def _chosen(answers: Answers) -> Ordinals:
    return answers.members[CHOSEN]


def _everybody(answers: Answers) -> Ordinals:
    return answers.present


async def page_in_place(
    population: Population, scan: Buckets, chosen: Callable[[Answers], Ordinals], request: PageRequest
) -> Slice[Who]:
    """The profiles `chosen` of each bucket, by bucket and ordinal: reads buckets until the page is full."""
    after = decode_person(_IN_PLACE, request)

    def work(stopped: Stopped) -> list[Key]:
        return list(islice(in_place_order(scan, chosen, stopped, after, request.backward), request.limit + 1))

    keys = await in_thread(work)
    items = {encode_cursor(_IN_PLACE, key): Who(population.policy, *key) for key in keys[: request.limit]}
    return slice_of(items, request, has_next=len(keys) > request.limit, behind=after is not None)


# ---------------------------------------------------------------- cursors


def _place(request: PageRequest, order: ProfileOrder, type_: Type) -> Place | None:
    if request.cursor is None:
        return None
    place = decode_cursor(order.name, request.cursor, request.argument)
    if not is_person(place[1:]) or type(place[0]) not in (type(None), *_KEPT_AS.get(type_, ())):
        raise not_a_cursor(request)
    return Place(place[0], int(place[1]), int(place[2]), order.descending)

"""Reads relations for all objects of a level at once, and writes their rows without creating an object for each.

A field with a `Relation` is not resolved for each object: the keys of all objects are collected, all relations of the
level are read together, and their rows become the next level. A connection has no object of its own: its fields are
completed with the page, so that its nodes are on the next level.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from graphql import GraphQLObjectType

from app.api.context.batching import Loader, Page, PageLoader
from app.api.execution.from_row import is_plain, reader
from app.api.execution.places import At, Group
from app.api.execution.plan import FieldPlan, Selection, Shape
from app.api.execution.relation import EMPTY, AnyMany, AnyOne, AnySlice, Make, One, Relation, needs_page

PART: Final = 500
"""Number of objects whose fields are completed before other requests may run."""

_Complete: TypeAlias = Callable[[int, Hashable], None]
"""Completes the field of one object, by its number in the group and its key."""
_Part: TypeAlias = Callable[[AnySlice, object, dict[str, object], At], None]
"""Writes one field of a connection: its page, its count, the connection's response, and the place of that."""


class Execution(Protocol):
    """The execution of a plan."""

    async def pause(self, work: int) -> None: ...

    def selected(self, field: FieldPlan, type_: GraphQLObjectType) -> Selection: ...

    def group_of(self, selection: Selection) -> Group: ...

    def complete(self, shape: Shape, field: FieldPlan, value: object, at: At) -> None: ...


class _Read(NamedTuple):
    """One read: of the keys of a loader, or of parents with the same arguments."""

    loader: Loader[Any, Any]
    arguments: Page | None = None

    async def answers(self, keys: Sequence[Hashable]) -> Mapping[Hashable, object]:
        if self.arguments is not None and isinstance(self.loader, PageLoader):
            return await self.loader.of_parents(keys, self.arguments)
        return await self.loader.all_of(keys)


class _Asked(NamedTuple):
    """A relation of all objects of a group, with their keys; None if an object has none."""

    field: FieldPlan
    group: Group
    relation: Relation
    declared: AnyOne | AnyMany
    keys: list[Hashable]
    reads: dict[str, _Read]

    def at(self, number: int) -> At:
        """The place of the field in the response to one object."""
        field, group = self.field, self.group
        nullable = not field.shape.non_null
        return group.written[number], field.key, field.position, nullable, (group, number), field.parent.name


class Relations:
    """The relations of one execution, asked on one level and read together."""

    def __init__(self, execution: Execution) -> None:
        self._execution: Final = execution
        self._asked: list[_Asked] = []

    def ask(
        self, field: FieldPlan, relation: Relation, group: Group, arguments: Mapping[str, Any], loaders: object
    ) -> None:
        """Adds a field of all objects of the group. Raises what its declaration raises."""
        others = {name: value for name, value in arguments.items() if name != "page"}
        declared = relation.declare(loaders, **others)
        if isinstance(declared, One):
            reads = {"row": _Read(declared.rows)}
        else:
            reads = {}
            # As resolvers see it: a wrong cursor is an error, or is not, whoever reads the page.
            if needs_page(field.names_below):
                reads["page"] = _Read(declared.pages, (arguments["page"], *declared.arguments))
            if any(_name(each) == "totalCount" for each in self._connection(field).fields):
                reads["count"] = _Read(declared.counts, declared.arguments)
        self._asked.append(_Asked(field, group, relation, declared, _keys(group, relation.of), reads))

    async def read(self) -> None:
        """Reads and completes all fields that were asked."""
        asked, self._asked = self._asked, []
        if not asked:
            return
        keys: dict[_Read, list[Hashable]] = defaultdict(list)
        for each in asked:
            for read in each.reads.values():
                keys[read] += (key for key in each.keys if key is not None)
        loads = [read.answers(of_read) for read, of_read in keys.items()]
        # The session executes the reads of several loaders in this order.
        loaded = [await loads[0]] if len(loads) == 1 else await asyncio.gather(*loads)
        answers = dict(zip(keys, loaded, strict=True))
        for each in asked:
            of_field = {name: answers[read] for name, read in each.reads.items()}
            if isinstance(each.declared, One):
                complete = self._one(each, each.declared, of_field["row"])
            else:
                complete = self._many(each, each.declared, of_field)
            for start in range(0, len(each.keys), PART):
                for number, key in enumerate(each.keys[start : start + PART], start):
                    complete(number, key)
                await self._execution.pause(PART)

    def _one(self, asked: _Asked, one: AnyOne, rows: Mapping[Hashable, object]) -> _Complete:
        field, complete = asked.field, self._execution.complete
        target = self._rows_of(field, field.shape, one.make)

        def complete_one(number: int, key: Hashable) -> None:
            value = None if key is None else rows[key]
            if target is not None and value is not None and not isinstance(value, Exception):
                target.add(value, asked.at(number))
                return
            try:
                if key is not None and not isinstance(value, Exception):
                    value = asked.relation.object(one, key, value)
            except Exception as error:
                value = error
            complete(field.shape, field, value, asked.at(number))

        return complete_one

    def _many(self, asked: _Asked, many: AnyMany, answers: Mapping[str, Mapping[Hashable, Any]]) -> _Complete:
        field, pages, counts = asked.field, answers.get("page"), answers.get("count", {})
        connection = self._connection(field)
        keys = [each.key for each in connection.fields]
        parts = [self._part(each, asked.relation, many) for each in connection.fields]

        def complete_many(number: int, key: Hashable) -> None:
            page, at = EMPTY if pages is None else pages[key], asked.at(number)
            if isinstance(page, Exception):
                self._execution.complete(field.shape, field, page, at)
                return
            # In the order of the selection: some parts are written now, others later.
            written: dict[str, object] = dict.fromkeys(keys)
            at[0][at[1]] = written
            for part in parts:
                part(page, counts.get(key), written, at)

        return complete_many

    def _part(self, field: FieldPlan, relation: Relation, many: AnyMany) -> _Part:
        """The function that writes one field of each connection."""
        name, key, typename, complete = _name(field), field.key, field.parent.name, self._execution.complete
        nullable, item = not field.shape.non_null, field.shape.item
        if field.typename:
            return lambda _page, _count, written, _outer: written.__setitem__(key, typename)
        target = None if name != "nodes" or item is None else self._rows_of(field, item, many.make)
        if target is not None and item is not None:
            add_list, items_nullable = target.add_list, not item.non_null

            def write_rows(page: AnySlice, _count: object, written: dict[str, object], outer: At) -> None:
                rows, items = page.items, [None] * len(page.items)
                written[key] = items
                if rows:
                    add_list(rows, items, (written, key, field.position, nullable, outer, typename), items_nullable)

            return write_rows
        value_of = relation.values.get(name)

        def write(page: AnySlice, count: object, written: dict[str, object], outer: At) -> None:
            try:
                value = count if value_of is None else value_of(page, many.make)
            except Exception as error:
                value = error
            complete(field.shape, field, value, (written, key, field.position, nullable, outer, typename))

        return write

    def _connection(self, field: FieldPlan) -> Selection:
        return self._execution.selected(field, field.shape.type)

    def _rows_of(self, field: FieldPlan, shape: Shape, make: Make) -> Group | None:
        """The group on the next level that takes rows; None if there must be objects."""
        class_, type_ = getattr(make, "__self__", None), shape.type
        if not isinstance(type_, GraphQLObjectType) or not isinstance(class_, type) or not is_plain(class_, make):
            return None
        declared = type_.extensions.get("strawberry-definition")
        if declared is None or declared.origin is not class_:
            return None
        group = self._execution.group_of(self._execution.selected(field, type_))
        return group if group.takes_rows_of(class_) else None


def _name(field: FieldPlan) -> str:
    return field.nodes[0].name.value


def _keys(group: Group, attribute: str) -> list[Hashable]:
    readers = {class_: reader(class_, attribute) for class_ in set(map(type, group.objects))}
    return [readers[type(object_)](object_) for object_ in group.objects]

"""Executes a plan level by level: all objects of a level at once, field by field."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Coroutine, Iterable, Sequence
from time import perf_counter
from types import CoroutineType
from typing import Any, Final, TypeAlias

from graphql import GraphQLAbstractType, GraphQLError, GraphQLObjectType, GraphQLResolveInfo, located_error
from graphql.execution.executor import Executor, invalid_return_type_error
from graphql.pyutils import Path, Undefined, is_iterable
from strawberry.types.unset import UnsetType

from app import traces
from app.api.context import Operation
from app.api.context.batching import Later, Loader, Resumed, advance
from app.api.execution.columns import Needed
from app.api.execution.direct import Direct, PlannedInfo
from app.api.execution.from_row import reader
from app.api.execution.places import At, Group, Place
from app.api.execution.plan import CONSTANT, FieldPlan, OperationPlan, Selection, Shape, arguments_of
from app.api.execution.related import Relations
from app.api.execution.relation import Relation
from app.api.execution.writer import NotPlain, Written, writer_for
from app.services.lists.paging import PageRequest

PAUSE_AFTER: Final = 500
"""Number of values after which a long execution checks the time."""
PAUSE_SECONDS: Final = 0.005
"""How long it may run before it yields to other requests."""

_CONSTANT: Final = (*CONSTANT, PageRequest, UnsetType)
"""Types of converted arguments that cannot be changed."""
_Asked: TypeAlias = tuple[FieldPlan, Group, int]
"""A field of an object, by the object's number in its group."""


class Levels:
    """One execution of a plan."""

    def __init__(self, executor: Executor[Any], plan: OperationPlan) -> None:
        self._executor = executor
        self._organisation: str = getattr(getattr(executor.context_value, "scope", None), "organisation", "")
        self._plan = plan
        self._arguments: dict[FieldPlan, dict[str, object] | Exception] = {}
        self._errors: list[tuple[Place, Place, GraphQLError]] = []
        """For each error: where it arose, the place that became null, and the error."""
        self._unpaused = 0
        self._resumed = perf_counter()
        self._next: dict[Selection, Group] = {}
        self._waiting: list[tuple[_Asked, Awaitable[object]]] = []
        self._loading: list[tuple[_Asked, Coroutine[object, object, object], Later[Any]]] = []
        self._relations = Relations(self)

    async def answer(self, root_value: object, serially: bool) -> dict[str, object]:
        """The data of the response. Adds errors to those of the executor; raises the error that nulls all data."""
        selection = self._plan.root
        data: dict[str, object] = {field.key: None for field in selection.fields}
        for step in self._plan.steps if serially else [selection]:
            part: dict[str, Any] = {}
            root = Group(step)
            root.add(root_value, (part, "", 0, True, None, None))
            await self._run(root)
            data.update(part[""])
            self._report()
        return data

    async def _run(self, root: Group) -> None:
        level, depth = [root], 0
        while level:
            self._next = {}
            depth += 1
            with traces.span("level", depth=depth, types=len(level)):
                await self._level(level)
            level = [group for group in self._next.values() if group.objects]

    async def _level(self, level: Iterable[Group]) -> None:
        for group in level:
            await self._write(group)
            for field in group.asked:
                await self._ask_all(field, group)
        await self._relations.read()
        while self._waiting or self._loading:
            await self._wait()

    async def _wait(self) -> None:
        """Waits for everything that the level's fields are waiting for, together."""
        waiting, self._waiting = self._waiting, []
        loading, self._loading = self._loading, []
        if not waiting:
            await self._load(loading)
            return
        waiting += [(asked, Resumed(coroutine, later)) for asked, coroutine, later in loading]
        if len(waiting) == 1:
            try:
                values = [await waiting[0][1]]
            except Exception as error:
                values = [error]
        else:
            values = await asyncio.gather(*(awaitable for _, awaitable in waiting), return_exceptions=True)
        for ((field, group, number), _), value in zip(waiting, values, strict=True):
            if isinstance(value, BaseException) and not isinstance(value, Exception):
                raise value
            self._complete_field(field, group, number, value)
            await self.pause(1)

    async def _load(self, loading: list[tuple[_Asked, Coroutine[object, object, object], Later[Any]]]) -> None:
        """Loads all keys of each loader at once, and resumes the fields."""
        keys: dict[Loader[Any, Any], list[Any]] = defaultdict(list)
        for _, _, later in loading:
            keys[later.loader].append(later.key)
        if len(keys) == 1:
            answers = {loader: await loader.all_of(of_loader) for loader, of_loader in keys.items()}
        else:
            loads = (loader.all_of(of_loader) for loader, of_loader in keys.items())
            answers = dict(zip(keys, await asyncio.gather(*loads), strict=True))
        for asked, coroutine, later in loading:
            self._advance(asked, coroutine, answers[later.loader][later.key])
            await self.pause(1)

    async def pause(self, work: int) -> None:
        """Counts `work` more values, and yields to other tasks if it is time to."""
        self._unpaused += work
        if self._unpaused >= PAUSE_AFTER:
            self._unpaused = 0
            if perf_counter() - self._resumed >= PAUSE_SECONDS:
                await asyncio.sleep(0)
                self._resumed = perf_counter()

    def _report(self) -> None:
        """Passes the errors to the executor, in response order. Raises the error that nulls the whole response."""
        errors, self._errors = sorted(self._errors, key=lambda item: item[0].order()), []
        for _, nulled, error in errors:
            if nulled.outer is None:
                raise error
            self._executor.collected_errors.add(error, nulled.path())

    # ---------------------------------------------------------------- plain fields

    async def _write(self, group: Group) -> None:
        """Adds the objects to the response, with their plain fields, and null for fields that must be resolved."""
        objects, metrics = group.objects, self._executor.context_value.services.metrics
        writer = writer_for(group.selection, objects, self.selected, group.row_class, self._organisation)
        written: Written = []
        try:
            if writer is None:
                raise NotPlain
            for start in range(0, len(objects), PAUSE_AFTER):
                written += writer.write(objects[start : start + PAUSE_AFTER])
                await self.pause(min(PAUSE_AFTER, len(objects)))
            group.asked = writer.asked
        except Exception:
            # One of the objects has an invalid value: resolving them one by one finds it.
            written = [{field.key: None for field in group.selection.fields} for _ in objects]
        (metrics.one_by_one if group.asked is group.selection.fields else metrics.generated).inc(len(objects))
        group.put(written)
        if group.asked and group.row_class is not None:
            of, group.row_class = group.row_class.of, None
            for start in range(0, len(objects), PAUSE_AFTER):
                objects[start : start + PAUSE_AFTER] = map(of, objects[start : start + PAUSE_AFTER])
                await self.pause(PAUSE_AFTER)

    def selected(self, field: FieldPlan, type_: GraphQLObjectType) -> Selection:
        return self._plan.selection(self._executor, field, type_)

    # ---------------------------------------------------------------- resolving

    async def _ask_all(self, field: FieldPlan, group: Group) -> None:
        relation = None if field.direct is None else field.direct.relation
        if relation is not None and self._relate(field, relation, group):
            return
        for start in range(0, len(group.objects), PAUSE_AFTER):
            numbers = range(start, min(start + PAUSE_AFTER, len(group.objects)))
            self._ask(field, group, numbers)
            # Do not pause while loads are waiting: the loaders would load the keys so far, and the rest separately.
            if not (self._waiting or self._loading):
                await self.pause(len(numbers))

    def _relate(self, field: FieldPlan, relation: Relation, group: Group) -> bool:
        """Asks a relation of all objects at once; returns False if that causes an error, which each object reports."""
        arguments = self._arguments_of(field)
        if isinstance(arguments, Exception):
            return False
        try:
            self._relations.ask(field, relation, group, arguments, self._executor.context_value.loaders)
        except Exception:
            return False
        return True

    def _ask(self, field: FieldPlan, group: Group, numbers: Iterable[int]) -> None:
        """Resolves a field of the objects with these numbers."""
        if field.typename:
            for number in numbers:
                group.written[number][field.key] = field.parent.name
        elif field.attribute is None:
            self._call(field, group, numbers)
        else:
            self._read(field, field.attribute, group, numbers)

    def _read(self, field: FieldPlan, attribute: str, group: Group, numbers: Iterable[int]) -> None:
        objects, readers = group.objects, field.readers
        for number in numbers:
            object_ = objects[number]
            try:
                read = readers.get(type(object_))
                if read is None:
                    read = readers[type(object_)] = reader(type(object_), attribute)
                value = read(object_)
            except Exception as error:
                value = error
            self._complete_field(field, group, number, value)

    def _call(self, field: FieldPlan, group: Group, numbers: Iterable[int]) -> None:
        """Calls the resolver for each object."""
        arguments, direct = self._arguments_of(field), field.direct
        if isinstance(arguments, Exception):
            for number in numbers:
                self._complete_field(field, group, number, arguments)
        elif direct is not None:
            self._call_directly(field, direct, arguments, group, numbers)
        else:
            resolve = field.definition.resolve or self._executor.field_resolver
            for number in numbers:
                try:
                    value = resolve(group.objects[number], self._info(field, (group, number)), **arguments)
                except Exception as error:
                    value = error
                self._answered(field, group, number, value)

    def _call_directly(
        self, field: FieldPlan, direct: Direct, arguments: dict[str, object], group: Group, numbers: Iterable[int]
    ) -> None:
        is_traced, plain = traces.enabled(), field.shape.plain
        for number in numbers:
            try:
                info = None if direct.takes_info is None else self._planned_info(field, direct, group, number)
                value = direct.call(group.objects[number], info, arguments)
            except Exception as error:
                value = error
            if value.__class__ is plain:
                group.written[number][field.key] = value
            elif type(value) is CoroutineType and not is_traced:
                self._advance((field, group, number), value, None)
            else:
                self._answered(field, group, number, value)

    def _answered(self, field: FieldPlan, group: Group, number: int, value: Any) -> None:
        if self._executor.is_awaitable(value):
            self._waiting.append(((field, group, number), value))
        else:
            self._complete_field(field, group, number, value)

    def _advance(self, asked: _Asked, coroutine: Coroutine[object, object, object], sent: object) -> None:
        """Runs a resolver until it waits, and queues what it waits for, to be awaited together with others."""
        ended, value = advance(coroutine, sent)
        if ended:
            self._complete_field(*asked, value)
        elif isinstance(value, Later):
            self._loading.append((asked, coroutine, value))
        else:
            self._waiting.append((asked, Resumed(coroutine, value)))

    def _arguments_of(self, field: FieldPlan) -> dict[str, object] | Exception:
        arguments = self._arguments.get(field)
        if arguments is None:
            arguments = self._arguments[field] = self._made_arguments(field)
        return arguments

    def _made_arguments(self, field: FieldPlan) -> dict[str, object] | Exception:
        if field.converted is not None:
            return field.converted
        executor, constant, direct = self._executor, field.constant_arguments, field.direct
        arguments = arguments_of(executor, field.definition, field.details) if constant is None else constant
        if direct is None or isinstance(arguments, Exception):
            return arguments
        try:
            converted = direct.converted(executor.schema, arguments)
            if direct.with_page is not None:
                converted = direct.with_page(converted, **Needed(executor, self._plan).of_page(field))
        except Exception as error:
            return error
        if constant is not None and all(isinstance(each, _CONSTANT) for each in converted.values()):
            field.converted = converted
        return converted

    def _planned_info(self, field: FieldPlan, direct: Direct, group: Group, number: int) -> PlannedInfo:
        context = self._executor.context_value
        return PlannedInfo(context, direct.field, field.names_below, lambda: self._info(field, (group, number)))

    def _info(self, field: FieldPlan, parent: tuple[Group, int]) -> GraphQLResolveInfo[Operation]:
        path = Path(parent[0].place(parent[1]).path(), field.key, field.parent.name)
        return self._executor.build_resolve_info(field.definition, field.nodes, field.parent, path)

    # ---------------------------------------------------------------- completing

    def _complete_field(self, field: FieldPlan, group: Group, number: int, value: object) -> None:
        shape = field.shape
        at: At = (
            group.written[number],
            field.key,
            field.position,
            not shape.non_null,
            (group, number),
            field.parent.name,
        )
        self.complete(shape, field, value, at)

    def complete(self, shape: Shape, field: FieldPlan, value: object, at: At) -> None:
        """Writes the value to its place: completely, or as an object or list whose contents follow."""
        container, key = at[0], at[1]
        try:
            if isinstance(value, Exception):
                raise value
            if value is None or value is Undefined:
                if shape.non_null:
                    message = f"Cannot return null for non-nullable field {field.parent}.{field.nodes[0].name.value}."
                    raise TypeError(message)
                container[key] = None
            elif shape.leaf:
                container[key] = self._leaf(shape, value)
            elif shape.item is not None:
                self._list(shape.item, field, value, at)
            else:
                selection = field.by_class.get(type(value))
                self.group_of(selection or self._selection(shape, field, value, at)).add(value, at)
        except Exception as error:
            self._fail(Place(*at), field, error)

    def _leaf(self, shape: Shape, value: object) -> object:
        if type(value) is shape.plain:
            return value
        members = shape.by_enum_member
        if members is None:
            return self._executor.complete_leaf_value(shape.type, value)
        name = members.get(value)
        if name is None:
            name = members[value] = self._executor.complete_leaf_value(shape.type, value)
        return name

    def _list(self, item: Shape, field: FieldPlan, value: object, at: At) -> None:
        if not is_iterable(value):
            name = f"{field.parent}.{field.nodes[0].name.value}"
            raise GraphQLError(f"Expected Iterable, but did not find one for field '{name}'.")
        items: Sequence[object] = value if isinstance(value, list) else list(value)
        completed: list[object] = [None] * len(items)
        at[0][at[1]] = completed
        if not items:
            return
        nullable = not item.non_null
        selection = field.by_class.get(type(items[0]))
        if selection is not None and len(set(map(type, items))) == 1:
            self.group_of(selection).add_list(items, completed, at, nullable)
            return
        for number, each in enumerate(items):
            self.complete(item, field, each, (completed, number, number, nullable, at, None))

    def group_of(self, selection: Selection) -> Group:
        group = self._next.get(selection)
        if group is None:
            group = self._next[selection] = Group(selection)
        return group

    def _selection(self, shape: Shape, field: FieldPlan, value: object, at: At) -> Selection:
        type_ = shape.type
        if shape.abstract:
            type_ = self._runtime_type(type_, field, value, at)
        if type_.is_type_of is not None and not type_.is_type_of(value, self._info_of_value(field, at)):
            raise invalid_return_type_error(type_, value, field.details)
        selection = self._plan.selection(self._executor, field, type_)
        declared = type_.extensions.get("strawberry-definition")
        if declared is not None and declared.origin is type(value):
            field.by_class[type(value)] = selection
        return selection

    def _runtime_type(self, type_: GraphQLAbstractType, field: FieldPlan, value: object, at: At) -> GraphQLObjectType:
        info = self._info_of_value(field, at)
        resolve_type = type_.resolve_type or self._executor.type_resolver
        name = resolve_type(value, info, type_)
        return self._executor.ensure_valid_runtime_type(name, type_, field.details, info, value)

    def _info_of_value(self, field: FieldPlan, at: At) -> GraphQLResolveInfo[Operation]:
        place = Place(*at)
        path = Path(place.outer.path() if place.outer is not None else None, place.key, place.typename)
        return self._executor.build_resolve_info(field.definition, field.nodes, field.parent, path)

    # ---------------------------------------------------------------- errors

    def _fail(self, place: Place, field: FieldPlan, error: Exception) -> None:
        """Records the error, and sets the nearest enclosing nullable place to null."""
        path = place.path()
        located = located_error(error, field.nodes, path.as_list() if path else None)
        nulled = place
        while not nulled.nullable and nulled.outer is not None:
            nulled = nulled.outer
        if nulled.outer is not None:
            nulled.container[nulled.key] = None
        self._errors.append((place, nulled, located))

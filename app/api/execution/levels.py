"""A plan executed level by level: all objects of a level at once, field by field."""

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from copy import copy
from time import perf_counter
from typing import Any, Final, Protocol, TypeAlias

from graphql import GraphQLAbstractType, GraphQLError, GraphQLObjectType, GraphQLResolveInfo, located_error
from graphql.execution.collect_fields import DeferUsage, GroupedFieldSet
from graphql.execution.executor import CollectedErrors, invalid_return_type_error
from graphql.pyutils import Path, Undefined, is_iterable
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext

from app.api.context import Operation
from app.api.execution.direct import Direct, PlannedInfo
from app.api.execution.plan import (
    FieldPlan,
    OperationPlan,
    Plans,
    Selection,
    Shape,
    arguments_of,
    compiled,
    shown_variables,
)
from app.api.execution.shared import Answer, sharing_key
from app.api.from_row import reader
from app.traces import span

_PLANS: Final = Plans()

PAUSE_AFTER: Final = 500
"""Values after which a long answer looks at the clock."""
PAUSE_SECONDS: Final = 0.005
"""How long it may have gone on by then before it lets other requests go on."""


class CompiledExecution(StrawberryGraphQLCoreExecutionContext):
    """Executes operations by plans, each within the time that its context allows. Left to graphql-core: middleware,
    abort signals, switched-off error propagation, and variables of fragments; none of them occurs in this server."""

    def execute_collected_root_fields(
        self,
        root_type: GraphQLObjectType,
        root_value: object,
        grouped_field_set: GroupedFieldSet,
        serially: bool,
        new_defer_usages: Sequence[DeferUsage],
    ) -> Any:
        if not self._is_covered():
            self.context_value.services.metrics.fallbacks.inc()
            return super().execute_collected_root_fields(
                root_type, root_value, grouped_field_set, serially, new_defer_usages
            )
        plan = _PLANS.get(
            self, lambda: OperationPlan(compiled(self, root_type, grouped_field_set), shown_variables(self))
        )
        if getattr(self.context_value, "event", None) is not None:
            answer = self._shared_answer(plan, root_value)
        else:
            answer = _Levels(self, plan).answer(root_value, serially)
        within_time = getattr(self.context_value, "within_time", None)
        # A write is not cut short: no one would know what it had changed.
        return answer if serially or within_time is None else _bounded(within_time(answer))

    async def _shared_answer(self, plan: OperationPlan, event: object) -> dict[str, object]:
        """The answer to an event, from whichever stream executed it first; one with errors is each stream's own."""
        operation: Operation = self.context_value

        async def execute() -> Answer | None:
            executor = copy(self)
            executor.collected_errors = CollectedErrors()
            # The stream that asks may end before the others have their answer.
            executor.context_value = operation.twin()
            try:
                data = await executor.context_value.within_time(_Levels(executor, plan).answer(event, serially=False))
            except Exception:
                return None
            finally:
                await executor.context_value.close()
            return None if executor.collected_errors.errors else Answer(data)

        key = sharing_key(plan, self.variable_values.coerced, operation)
        answer = await operation.services.answers.get(key, operation.begun, execute)
        return answer if answer is not None else await _Levels(self, plan).answer(event, serially=False)

    def _is_covered(self) -> bool:
        return (
            not (self.middleware_manager and self.middleware_manager.middlewares)
            and self.abort_signal is None
            and self.error_propagation
            and all(fragment.variable_signatures is None for fragment in self.fragments.values())
        )


async def _bounded(answer: Awaitable[dict[str, object]]) -> dict[str, object]:
    """The answer, or why there is none as the executor knows it."""
    try:
        return await answer
    except GraphQLError:
        raise
    except Exception as error:
        raise GraphQLError(str(error), original_error=error) from error


class _Container(Protocol):
    """An object or a list of the answer."""

    def __setitem__(self, key: Any, value: object, /) -> None: ...


_At: TypeAlias = "tuple[_Container, str | int, int, bool, _Place | None, str | None]"
"""The arguments of a `_Place`: most values are written without one."""


class _Place:
    """Where a value stands in the answer: `container[key]`, within the place `outer`. The root has no outer one."""

    __slots__ = ("container", "key", "nullable", "outer", "position", "typename")

    def __init__(
        self,
        container: _Container,
        key: str | int,
        position: int,
        nullable: bool,
        outer: "_Place | None",
        typename: str | None,
    ) -> None:
        self.container: Final = container
        self.key: Final = key
        self.position: Final = position
        self.nullable: Final = nullable
        self.outer: Final = outer
        self.typename: Final = typename

    def path(self) -> Path | None:
        """The path of the value; None for the root."""
        if self.outer is None:
            return None
        return Path(self.outer.path(), self.key, self.typename)

    def order(self) -> tuple[int, ...]:
        """Its place in the answer as it is written."""
        return () if self.outer is None else (*self.outer.order(), self.position)


class _Object(_Place):
    """An object of the answer: what it is made from, and the fields that it has so far."""

    __slots__ = ("fields", "source")

    def __init__(self, source: object, place: _At) -> None:
        super().__init__(*place)
        self.source: Final = source
        self.fields: Final[dict[str, object]] = {}


class _Levels:
    """One execution."""

    def __init__(self, executor: CompiledExecution, plan: OperationPlan) -> None:
        self._executor = executor
        self._plan = plan
        self._arguments: dict[FieldPlan, dict[str, object] | Exception] = {}
        self._errors: list[tuple[_Place, _Place, GraphQLError]] = []
        """Where each arose, what became null for it, and the error."""
        self._unpaused = 0
        self._resumed = perf_counter()
        self._next: dict[Selection, list[_Object]] = {}
        self._waiting: list[tuple[_Object, FieldPlan, Awaitable[object]]] = []

    async def answer(self, root_value: object, serially: bool) -> dict[str, object]:
        """The data of the answer; errors are added to those of the executor. Raises the one that nulls all of it."""
        root = _Object(root_value, ({}, "", 0, True, None, None))
        selection = self._plan.root
        for field in selection.fields:
            root.fields[field.key] = None
        for fields in [[field] for field in selection.fields] if serially else [selection.fields]:
            await self._run(Selection(selection.type, fields), root)
            self._report()
        return root.fields

    async def _run(self, selection: Selection, root: _Object) -> None:
        self._next = {selection: [root]}
        depth = 0
        while self._next:
            level, self._next = self._next, {}
            depth += 1
            with span("level", depth=depth, types=len(level)):
                await self._level(level)

    async def _level(self, level: dict[Selection, list[_Object]]) -> None:
        for selected, objects in level.items():
            for field in selected.fields:
                for start in range(0, len(objects), PAUSE_AFTER):
                    part = objects[start : start + PAUSE_AFTER] if len(objects) > PAUSE_AFTER else objects
                    self._resolve(field, part)
                    # Not while loads wait: the loaders would send what they have so far, and the rest once more.
                    if not self._waiting:
                        await self._pause(len(part))
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            values = await asyncio.gather(*(awaitable for _, _, awaitable in waiting), return_exceptions=True)
            for (parent, field, _), value in zip(waiting, values, strict=True):
                if isinstance(value, BaseException) and not isinstance(value, Exception):
                    raise value
                self._complete_field(parent, field, value)
                await self._pause(1)

    async def _pause(self, work: int) -> None:
        """Lets others go on after `work` more values, if it is time to."""
        self._unpaused += work
        if self._unpaused >= PAUSE_AFTER:
            self._unpaused = 0
            if perf_counter() - self._resumed >= PAUSE_SECONDS:
                await asyncio.sleep(0)
                self._resumed = perf_counter()

    def _report(self) -> None:
        """Gives the errors to the executor, in the order of the answer. Raises one that leaves nothing of it."""
        errors, self._errors = sorted(self._errors, key=lambda item: item[0].order()), []
        for _, nulled, error in errors:
            if nulled.outer is None:
                raise error
            self._executor.collected_errors.add(error, nulled.path())

    # ---------------------------------------------------------------- resolving

    def _resolve(self, field: FieldPlan, objects: list[_Object]) -> None:
        key, attribute, shape, plain = field.key, field.attribute, field.shape, field.shape.plain
        if attribute is None:
            for parent in objects:
                self._call(field, parent)
            return
        leaf, readers = shape.leaf, field.readers
        for parent in objects:
            source = parent.source
            try:
                read = readers.get(type(source))
                if read is None:
                    read = readers[type(source)] = reader(type(source), attribute)
                value = read(source)
                if leaf and value is not None and value is not Undefined:
                    parent.fields[key] = value if type(value) is plain else self._leaf(shape, value)
                    continue
            except Exception as error:
                value = error
            self._complete_field(parent, field, value)

    def _call(self, field: FieldPlan, parent: _Object) -> None:
        arguments = self._arguments_of(field)
        if isinstance(arguments, Exception):
            self._complete_field(parent, field, arguments)
            return
        parent.fields[field.key] = None
        executor, definition, direct = self._executor, field.definition, field.direct
        try:
            if direct is not None:
                value = direct.call(parent.source, self._planned_info(field, direct, parent), arguments)
            else:
                resolve = definition.resolve or executor.field_resolver
                value = resolve(parent.source, self._info(field, parent), **arguments)
        except Exception as error:
            value = error
        if executor.is_awaitable(value):
            self._waiting.append((parent, field, value))
        else:
            self._complete_field(parent, field, value)

    def _arguments_of(self, field: FieldPlan) -> dict[str, object] | Exception:
        arguments = self._arguments.get(field)
        if arguments is None:
            arguments = self._arguments[field] = self._made_arguments(field)
        return arguments

    def _made_arguments(self, field: FieldPlan) -> dict[str, object] | Exception:
        arguments = field.constant_arguments
        if arguments is None:
            arguments = arguments_of(self._executor, field.definition, field.details)
        if field.direct is None or isinstance(arguments, Exception):
            return arguments
        try:
            return field.direct.converted(self._executor.schema, arguments)
        except Exception as error:
            return error

    def _planned_info(self, field: FieldPlan, direct: Direct, parent: _Object) -> PlannedInfo:
        context = self._executor.context_value
        return PlannedInfo(context, direct.field, field.names_below, lambda: self._info(field, parent))

    def _info(self, field: FieldPlan, parent: _Object) -> GraphQLResolveInfo[Operation]:
        path = Path(parent.path(), field.key, field.parent.name)
        return self._executor.build_resolve_info(field.definition, field.nodes, field.parent, path)

    # ---------------------------------------------------------------- completing

    def _complete_field(self, parent: _Object, field: FieldPlan, value: object) -> None:
        shape = field.shape
        place: _At = (parent.fields, field.key, field.position, not shape.non_null, parent, field.parent.name)
        self._complete(shape, field, value, place)

    def _complete(self, shape: Shape, field: FieldPlan, value: object, place: _At) -> None:
        """Writes the value into its place: at once, or as an object or list whose parts follow."""
        container, key = place[0], place[1]
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
                self._list(shape.item, field, value, place)
            else:
                self._object(shape, field, value, place)
        except Exception as error:
            self._fail(_Place(*place), field, error)

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

    def _list(self, item: Shape, field: FieldPlan, value: object, place: _At) -> None:
        if not is_iterable(value):
            name = f"{field.parent}.{field.nodes[0].name.value}"
            raise GraphQLError(f"Expected Iterable, but did not find one for field '{name}'.")
        items: Iterable[object] = value
        outer = _Place(*place)
        completed: list[object] = []
        place[0][place[1]] = completed
        nullable = not item.non_null
        for at, each in enumerate(items):
            completed.append(None)
            self._complete(item, field, each, (completed, at, at, nullable, outer, None))

    def _object(self, shape: Shape, field: FieldPlan, value: object, place: _At) -> None:
        selection = field.by_class.get(type(value)) or self._selection(shape, field, value, place)
        object_ = _Object(value, place)
        place[0][place[1]] = object_.fields
        # Every key is there from the beginning, so that the answer has the order of the selection.
        for selected in selection.fields:
            object_.fields[selected.key] = None
        self._next.setdefault(selection, []).append(object_)

    def _selection(self, shape: Shape, field: FieldPlan, value: object, place: _At) -> Selection:
        type_ = shape.type
        if shape.abstract:
            type_ = self._runtime_type(type_, field, value, place)
        if type_.is_type_of is not None and not type_.is_type_of(value, self._info_of_value(field, place)):
            raise invalid_return_type_error(type_, value, field.details)
        selection = self._plan.selection(self._executor, field, type_)
        declared = type_.extensions.get("strawberry-definition")
        if declared is not None and declared.origin is type(value):
            field.by_class[type(value)] = selection
        return selection

    def _runtime_type(
        self, type_: GraphQLAbstractType, field: FieldPlan, value: object, place: _At
    ) -> GraphQLObjectType:
        info = self._info_of_value(field, place)
        resolve_type = type_.resolve_type or self._executor.type_resolver
        name = resolve_type(value, info, type_)
        return self._executor.ensure_valid_runtime_type(name, type_, field.details, info, value)

    def _info_of_value(self, field: FieldPlan, place: _At) -> GraphQLResolveInfo[Operation]:
        _, key, _, _, outer, typename = place
        path = Path(outer.path() if outer is not None else None, key, typename)
        return self._executor.build_resolve_info(field.definition, field.nodes, field.parent, path)

    # ---------------------------------------------------------------- errors

    def _fail(self, place: _Place, field: FieldPlan, error: Exception) -> None:
        """Records the error, and nulls the nearest place that may be null."""
        path = place.path()
        located = located_error(error, field.nodes, path.as_list() if path else None)
        nulled = place
        while not nulled.nullable and nulled.outer is not None:
            nulled = nulled.outer
        if nulled.outer is not None:
            nulled.container[nulled.key] = None
        self._errors.append((place, nulled, located))

"""Fields that are relations: declared once, and read for all objects of a level at once; know no resource."""

from collections.abc import Callable
from inspect import Parameter, Signature, signature
from typing import Any, TypeVar, cast, get_args

from app.api.context import Info
from app.api.described import resolver
from app.api.execution.relation import RELATION, AnyMany, AnyOne, Relation
from app.api.lists.connections import VALUES, Connection, LongConnection, connect, connect_long, connection
from app.services.lists.paging import PageRequest

Declared = TypeVar("Declared", bound=Callable[..., AnyOne | AnyMany])

_SELF = Parameter("self", Parameter.POSITIONAL_OR_KEYWORD)
_INFO = Parameter("info", Parameter.POSITIONAL_OR_KEYWORD, annotation=Info)
_PAGE = Parameter("page", Parameter.POSITIONAL_OR_KEYWORD, annotation=PageRequest)


def to_one(description: str, *, of: str, missing: str | None = None) -> Callable[[Declared], Declared]:
    """A field with the object whose key is the parent's attribute `of`, null if there is none.

    Decorates a static method that takes the loaders and returns `One[T]`. With `missing`, the field is not nullable,
    and `missing` says what is gone if there is no such object.
    """

    def declare(function: Declared) -> Declared:
        relation = Relation(of, function, missing)

        async def resolve(self: object, info: Info) -> object:
            one, key = cast("AnyOne", function(info.context.loaders)), getattr(self, of)
            return relation.object(one, key, None if key is None else await one.rows.load(key))

        object_type = _type_argument(function)
        returned = object_type if missing is not None else object_type | None
        _disguise(resolve, function, relation, Signature([_SELF, _INFO], return_annotation=returned))
        return cast("Declared", resolver(description)(resolve))

    return declare


def to_many(description: str, *, of: str, long: bool = False) -> Callable[[Declared], Declared]:
    """A connection field with the objects of the parent's attribute `of`.

    Decorates a static method that takes the loaders and the field's other arguments, and returns `Many[T]`; clients see
    the arguments of paging, too. A `long` list may have more than 2^31 items.
    """

    def declare(function: Declared) -> Declared:
        async def resolve(self: object, info: Info, page: PageRequest, **arguments: object) -> object:
            many, key = cast("AnyMany", function(info.context.loaders, **arguments)), getattr(self, of)
            make = connect_long if long else connect
            return await make(
                info,
                lambda: many.pages.load((key, page, *many.arguments)),
                many.make,
                lambda: many.counts.load((key, *many.arguments)),
            )

        others = list(signature(function).parameters.values())[1:]
        returned = (LongConnection if long else Connection)[_type_argument(function)]
        declared = Signature([_SELF, _INFO, _PAGE, *others], return_annotation=returned)
        _disguise(resolve, function, Relation(of, function, values=VALUES), declared)
        return cast("Declared", connection(description)(resolve))

    return declare


def _type_argument(function: Callable[..., object]) -> Any:
    """The type in the brackets of the function's return type."""
    (type_,) = get_args(function.__annotations__["return"])
    return type_


def _disguise(
    resolve: Callable[..., object], function: Callable[..., object], relation: Relation, declared: Signature
) -> None:
    """Gives a resolver the name, the module (in which types are looked up) and the signature of a declared field."""
    resolve.__name__, resolve.__qualname__, resolve.__module__ = (
        function.__name__, function.__qualname__, function.__module__,
    )  # fmt: skip
    resolve.__signature__ = declared  # type: ignore[attr-defined]
    setattr(resolve, RELATION, relation)

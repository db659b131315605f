"""pql/json. Not built yet: both directions are refused."""

from typing import NoReturn

from app.errors import ErrorCode, Refusal
from app.pql.nodes import Tree

_NOT_YET = "pql/json is not built yet: write the expression as pql/text"


def to_json(tree: Tree) -> NoReturn:
    raise Refusal(ErrorCode.INVALID_INPUT, _NOT_YET, ("to",))


def from_json(text: str) -> NoReturn:
    raise Refusal(ErrorCode.INVALID_INPUT, _NOT_YET, ("format",))

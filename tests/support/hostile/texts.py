"""Texts that attackers send, into every place of the schema that takes a text.

`python -m tests.support.hostile.texts` sends each text to each place of a real server. Answers that hold a trace, a path
or SQL, internal errors, hangs and files that were written or read are problems.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLScalarType,
    Undefined,
    get_named_type,
)

from app.api.context import Limits
from app.api.schema import build_schema
from tests.support.hostile.server import Target, target

SCHEMA = build_schema(Limits())._schema
CANARY = "/tmp/segmentation-canary"

TEXTS = {
    # SQL
    "quote": "' OR '1'='1", "drop": "'; DROP TABLE audiences; --", "union": "' UNION SELECT sqlite_version() --",
    "sleep": "'; SELECT pg_sleep(10); --", "comment": "/* */ -- #", "backslash quote": "\\'; --", "copy":
    f"'; COPY (SELECT 1) TO '{CANARY}'; --", "percent": "%' AND 1=0 OR name LIKE '%", "attach": f"ATTACH '{CANARY}' AS x",
    # DuckDB
    "read csv": "read_csv('/etc/passwd')", "from file": "' UNION SELECT * FROM '/etc/passwd' --",
    "read text": "(SELECT content FROM read_text('/etc/passwd'))", "install": "'; INSTALL httpfs; LOAD httpfs; --",
    "glob": "(SELECT * FROM glob('/*'))", "export": f"'; EXPORT DATABASE '{CANARY}'; --", "pragma": "PRAGMA database_list",
    "getenv": "getenv('HOME')",
    # Paths and addresses
    "parent": "../../../../etc/passwd", "windows": "..\\..\\windows\\win.ini", "absolute": "/etc/passwd",
    "file url": "file:///etc/passwd", "encoded": "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "dot": ".", "dots": "..", "slash": "/",
    "s3": "s3://bucket/key", "metadata": "http://169.254.169.254/latest/meta-data/", "con": "CON", "long": "a" * 5_000,
    # Log lines and terminals
    "line": "x\n2026-01-01 ERROR app: forged", "carriage": "x\r\nset-cookie: a=b", "escape": "\x1b[2J\x1b[31mred",
    "format": "%s%s%s%n {0} {__class__} ${jndi:ldap://127.0.0.1/a}", "bell": "\x07\x08\x7f",
    # Regular expressions and patterns
    "nested": "(a+)+$", "evil": "^(([a-z])+.)+[A-Z]([a-z])+$", "open": "((((((((", "class": "[[:alpha:", "repeat": "a{1000000}",
    "regex query": "/(a|b)*c/ AND /[/", "wildcards": "*" * 300, "stars": "a*b*c*d*e*f*",
    # Markup, templates, code
    "script": "<script>alert(1)</script>", "template": "{{7*7}}${7*7}<%= 7*7 %>", "xml": "<!DOCTYPE x [<!ENTITY y SYSTEM 'file:///etc/passwd'>]>",
    "shell": f"$(touch {CANARY}); `touch {CANARY}` | touch {CANARY}", "python": "__import__('os').system('id')", "json": '{"$ne": null}',
    "graphql": '") { errors { code } } deleteAudience(id: "', "pickle": "gASVAAAAAAAAAA==",
    # Text itself
    "empty": "", "blank": " \t\n", "nul": "\0", "nul inside": "a\0b", "rtl": "\u202etxt.exe", "zero width": "a\u200bb", "emoji": "👩‍👩‍👧‍👦" * 50,
    "combining": "e" + "\u0301" * 500, "noncharacter": "\uffff", "number": "9" * 400, "negative zero": "-0", "nan": "NaN", "true": "true", "null": "null",
    "date": "0000-00-00T00:00:00Z", "dense cron": "* * * * * ?", "deep": "(" * 3_000 + ")" * 3_000, "not": "not " * 2_000 + "true", "base64 id": "QXVkaWVuY2U6Jw==",
}  # fmt: skip
"""By name."""

PLAIN: dict[str, Any] = {
    "Boolean": True,
    "Int": 1,
    "BigInt": 1,
    "Float": 1,
    "JSON": {},
    "DateTime": "2030-01-01T00:00:00Z",
}

Place = tuple[str, str, tuple[str, ...]]


def places() -> Iterator[Place]:
    """Kind of operation, root field and way to each text, id or JSON."""
    for kind, root in (("query", SCHEMA.query_type), ("mutation", SCHEMA.mutation_type)):
        for name, field in (root.fields if root else {}).items():
            for path in _texts(field.args, ()):
                yield kind, name, path


def _texts(fields: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for name, field in fields.items():
        type_: Any = get_named_type(field.type)
        if isinstance(type_, GraphQLInputObjectType):
            if name not in path:
                yield from _texts(type_.fields, (*path, name))
        elif isinstance(type_, GraphQLScalarType) and type_.name in {"String", "ID", "JSON", "DateTime", "BigInt"}:
            yield (*path, name)


def call(place: Place, text: str) -> tuple[str, dict[str, Any]]:
    """The document and variables of a call with the text at the place, and with what else must be given."""
    kind, name, path = place
    root = SCHEMA.query_type if kind == "query" else SCHEMA.mutation_type
    assert root is not None
    field = root.fields[name]
    given = _arguments(field.args, path, text)
    head = ", ".join(f"${one}: {field.args[one].type}" for one in given)
    arguments = ", ".join(f"{one}: ${one}" for one in given)
    return f"{kind} ({head}) {{ {name}({arguments}){_selection(field.type, 1)} }}", given


def _arguments(fields: Any, path: tuple[str, ...], text: str) -> dict[str, Any]:
    given = {}
    for name, field in fields.items():
        if path and name == path[0]:
            given[name] = _towards(field.type, path[1:], text)
        elif isinstance(field.type, GraphQLNonNull) and field.default_value in (None, Undefined):
            given[name] = _plain(field.type, name)
    return given


def _towards(type_: Any, path: tuple[str, ...], text: str) -> Any:
    if isinstance(type_, GraphQLNonNull):
        return _towards(type_.of_type, path, text)
    if isinstance(type_, GraphQLList):
        return [_towards(type_.of_type, path, text)]
    return _arguments(type_.fields, path, text) if path else {text: [text]} if type_.name == "JSON" else text


def _plain(type_: Any, name: str) -> Any:
    if isinstance(type_, GraphQLNonNull):
        return _plain(type_.of_type, name)
    if isinstance(type_, GraphQLList):
        return [_plain(type_.of_type, name)]
    if isinstance(type_, GraphQLInputObjectType):
        return _arguments(type_.fields, (), "")
    if isinstance(type_, GraphQLEnumType):
        return next(iter(type_.values))
    return PLAIN.get(type_.name, "true" if name in {"expression", "where"} else "AEPSegments")


def _selection(type_: Any, depth: int) -> str:
    named: Any = get_named_type(type_)
    if isinstance(named, GraphQLObjectType | GraphQLInterfaceType):
        parts = ["__typename"]
        for name, field in named.fields.items():
            leaf = not isinstance(get_named_type(field.type), GraphQLObjectType | GraphQLInterfaceType)
            required = any(isinstance(argument.type, GraphQLNonNull) for argument in field.args.values())
            if not required and (leaf or depth > 0):
                parts.append(name + _selection(field.type, depth - 1))
        return f" {{ {' '.join(parts)} }}"
    return " { __typename }" if not isinstance(named, GraphQLScalarType | GraphQLEnumType) else ""


def send_texts(server: Target, texts: dict[str, str], stride: int = 1) -> int:
    """Sends every text to every `stride`th place; returns how many calls that were."""
    sent = 0
    for place in list(places())[::stride]:
        for name, text in texts.items():
            document, variables = call(place, text)
            server.post(f"{name} at {place[1]} {'.'.join(place[2])}", document, variables)
            sent += 1
    return sent


def main() -> int:
    argparse.ArgumentParser(description=__doc__).parse_args()
    with target(max_cost="1000000000") as server:
        began = time.perf_counter()
        sent = send_texts(server, TEXTS)
        count = len(list(places()))
        print(f"{sent:,} calls: {len(TEXTS)} texts at {count} places in {time.perf_counter() - began:.0f} s")
        if Path(CANARY).exists():
            server.problems.append(f"{CANARY} was written")
        return server.end()


if __name__ == "__main__":
    raise SystemExit(main())

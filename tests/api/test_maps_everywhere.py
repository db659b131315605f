"""Maps, declared and found, are the same wherever an expression is evaluated, also where fragments are linked."""

import json
from typing import Any

import pytest

from tests.api.conftest import Api
from tests.api.test_standing import EVERYWHERE, EXPLAINED, World

KEYS = 250
SECONDS = {"type": "integer", "format": "epoch"}
SCHEMA: dict[str, Any] = {
    "properties": {
        "prefs": {"type": "object", "additionalProperties": {"type": "integer"}},
        "visits": {
            "type": "object",
            "additionalProperties": {"type": "array", "items": {"properties": {"at": SECONDS}}},
        },
    }
}
LINKED = {"identityMap": {"email": [{"id": "g@example.com"}]}}
ROWS: dict[str, dict[str, Any]] = {
    "a": {"prefs": {"x": 9007199254740993, "y": 1}, "wild": {f"k{at}": at for at in range(KEYS)}},
    "b": {"prefs": {}, "wild": {"k3": 3}},
    "c": {"prefs": {"x": 9007199254740992}, "visits": {"shop": [{"at": 1767225600}, {"at": 1767225601}]}},
    "d": {"visits": {"shop": [], "web": [{"at": 1767225599}]}, "wild": {"own": 7}},
    "e": {"prefs": {"a key": 2, "é": 3}},
    "g": {"prefs": {"x": 1, "z": 4}, **LINKED},
    "h": {"wild": {"k9": 9, "k10": 10}, **LINKED},
}
CASES = {
    'prefs.get("x") = 9007199254740993': "a",
    'prefs.get("x") in [9007199254740992, 1]': "cg",
    'prefs.keys().includes("z")': "g",
    'prefs.get("a key") = 2 and prefs.get("é") = 3': "e",
    "prefs.values().sum() = 5": "eg",
    "prefs.keys().count() = 2": "aeg",
    'wild.get("k9") = 9': "ag",
    "wild.values().max() >= 7 and wild.keys().count() < 3": "dg",
    'prefs.get("x").isNotNull() and wild.get("k10") = 10': "ag",
    "prefs.isNull()": "d",
    'visits.get("shop").exists(at = date(2026, 1, 1))': "c",
    'visits.get("shop").count() = 2 or visits.get("web").at.max() < date(2026, 1, 1)': "cd",
}
"""Who meets an expression. g and h are one person where fragments are linked."""


@pytest.mark.usefixtures("working")
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_maps_are_the_same_everywhere(api: Api) -> None:
    world = World(api, "PDG")
    policy = {"name": "policy", "method": "TIMESTAMP_ORDERED", "identityGraph": "PDG", "isDefault": True}
    made = await world.send("createMergePolicy", "mergePolicy { mergePolicyId }", **policy)
    world.policy = made["mergePolicy"]["mergePolicyId"]
    people = await api.dataset("people", "PROFILE")
    await world.send("updateDataset", "dataset { id }", id=people, schema=SCHEMA)
    await world.rows(people, *({"customer": id_, **row} for id_, row in ROWS.items()))
    everybody = await api.define("everybody", "true")
    await world.run(everybody)
    explained = "\n".join(f"{id_}: {EXPLAINED.format(id_)} {{ member error {{ message }} }}" for id_ in "abcdeg")
    for expression, expected in CASES.items():
        variables = {"e": expression, "value": f"if({expression}, 1, 0)", "all": everybody, "policy": world.policy}
        answer = await api.query(EVERYWHERE.replace("EXPLAINED", explained), **variables)
        count, audience = len(expected), answer["audience"]
        assert world.letters(answer["profiles"]["nodes"]) == expected, expression
        assert answer["compare"] == {"after": count, "exact": True, "error": None}, expression
        assert answer["overlap"] == {"sizes": [count, 6], "error": None}, expression
        assert world.letters([node["profile"] for node in audience["members"]["nodes"]]) == expected, expression
        assert audience["statistics"] == [{"sum": count, "error": None}], expression
        assert "".join(id_ for id_ in "abcdeg" if answer[id_]["member"]) == expected, expression
        assert await world.preview(expression) == expected, expression
    ids = {await api.define(expression, expression): expected for expression, expected in CASES.items()}
    await world.run(*ids)
    for id_, expected in ids.items():
        assert await world.members(id_) == expected
    rows = [
        json.loads(line)
        for line in (
            await api.http.get(f"/audiences/{everybody}/members.ndjson", headers=api.headers)
        ).text.splitlines()
    ]
    maps = {row["profileId"][-1].replace("h", "g"): [row.get(name) for name in ("prefs", "wild")] for row in rows}
    linked = {**ROWS["g"], "wild": ROWS["h"]["wild"]}
    assert maps == {
        id_: [row.get("prefs"), row.get("wild")] for id_, row in {**ROWS, "g": linked}.items() if id_ != "h"
    }

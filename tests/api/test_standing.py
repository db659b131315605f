"""`segmentMembership` is the same wherever an expression is evaluated: how people stand in audiences of all kinds."""

import asyncio
from typing import Any

import pytest

from tests.api.conftest import Api

LONG_AGO = "2026-01-01T00:00:00Z"
CASES = {
    'segmentMembership.get("ups").get("{gold}").status = "exited"': "b",
    'segmentMembership.get("AEPSegments").get("{gold}").status = "realized"': "cg",
    'segmentMembership.get("ups").get("{gold}").status = "existing"': "a",
    'segmentMembership.get("ups").get("{gold}").isNull() and gold.isNotNull()': "def",
    'segmentMembership.get("ups").get("{gold}").lastQualificationTime occurs <= 1 day before now': "abcg",
    'segmentMembership.get("CustomerAudienceUpload").get("vip").status.isNotNull()': "ad",
    'segmentMembership.get("partner").get("vip").isNotNull()': "eg",
    'segmentMembership.get("partner").get("{gold}").isNotNull()': "",
    'segmentMembership.keys().includes("partner")': "eg",
    'segmentMembership.get("other").get("9").lastQualificationTime occurs > 30 days before now': "e",
    'segmentMembership.get("AEPSegments").get("loaded").status = "existing"': "f",
    'segmentMembership.get("ups").get("{gold}").status = "exited" or inSegment("{gold}")': "abcg",
}
"""Who meets an expression. g and h are one person where fragments are linked."""
EVERYWHERE = """query ($e: String!, $value: String!, $all: ID!, $policy: ID!) {
  profiles(where: $e) { nodes { profileId } }
  compare(audienceId: $all, expression: $e) { after exact error { message } }
  overlap(people: [{expression: $e}, {audienceId: $all}], mergePolicyId: $policy) { sizes error { message } }
  audience(id: $all) { members(where: $e) { nodes { profile { profileId } } }
    statistics(expressions: [$value]) { sum error { message } } } EXPLAINED }"""
EXPLAINED = 'explain(profile: {{namespace: "crm", id: "{0}"}}, people: {{expression: $e}}, mergePolicyId: $policy)'


class World:
    def __init__(self, api: Api, graph: str) -> None:
        self.api, self.graph = api, graph

    async def send(self, mutation: str, payload: str, **input: Any) -> Any:
        type_ = mutation[0].upper() + mutation[1:] + "Input"
        document = f"mutation ($input: {type_}!) {{ {mutation}(input: $input) {{ {payload} errors {{ message }} }} }}"
        result = (await self.api.query(document, input=input))[mutation]
        assert result["errors"] == []
        return result

    async def rows(self, dataset: str, *rows: dict[str, Any]) -> None:
        sent = await self.send("ingestRows", "batch { rejectedRows }", datasetId=dataset, rows=list(rows))
        assert sent["batch"] == {"rejectedRows": 0}

    async def external(self, namespace: str, *people: str) -> None:
        dataset = await self.api.dataset(namespace, "AUDIENCE")
        kind = {"type": "EXTERNAL_SEGMENT", "audienceId": "vip", "namespace": namespace, "datasetId": dataset}
        await self.send("createAudience", "audience { id }", name=namespace, **kind)
        await self.rows(dataset, *({"customer": person} for person in people))

    async def build(self) -> str:
        """The definition of who is gold: a was in and is in, b has left, c and g have entered."""
        policy = {"name": "policy", "method": "TIMESTAMP_ORDERED", "identityGraph": self.graph, "isDefault": True}
        made = await self.send("createMergePolicy", "mergePolicy { mergePolicyId }", **policy)
        self.policy: str = made["mergePolicy"]["mergePolicyId"]
        people = await self.api.dataset("people", "PROFILE")
        linked = {"identityMap": {"email": [{"id": "g@example.com"}]}}

        def standing(namespace: str, segment: str, status: str) -> dict[str, Any]:
            entry = {"status": status, "lastQualificationTime": LONG_AGO}
            return {"segmentMembership": {namespace: {segment: entry}}}

        rows = {"a": (True, {}), "b": (True, {}), "c": (False, {}), "d": (False, {}), "g": (False, linked)}
        rows |= {"e": (False, standing("other", "9", "realized")), "f": (False, standing("ups", "loaded", "existing"))}
        if self.graph == "PDG":
            rows["h"] = (False, linked)
        await self.rows(people, *({"customer": id_, "gold": gold, **more} for id_, (gold, more) in rows.items()))
        await self.external("CustomerAudienceUpload", "a", "d")
        await self.external("partner", "e", "h" if self.graph == "PDG" else "g")
        gold = await self.api.define("gold", "gold = true")
        await self.run(gold)
        changed = [("b", False, {}), ("c", True, {}), ("g", True, linked)]
        await self.rows(people, *({"customer": id_, "gold": value, **more} for id_, value, more in changed))
        await self.run(gold)
        return gold

    async def run(self, *ids: str) -> None:
        assert await self.api.ended(await self.api.start(*ids)) == {"status": "SUCCEEDED", "errors": []}

    def letters(self, nodes: list[dict[str, Any]]) -> str:
        return "".join(sorted({node["profileId"][-1].replace("h", "g") for node in nodes}))

    async def preview(self, expression: str) -> str:
        preview = await self.api.preview(expression, mergePolicyId=self.policy)
        while True:
            found = (
                await self.api.query(
                    "query ($id: ID!) { preview(id: $id) { state profiles { nodes { profileId } } } }", id=preview
                )
            )["preview"]
            if found["state"] not in {"NEW", "RUNNING"}:
                return self.letters(found["profiles"]["nodes"])
            await asyncio.sleep(0.02)

    async def members(self, id: str) -> str:
        document = "query ($id: ID!) { audience(id: $id) { members { nodes { profile { profileId } } } } }"
        nodes = (await self.api.query(document, id=id))["audience"]["members"]["nodes"]
        return self.letters([node["profile"] for node in nodes])


@pytest.mark.usefixtures("working")
@pytest.mark.parametrize(
    ("database_url", "graph"),
    [("sqlite", "NONE"), ("sqlite", "PDG"), ("postgresql", "NONE")],
    indirect=["database_url"],
)
async def test_memberships_are_the_same_everywhere(api: Api, graph: str) -> None:
    world = World(api, graph)
    gold = await world.build()
    everybody = await api.define("everybody", "gold.isNotNull()")
    await world.run(everybody)
    explained = "\n".join(f"{id_}: {EXPLAINED.format(id_)} {{ member error {{ message }} }}" for id_ in "abcdefg")
    expected = {expression.replace("{gold}", gold): people for expression, people in CASES.items()}
    for expression, people in expected.items():
        variables = {"e": expression, "value": f"if({expression}, 1, 0)", "all": everybody, "policy": world.policy}
        answer = await api.query(EVERYWHERE.replace("EXPLAINED", explained), **variables)
        count, audience = len(people), answer["audience"]
        assert world.letters(answer["profiles"]["nodes"]) == people, expression
        assert answer["compare"] == {"after": count, "exact": True, "error": None}, expression
        assert answer["overlap"] == {"sizes": [count, 7], "error": None}, expression
        assert world.letters([node["profile"] for node in audience["members"]["nodes"]]) == people, expression
        assert audience["statistics"] == [{"sum": count, "error": None}], expression
        assert "".join(id_ for id_ in "abcdefg" if answer[id_]["member"]) == people, expression
        assert await world.preview(expression) == people, expression
    methods = ["BATCH"] if graph == "PDG" else ["BATCH", "STREAMING", "EDGE"]
    defined = {}
    for at, (expression, people) in enumerate(expected.items()):
        for method in methods:
            new = {"name": f"{method} {at}", "expression": expression, "evaluationMethods": [method]}
            sent = await world.send("createSegmentDefinition", "definition { segmentId }", **new)
            defined[sent["definition"]["segmentId"]] = (method, expression, people)
    await world.run(*defined)
    for id_, (method, expression, people) in defined.items():
        assert await world.members(id_) == people, (method, expression)

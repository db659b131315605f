"""What a process remembers must not say, by how fast it answers, what another tenant asked or has."""

import re
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from graphql import parse

import app
from tests.api.conftest import Api

STATEMENTS = (
    "services/audiences/definition_reads.py @cache _all",
    "services/audiences/definition_reads.py @cache _by_ids",
    "services/audiences/definition_reads.py @cache _related",
    "services/audiences/definition_reads.py @cache _views",
    "services/audiences/reads.py @cache _all",
    "services/audiences/reads.py @cache _related",
    "services/datasets/datasets.py @cache _batches",
    "services/insight/history.py @cache _versions",
    "services/jobs/export/requests.py @cache _batches",
    "services/jobs/schedules/reads.py @cache _all",
    "services/jobs/schedules/reads.py @cache _audiences_of",
    "services/jobs/schedules/reads.py @cache _of_audiences",
    "services/jobs/segment/requests.py @cache _frozen",
    "services/jobs/segment/requests.py @cache _of_definitions",
    "services/jobs/segment/requests.py @cache _segments",
    "services/lists/rows.py @cache _by_ids",
    "services/lists/rows.py @cache rows_of_any",
    "storage/job_log.py @cache _numbered",
    "storage/queue/claims.py @lru_cache _next_in_turn",
    "storage/queue/turns.py @lru_cache _due",
    "storage/sessions/writing.py @cache _update",
)
"""SQL that is made once: the tenant is a parameter of its execution."""

KEYED_BY = {
    **dict.fromkeys(STATEMENTS, "kind of list, order and columns"),
    "api/execution/columns.py @cache _read_of_self": "functions of the program",
    "api/execution/plan.py entries: OrderedDict": "a parsed document, which is remembered by organisation",
    "api/execution/writer.py @lru_cache _code": "organisation and selected fields",
    "api/guards/hooks.py @cache _hooks": "classes of the program",
    "api/guards/remembered.py entries: OrderedDict": "a parsed document, which is remembered by organisation",
    "api/guards/documents.py self._texts: OrderedDict": "organisation and hash",
    "api/guards/known.py documents: OrderedDict": "organisation and text",
    "api/schema.py @cache build_schema": "limits of the server",
    "api/transport/documentation.py @cache": "pages of the package",
    "coalescing.py self._work: OrderedDict": "tenant and permissions (`sharing_key`), or a topic of the tenant",
    "engine/evaluate/zones.py @lru_cache _zone": "names of time zones, of which all are public",
    "engine/insight/fields.py self._known: OrderedDict": "path in the tenant's folder",
    "engine/ingest/neighbours.py @lru_cache _large_leaves": "path in the tenant's folder",
    "engine/insight/scan.py @lru_cache _present": "path in the tenant's folder",
    "engine/members/regraph.py @lru_cache _moves_between": "the tenant's lake and versions",
    "engine/people/identity_graph.py @cache _empty": "nothing: an empty table",
    "engine/run/spark.py @lru_cache _opened": "path in the tenant's folder, and checksum",
    "engine/store/checksums.py @lru_cache _remembered": "path in the tenant's folder",
    "engine/people/compaction.py @lru_cache _remembered_note": "path in the tenant's folder",
    "engine/people/merged_view.py @lru_cache _all_there": "paths in the tenant's folder",
    "engine/people/merged_view.py @lru_cache _people_in": "path in the tenant's folder",
    "engine/store/delta.py self._versions: OrderedDict": "path in the tenant's folder",
    "engine/store/logs.py _newest: OrderedDict": "path in the tenant's folder",
    "services/access/authentication.py self._proven: OrderedDict": "the whole credentials, which are looked up anyway",
    "services/search/find.py _places: OrderedDict": "tenant",
    "storage/database.py @lru_cache _lock_number": "tenant",
}
"""Every cache that outlives a request or a job, and what its entries are found by."""


def caches() -> set[str]:
    root = Path(app.__file__).parent
    places = set()
    for file in sorted(root.rglob("*.py")):
        if (root / "web") in file.parents:
            continue
        text, name = file.read_text(), file.relative_to(root).as_posix()
        for kind, function in re.findall(r"^ *(@(?:lru_)?cache)\b[^\n]*\ndef (\w+)", text, re.M):
            places.add(f"{name} {kind}" if name.endswith("documentation.py") else f"{name} {kind} {function}")
        places |= {f"{name} {before}: OrderedDict" for before in re.findall(r"([\w.]+): OrderedDict\[", text)}
        places |= {f"{name} {before} = OrderedDict" for before in re.findall(r"(\w+: \w+) = OrderedDict\(", text)}
        places |= {f"{name} lru_cache {before}" for before in re.findall(r"(\w+) = lru_cache\(", text)}
    return places


def test_each_cache_is_keyed_by_its_tenant_or_holds_nothing_of_one() -> None:
    assert caches() == set(KEYED_BY)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_documents_are_remembered_for_each_organisation(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []

    def noting(text: str, **options: Any) -> Any:
        parsed.append(text)
        return parse(text, **options)

    monkeypatch.setattr("strawberry.schema.schema.parse", noting)
    for organisation in ("acme", "acme", "globex", "globex", "acme"):
        headers = {"x-gw-ims-org-id": organisation}
        response = await api.http.post(
            "/graphql", json={"query": "query Once { viewer { organisation } }"}, headers=headers
        )
        assert response.json()["data"] == {"viewer": {"organisation": organisation}}
    assert len(parsed) == 2


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_code_is_shared_by_the_documents_of_an_organisation(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    key, compiled = f"of_{uuid4().hex}", []

    def noting(text: str, name: str, mode: str) -> Any:
        compiled.append(text)
        return compile(text, name, mode)

    monkeypatch.setattr("app.api.execution.writer.compile", noting, raising=False)
    for number, organisation in enumerate(("acme", "acme", "globex", "acme", "globex")):
        document = f"query Number{number} {{ viewer {{ {key}: organisation }} }}"
        headers = {"x-gw-ims-org-id": organisation}
        response = await api.http.post("/graphql", json={"query": document}, headers=headers)
        assert response.json()["data"] == {"viewer": {key: organisation}}
    assert len([text for text in compiled if key in text]) == 2

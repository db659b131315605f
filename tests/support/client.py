"""A small client of a running server, for tests: queries, uploads and both kinds of streams."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
from gql import Client, gql
from gql.transport.websockets import WebsocketsTransport


class Gateway:
    """One server under `url` (without path), seen from one tenant; `pid` where its process is known."""

    def __init__(self, url: str, sandbox: str = "prod", pid: int | None = None) -> None:
        self.url = url
        self.pid = pid
        self.headers = {"x-sandbox-name": sandbox}

    def query(self, document: str, **variables: Any) -> dict[str, Any]:
        """The data of an operation; an error of GraphQL itself fails the test."""
        answer = httpx.post(
            f"{self.url}/graphql", json={"query": document, "variables": variables}, headers=self.headers, timeout=60
        ).json()
        assert "errors" not in answer, answer
        data: dict[str, Any] = answer["data"]
        return data

    def upload(self, dataset_id: str, name: str, content: bytes, format: str) -> dict[str, Any]:
        """`uploadBatch` by the multipart request specification."""
        document = """mutation ($input: UploadBatchInput!) {
          uploadBatch(input: $input) {
            batch { batchId status rowCount rejectedRows bytes } rejected { row message }
            errors { __typename code message path }
          }
        }"""
        variables = {"input": {"datasetId": dataset_id, "file": None, "format": format}}
        answer = httpx.post(
            f"{self.url}/graphql",
            data={
                "operations": json.dumps({"query": document, "variables": variables}),
                "map": json.dumps({"file": ["variables.input.file"]}),
            },
            files={"file": (name, content)},
            headers={**self.headers, "graphql-preflight": "1"},
            timeout=120,
        ).json()
        assert "errors" not in answer, answer
        payload: dict[str, Any] = answer["data"]["uploadBatch"]
        return payload

    async def by_websocket(self, document: str, **variables: Any) -> AsyncIterator[dict[str, Any]]:
        transport = WebsocketsTransport(
            url=self.url.replace("http", "ws", 1) + "/graphql", init_payload=self.headers, close_timeout=2
        )
        operation = gql(document)
        operation.variable_values = variables
        async with Client(transport=transport) as session:
            async for item in session.subscribe(operation):
                yield item

    async def by_sse(self, document: str, **variables: Any) -> AsyncIterator[dict[str, Any]]:
        """graphql-sse, distinct connections: `next` events until `complete`."""
        async with (
            httpx.AsyncClient(timeout=60) as http,
            http.stream(
                "POST",
                f"{self.url}/graphql",
                json={"query": document, "variables": variables},
                headers={**self.headers, "accept": "text/event-stream"},
            ) as response,
        ):
            assert response.status_code == 200, await response.aread()
            event = ""
            async for line in response.aiter_lines():
                if line.startswith("event:"):
                    event = line.removeprefix("event:").strip()
                    if event == "complete":
                        return
                elif line.startswith("data:") and event == "next":
                    answer = json.loads(line.removeprefix("data:"))
                    assert "errors" not in answer, answer
                    yield answer["data"]
        raise AssertionError("the stream ended without `complete`")

    def create_dataset(self, name: str, kind: str, column: str, time: str | None = None) -> str:
        payload = self.query(
            """mutation ($input: CreateDatasetInput!) {
              createDataset(input: $input) { dataset { datasetId } errors { message } } }""",
            input={
                "name": name,
                "kind": kind,
                "primaryIdentity": {"column": column, "namespace": "customer"},
                "timestampColumn": time,
            },
        )["createDataset"]
        assert payload["errors"] == []
        id_: str = payload["dataset"]["datasetId"]
        return id_

    def define(self, name: str, expression: str) -> str:
        payload = self.query(
            """mutation ($input: CreateSegmentDefinitionInput!) {
              createSegmentDefinition(input: $input) { definition { segmentId } errors { message } } }""",
            input={"name": name, "expression": expression},
        )["createSegmentDefinition"]
        assert payload["errors"] == []
        id_: str = payload["definition"]["segmentId"]
        return id_

    def create_key(self, *permissions: str) -> str:
        """The secret of an API key."""
        payload = self.query(
            """mutation ($permissions: [String!]!) {
              createApiKey(input: {name: "reader", permissions: $permissions}) { secret errors { message } } }""",
            permissions=permissions,
        )["createApiKey"]
        assert payload["errors"] == []
        secret: str = payload["secret"]
        return secret

    def start_job(self, *definitions: str) -> str:
        payload = self.query(
            """mutation ($input: CreateSegmentJobInput!) {
              createSegmentJob(input: $input) { job { jobId } errors { message } } }""",
            input={"definitionIds": definitions} if definitions else {"allDefinitions": True},
        )["createSegmentJob"]
        assert payload["errors"] == []
        id_: str = payload["job"]["jobId"]
        return id_

    def job(self, job_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.query(
            """query ($id: ID!) { segmentJob(id: $id) {
              status errors { code message } progress { phase fraction profilesRead totalProfiles sequence }
              metrics { totalProfiles totalTime { totalMs } }
              segments(first: 50) { nodes {
                segmentId version expression profileCount byStatus { status count } byNamespace { namespace count }
                error { code message } } } } }""",
            id=job_id,
        )["segmentJob"]
        return found

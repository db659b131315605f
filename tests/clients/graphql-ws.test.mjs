// graphql-ws: the WebSocket protocol graphql-transport-ws.
import assert from "node:assert/strict";
import test from "node:test";
import { createClient } from "graphql-ws";
import WebSocket from "ws";
import { secondFrame } from "./cut.mjs";
import { Gateway, resumes, watchesAJob, webSocketUrl } from "./gateway.mjs";

function connect(connectionParams) {
  return createClient({ url: webSocketUrl, webSocketImpl: WebSocket, connectionParams, retryAttempts: 0 });
}

test("a job is watched to its end, and again from where one left off", async () => {
  const gateway = new Gateway("graphql-ws");
  const client = connect(gateway.headers);
  await watchesAJob(gateway, (request) => client.iterate(request));
  await client.dispose();
});

test("a connection that breaks is resumed where it was", async () => {
  const gateway = new Gateway("graphql-ws-resume");
  const clients = [];
  await resumes(gateway, secondFrame, (request, to, ready) => {
    const client = createClient({
      url: to.replace(/^http/, "ws"),
      webSocketImpl: WebSocket,
      connectionParams: gateway.headers,
      retryAttempts: Infinity,
      shouldRetry: () => true,
      retryWait: () => ready,
    });
    clients.push(client);
    return client.iterate(request);
  });
  await Promise.all(clients.map((client) => client.dispose()));
});

test("queries and mutations go over the same connection, within the sandbox of its first message", async () => {
  const client = connect({ "x-sandbox-name": "graphql-ws-2" });
  const [viewer] = await Array.fromAsync(client.iterate({ query: "{ viewer { sandbox } }" }));
  assert.deepEqual(viewer.data, { viewer: { sandbox: "graphql-ws-2" } });
  await client.dispose();
});

test("an invalid document ends its stream with the errors, and the connection goes on", async () => {
  const client = connect({});
  await assert.rejects(Array.fromAsync(client.iterate({ query: "{ nothing }" })), (errors) => {
    assert.equal(errors[0].message, "Cannot query field 'nothing' on type 'Query'.");
    return true;
  });
  const [answer] = await Array.fromAsync(client.iterate({ query: "{ __typename }" }));
  assert.deepEqual(answer.data, { __typename: "Query" });
  await client.dispose();
});

test("a first message that names no tenant is refused", async () => {
  const client = connect({ "x-sandbox-name": 7 });
  await assert.rejects(Array.fromAsync(client.iterate({ query: "{ __typename }" })), (event) => {
    assert.equal(event.code, 4400);
    return true;
  });
});

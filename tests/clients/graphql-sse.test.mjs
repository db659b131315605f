// graphql-sse: server-sent events in distinct connections mode.
import assert from "node:assert/strict";
import test from "node:test";
import { createClient } from "graphql-sse";
import { firstEvent } from "./cut.mjs";
import { Gateway, resumes, url, watchesAJob } from "./gateway.mjs";

function connect(headers) {
  return createClient({ url, headers, retryAttempts: 0 });
}

test("a job is watched to its end, and again from where one left off", async () => {
  const gateway = new Gateway("graphql-sse");
  await watchesAJob(gateway, (request) => connect(gateway.headers).iterate(request));
});

test("a connection that breaks is resumed where it was", async () => {
  const gateway = new Gateway("graphql-sse-resume");
  await resumes(gateway, firstEvent, (request, to, ready) =>
    createClient({ url: to, headers: gateway.headers, retryAttempts: Infinity, retry: () => ready }).iterate(request),
  );
});

test("a query is a stream of one result", async () => {
  const client = connect({ "x-sandbox-name": "graphql-sse-2" });
  const results = await Array.fromAsync(client.iterate({ query: "{ viewer { sandbox } }" }));
  assert.deepEqual(results.map((result) => result.data), [{ viewer: { sandbox: "graphql-sse-2" } }]);
});

test("an invalid document is a stream of its errors", async () => {
  const results = await Array.fromAsync(connect({}).iterate({ query: "{ nothing }" }));
  assert.deepEqual(
    results.map((result) => result.errors.map((error) => error.message)),
    [["Cannot query field 'nothing' on type 'Query'."]],
  );
});

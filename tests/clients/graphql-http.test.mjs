// The audit suite of graphql-http: every MUST, SHOULD and MAY of the GraphQL-over-HTTP specification.
import assert from "node:assert/strict";
import test from "node:test";
import { serverAudits } from "graphql-http";
import { url } from "./gateway.mjs";

for (const audit of serverAudits({ url })) {
  test(audit.name, async () => {
    const result = await audit.fn();
    assert.equal(result.status, "ok", result.reason);
  });
}

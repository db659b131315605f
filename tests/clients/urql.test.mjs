// urql with its normalised cache: pages joined, mutations that every query sees, subscriptions as server-sent events.
import assert from "node:assert/strict";
import test from "node:test";
import { Client, fetchExchange, gql, subscriptionExchange } from "@urql/core";
import { cacheExchange } from "@urql/exchange-graphcache";
import { relayPagination } from "@urql/exchange-graphcache/extras";
import { createClient } from "graphql-sse";
import { Gateway, WATCH, url } from "./gateway.mjs";

const DEFINITIONS = gql`
  query ($first: Int, $after: String) {
    segmentDefinitions(first: $first, after: $after, orderBy: { field: NAME, direction: ASC }) {
      edges { cursor node { id name } }
      nodes { id name }
      pageInfo { hasNextPage endCursor }
    }
  }
`;

function client(gateway) {
  const events = createClient({ url, headers: gateway.headers });
  return new Client({
    url,
    preferGetMethod: false,
    // By itself urql also accepts streams, and the server then answers a query by a stream of one result.
    fetchOptions: { headers: { accept: "application/graphql-response+json", ...gateway.headers } },
    exchanges: [
      cacheExchange({
        resolvers: { Query: { segmentDefinitions: relayPagination() } },
        // Types without an id of their own are part of what shows them.
        keys: { JobProgress: () => null },
      }),
      fetchExchange,
      subscriptionExchange({
        forwardSubscription: ({ query, variables }) => ({
          subscribe: (sink) => ({ unsubscribe: events.subscribe({ query, variables }, sink) }),
        }),
      }),
    ],
  });
}

test("pages are joined, and what a mutation returns is in every query that showed the object", async () => {
  const gateway = new Gateway("urql");
  await gateway.load();
  for (const name of ["A", "B", "C"]) await gateway.define(name);
  const urql = client(gateway);
  const first = await urql.query(DEFINITIONS, { first: 2 }).toPromise();
  assert.equal(first.error, undefined);
  const after = first.data.segmentDefinitions.pageInfo.endCursor;
  const rest = await urql.query(DEFINITIONS, { first: 2, after }).toPromise();
  assert.deepEqual(rest.data.segmentDefinitions.edges.map((edge) => edge.node.name), ["A", "B", "C"]);
  const { id } = first.data.segmentDefinitions.edges[0].node;
  const { data } = await urql.mutation(
    gql`mutation ($id: ID!) { updateSegmentDefinition(input: { id: $id, name: "New" }) { definition { id name } errors { message } } }`,
    { id },
  ).toPromise();
  assert.deepEqual(data.updateSegmentDefinition.errors, []);
  const cached = await urql.query(DEFINITIONS, { first: 2 }, { requestPolicy: "cache-only" }).toPromise();
  assert.equal(cached.data.segmentDefinitions.edges[0].node.name, "New");
});

test("a subscription follows a job to its end", async () => {
  const gateway = new Gateway("urql-2");
  await gateway.load();
  await gateway.define("Over 500");
  const id = await gateway.start();
  const states = await new Promise((resolve, reject) => {
    const seen = [];
    client(gateway).subscription(gql(WATCH), { id, after: 0 }).subscribe(({ data, error }) => {
      if (error) return reject(error);
      seen.push(data.segmentJobUpdated);
      if (data.segmentJobUpdated.status === "SUCCEEDED") resolve(seen);
    });
  });
  assert.deepEqual(states.map((state) => state.progress.sequence), states.map((_, at) => at + 1));
});

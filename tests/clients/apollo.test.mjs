// Apollo Client: a normalised cache, pages joined by relayStylePagination, mutations and a WebSocket link.
import assert from "node:assert/strict";
import test from "node:test";
import { ApolloClient, ApolloLink, HttpLink, InMemoryCache, gql } from "@apollo/client";
import { GraphQLWsLink } from "@apollo/client/link/subscriptions";
import { getMainDefinition, relayStylePagination } from "@apollo/client/utilities";
import { createClient } from "graphql-ws";
import WebSocket from "ws";
import { Gateway, url, webSocketUrl } from "./gateway.mjs";

const DEFINITIONS = gql`
  query ($first: Int, $after: String) {
    segmentDefinitions(first: $first, after: $after, orderBy: { field: NAME, direction: ASC }) {
      edges { cursor node { id name } }
      pageInfo { hasNextPage endCursor }
    }
  }
`;

function client(gateway) {
  const webSocket = createClient({ url: webSocketUrl, webSocketImpl: WebSocket, connectionParams: gateway.headers });
  const isSubscription = ({ query }) => getMainDefinition(query).operation === "subscription";
  const link = ApolloLink.split(isSubscription, new GraphQLWsLink(webSocket), new HttpLink({ uri: url, headers: gateway.headers }));
  const typePolicies = { Query: { fields: { segmentDefinitions: relayStylePagination(["filter", "orderBy"]) } } };
  return { apollo: new ApolloClient({ link, cache: new InMemoryCache({ typePolicies }) }), webSocket };
}

test("pages are joined in the cache, and a row that is made meanwhile doubles none", async () => {
  const gateway = new Gateway("apollo");
  await gateway.load();
  for (const name of ["B", "D", "F", "H", "J"]) await gateway.define(name);
  const { apollo, webSocket } = client(gateway);
  const query = apollo.watchQuery({ query: DEFINITIONS, variables: { first: 2 } });
  const watching = query.subscribe(() => {});
  let { data } = await apollo.query({ query: DEFINITIONS, variables: { first: 2 } });
  await gateway.define("A");
  await gateway.define("E");
  while (data.segmentDefinitions.pageInfo.hasNextPage) {
    const after = data.segmentDefinitions.pageInfo.endCursor;
    ({ data } = await query.fetchMore({ variables: { first: 2, after } }));
  }
  const joined = apollo.cache.readQuery({ query: DEFINITIONS });
  assert.deepEqual(joined.segmentDefinitions.edges.map((edge) => edge.node.name), ["B", "D", "E", "F", "H", "J"]);
  watching.unsubscribe();
  await webSocket.dispose();
});

test("what a mutation returns is in every query that showed the object", async () => {
  const gateway = new Gateway("apollo-2");
  await gateway.load();
  const { id } = await gateway.define("Old name");
  const { apollo, webSocket } = client(gateway);
  await apollo.query({ query: DEFINITIONS, variables: { first: 2 } });
  const { data } = await apollo.mutate({
    mutation: gql`
      mutation ($id: ID!) {
        updateSegmentDefinition(input: { id: $id, name: "New name" }) { definition { id name } errors { message } }
      }
    `,
    variables: { id },
  });
  assert.deepEqual(data.updateSegmentDefinition.errors, []);
  const cached = apollo.cache.readQuery({ query: DEFINITIONS });
  assert.deepEqual(cached.segmentDefinitions.edges.map((edge) => edge.node.name), ["New name"]);
  await webSocket.dispose();
});

test("a refusal is data, and a failed request an error with its code", async () => {
  const { apollo, webSocket } = client(new Gateway("apollo-3"));
  const refused = await apollo.mutate({
    mutation: gql`
      mutation {
        createSegmentDefinition(input: { name: "X", expression: "1 +" }) {
          definition { id }
          errors { code path ... on ExpressionError { diagnostics { kind line column } } }
        }
      }
    `,
  });
  assert.equal(refused.data.createSegmentDefinition.definition, null);
  const [error] = refused.data.createSegmentDefinition.errors;
  assert.deepEqual([error.code, error.path], ["INVALID_EXPRESSION", ["input", "expression"]]);
  assert.deepEqual(error.diagnostics.map(({ kind, line, column }) => [kind, line, column]), [["SYNTAX", 1, 4]]);
  await assert.rejects(apollo.query({ query: DEFINITIONS, variables: { first: 501 } }), (failure) => {
    assert.equal(failure.errors[0].extensions.code, "LIMIT_EXCEEDED");
    return true;
  });
  await webSocket.dispose();
});

test("a subscription follows a job through the same client", async () => {
  const gateway = new Gateway("apollo-4");
  await gateway.load();
  await gateway.define("Over 500");
  const id = await gateway.start();
  const { apollo, webSocket } = client(gateway);
  const states = await new Promise((resolve, reject) => {
    const found = [];
    apollo
      .subscribe({
        query: gql`
          subscription ($id: ID!) { segmentJobUpdated(id: $id, after: 0) { id status progress { sequence } } }
        `,
        variables: { id },
      })
      .subscribe({
        next: ({ data }) => found.push(data.segmentJobUpdated),
        error: reject,
        complete: () => resolve(found),
      });
  });
  assert.equal(states.at(-1).status, "SUCCEEDED");
  assert.deepEqual(states.map((state) => state.progress.sequence), states.map((_, at) => at + 1));
  await webSocket.dispose();
});

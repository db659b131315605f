// One server, seen from a sandbox of one's own: what every test here begins with.
import assert from "node:assert/strict";
import { breaking } from "./cut.mjs";

export const url = `${process.env.GATEWAY_URL}/graphql`;
export const webSocketUrl = url.replace(/^http/, "ws");

const PURCHASES = `customer,when,dollars
00001,2026-01-01T10:00:00Z,12.5
00002,2026-01-02T10:00:00Z,700
00001,2026-02-01T00:00:00Z,600
`;

export class Gateway {
  constructor(sandbox) {
    this.headers = { "x-sandbox-name": sandbox };
  }

  async query(query, variables = {}) {
    const response = await fetch(url, {
      method: "POST",
      headers: { "content-type": "application/json", ...this.headers },
      body: JSON.stringify({ query, variables }),
    });
    const answer = await response.json();
    assert.equal(answer.errors, undefined, JSON.stringify(answer.errors));
    return answer.data;
  }

  // Three purchases of two people.
  async load() {
    const created = await this.query(
      `mutation { createDataset(input: {name: "purchases", kind: EVENT, timestampColumn: "when",
         primaryIdentity: {column: "customer", namespace: "crm"}}) { dataset { datasetId } errors { message } } }`,
    );
    assert.deepEqual(created.createDataset.errors, []);
    const datasetId = created.createDataset.dataset.datasetId;
    const form = new FormData();
    const query = `mutation ($input: UploadBatchInput!) {
      uploadBatch(input: $input) { batch { rowCount } errors { message } } }`;
    form.append("operations", JSON.stringify({ query, variables: { input: { datasetId, file: null, format: "CSV" } } }));
    form.append("map", JSON.stringify({ 0: ["variables.input.file"] }));
    form.append("0", new Blob([PURCHASES]), "purchases.csv");
    const response = await fetch(url, {
      method: "POST",
      headers: { ...this.headers, "graphql-preflight": "1" },
      body: form,
    });
    const { data } = await response.json();
    assert.deepEqual(data.uploadBatch, { batch: { rowCount: 3 }, errors: [] });
  }

  async define(name, expression = "xEvent.sum(dollars) > 500") {
    const { createSegmentDefinition } = await this.query(
      `mutation ($name: String!, $expression: String!) {
         createSegmentDefinition(input: {name: $name, expression: $expression}) {
           definition { id segmentId } errors { message } } }`,
      { name, expression },
    );
    assert.deepEqual(createSegmentDefinition.errors, []);
    return createSegmentDefinition.definition;
  }

  async start() {
    const { createSegmentJob } = await this.query(
      `mutation { createSegmentJob(input: {allDefinitions: true}) { job { jobId } errors { message } } }`,
    );
    assert.deepEqual(createSegmentJob.errors, []);
    return createSegmentJob.job.jobId;
  }
}

export const WATCH = `subscription ($id: ID!, $after: Int) { segmentJobUpdated(id: $id, after: $after) {
  status progress { fraction sequence } } }`;

// A connection that breaks after the first state, and a client that goes on with `after`: every state once, in order.
// `subscribe` gets what to wait for before it connects again: until the loop has the state, `after` is still 0.
export async function resumes(gateway, piece, subscribe) {
  await gateway.load();
  await gateway.define("Over 500");
  const id = await gateway.start();
  const variables = { id, after: 0 };
  const first = Promise.withResolvers();
  // At its end it has several states, which then come as fast as they can.
  await all(subscribe({ query: WATCH, variables }, url, first.promise));
  const way = await breaking(process.env.GATEWAY_URL, piece);
  const sequences = [];
  try {
    for await (const { data } of subscribe({ query: WATCH, variables }, way.url, first.promise)) {
      variables.after = data.segmentJobUpdated.progress.sequence;
      sequences.push(variables.after);
      first.resolve();
    }
  } finally {
    way.close();
  }
  assert.equal(way.connections.length, 2, JSON.stringify(sequences));
  assert.ok(sequences.length > 1);
  assert.deepEqual(sequences, sequences.map((_, at) => at + 1));
}

// Every state once, in order, up to a final one; and what a client that resumes after the first gets.
export async function watchesAJob(gateway, subscribe) {
  await gateway.load();
  await gateway.define("Over 500");
  const id = await gateway.start();
  const states = await all(subscribe({ query: WATCH, variables: { id, after: 0 } }));
  assert.equal(states.at(-1).status, "SUCCEEDED");
  assert.equal(states.at(-1).progress.fraction, 1);
  assert.deepEqual(
    states.map((state) => state.progress.sequence),
    states.map((_, at) => at + 1),
  );
  const rest = await all(subscribe({ query: WATCH, variables: { id, after: 1 } }));
  assert.deepEqual(rest, states.slice(1));
}

async function all(results) {
  const found = [];
  for await (const result of results) {
    assert.equal(result.errors, undefined, JSON.stringify(result.errors));
    found.push(result.data.segmentJobUpdated);
  }
  return found;
}

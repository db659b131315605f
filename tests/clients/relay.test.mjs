// Relay's runtime with operations that its compiler has made from `operations`: a store, a page, an object by its id.
import assert from "node:assert/strict";
import test from "node:test";
import { pathToFileURL } from "node:url";
import relay from "relay-runtime";
import { Gateway, url } from "./gateway.mjs";

const made = async (name) => (await import(pathToFileURL(`${process.env.RELAY_ARTIFACTS}/${name}.graphql.js`))).default;

function environment(gateway) {
  const fetchFn = async ({ text }, variables) => {
    const response = await fetch(url, {
      method: "POST",
      headers: { "content-type": "application/json", ...gateway.headers },
      body: JSON.stringify({ query: text, variables }),
    });
    return response.json();
  };
  return new relay.Environment({ network: relay.Network.create(fetchFn), store: new relay.Store(new relay.RecordSource()) });
}

test("compiled operations fill the store, each object under its global id", async () => {
  const gateway = new Gateway("relay");
  await gateway.load();
  const { id } = await gateway.define("Over 500");
  const relayed = environment(gateway);
  await relay.fetchQuery(relayed, await made("DefinitionsPageQuery"), { first: 2 }).toPromise();
  const name = () => relayed.getStore().getSource().get(id).name;
  assert.equal(name(), "Over 500");
  const job = await new Promise(async (resolve, reject) =>
    relay.commitMutation(relayed, {
      mutation: await made("JobWatchStartMutation"),
      variables: { input: { definitionIds: [id] } },
      onCompleted: ({ createSegmentJob }) => resolve(createSegmentJob.job),
      onError: reject,
    }),
  );
  assert.equal(relayed.getStore().getSource().get(job.id).__typename, "SegmentJob");
});

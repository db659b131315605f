// How GraphiQL reaches the server: errors that people can read, and subscriptions that go on after a restart.
import { createGraphiQLFetcher, type Fetcher } from '@graphiql/toolkit';
import { createClient } from 'graphql-ws';

import { GRAPHQL, SOCKET } from '../shared/address';
import { checkSandbox } from './unknownSandbox';

const LONGEST_PAUSE = 5_000;

/** Those of the headers editor, as the last operation had them. */
let headers: Record<string, string> = {};

export const currentHeaders = () => headers;

/** A proxy or a stopped server answers with text, or not at all: say that, not what the JSON parser thinks of it. */
const fetchJson: typeof fetch = async (input, init) => {
  let response: Response;
  try {
    response = await fetch(input, init);
  } catch {
    throw new Error(`The server at ${GRAPHQL} cannot be reached. Is it running? Run the operation again when it is.`);
  }
  if (!/\bjson\b/.test(response.headers.get('content-type') ?? '')) {
    throw new Error(`${response.status} ${response.statusText}: ${(await response.text()).slice(0, 1000)}`);
  }
  return response;
};

const wsClient = createClient({
  url: SOCKET,
  // The headers editor also fills the socket's connection payload.
  connectionParams: () => headers,
  // A restart, or a network that is gone for a while: subscriptions are asked for again and begin with the present state.
  shouldRetry: () => true,
  retryAttempts: Infinity,
  retryWait: (retries) => new Promise((done) => setTimeout(done, Math.min(500 * 2 ** retries, LONGEST_PAUSE))),
});

const plain = createGraphiQLFetcher({
  url: GRAPHQL,
  wsClient,
  headers: { 'x-requested-with': 'graphiql' },
  enableIncrementalDelivery: false,
  fetch: fetchJson,
});

export const fetcher: Fetcher = (params, options) => {
  const own = (options?.headers as Record<string, string> | undefined) ?? {};
  headers = own;
  const answer = plain(params, options);
  if (params.operationName !== 'IntrospectionQuery') {
    void Promise.resolve(answer).then(
      () => checkSandbox(own),
      () => undefined, // The answer says what is wrong.
    );
  }
  return answer;
};

// GraphiQL for the address that it is served from: HTTP and WebSocket on that same address, nothing from elsewhere.
import 'graphiql/setup-workers/vite';
import 'graphiql/style.css';
import '@graphiql/plugin-explorer/style.css';
import '../shared/tabLeaves';
import './page.css';

import { explorerPlugin } from '@graphiql/plugin-explorer';
import { HISTORY_PLUGIN } from '@graphiql/plugin-history';
import { createGraphiQLFetcher } from '@graphiql/toolkit';
import { GraphiQL } from 'graphiql';
import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';

import { GRAPHQL, ROOT, SOCKET } from '../shared/address';
import { FIRST_QUERY } from './firstQuery';

/** A proxy or a stopped server answers with text: show that text, not the JSON parser's complaint. */
const fetchJson: typeof fetch = async (input, init) => {
  const response = await fetch(input, init);
  if (!/\bjson\b/.test(response.headers.get('content-type') ?? '')) {
    throw new Error(`${response.status} ${response.statusText}: ${(await response.text()).slice(0, 1000)}`);
  }
  return response;
};

const fetcher = createGraphiQLFetcher({
  url: GRAPHQL,
  // The headers editor also fills the socket's connection payload.
  subscriptionUrl: SOCKET,
  headers: { 'x-requested-with': 'graphiql' },
  enableIncrementalDelivery: false,
  fetch: fetchJson,
});

const plugins = [HISTORY_PLUGIN, explorerPlugin({ showAttribution: false })];

createRoot(document.getElementById('graphiql')!).render(
  <StrictMode>
    {/* Headers may carry a token: they are never stored, and there is no switch for it. */}
    <GraphiQL
      fetcher={fetcher}
      plugins={plugins}
      defaultQuery={FIRST_QUERY}
      isHeadersEditorEnabled
      shouldPersistHeaders={false}
      showPersistHeadersSettings={false}
    >
      <GraphiQL.Logo>
        <a className="to-workplace" href={ROOT}>
          ← Workplace
        </a>
      </GraphiQL.Logo>
    </GraphiQL>
  </StrictMode>,
);

// GraphiQL for the server that it is served from: HTTP and WebSocket on that same address, nothing from elsewhere.
import 'graphiql/setup-workers/vite';
import 'graphiql/style.css';
import '@graphiql/plugin-explorer/style.css';
import '../shared/tabLeaves';
import './page.css';

import { explorerPlugin } from '@graphiql/plugin-explorer';
import { HISTORY_PLUGIN } from '@graphiql/plugin-history';
import { GraphiQL } from 'graphiql';
import { StrictMode, useSyncExternalStore } from 'react';
import { createRoot } from 'react-dom/client';

import { ROOT } from '../shared/address';
import { isDark, onThemeChange } from '../shared/theme';
import { EXAMPLES_PLUGIN } from './Examples';
import { fetcher } from './fetcher';
import { FIRST_HEADERS, FIRST_QUERY } from './firstQuery';
import { onSandboxWarning, sandboxWarning } from './unknownSandbox';

void import('./pqlInside');

const plugins = [EXAMPLES_PLUGIN, HISTORY_PLUGIN, explorerPlugin({ showAttribution: false })];

function Page() {
  // The workplace's choice of theme holds here too, and follows the system while the page is open.
  const dark = useSyncExternalStore(onThemeChange, isDark);
  const warning = useSyncExternalStore(onSandboxWarning, sandboxWarning);
  return (
    <>
      <p className="unknown-sandbox" role="status">
        {warning}
      </p>
      {/* Headers may carry a token: they are never stored, and there is no switch for it. */}
      <GraphiQL
        fetcher={fetcher}
        plugins={plugins}
        defaultQuery={FIRST_QUERY}
        defaultHeaders={FIRST_HEADERS}
        forcedTheme={dark ? 'dark' : 'light'}
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
    </>
  );
}

createRoot(document.getElementById('graphiql')!).render(
  <StrictMode>
    <Page />
  </StrictMode>,
);

// The workplace: one page for everything that the API offers.
import './styles.css';

import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { RouterProvider } from '@tanstack/react-router';
import { Provider } from 'urql';

import { applyTheme } from '../shared/theme';
import { client } from './api/client';
import { router } from './router';

applyTheme();

createRoot(document.getElementById('work')!).render(
  <StrictMode>
    <Provider value={client}>
      <RouterProvider router={router} />
    </Provider>
  </StrictMode>,
);

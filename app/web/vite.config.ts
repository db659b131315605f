import locales from '@react-aria/optimize-locales-plugin';
import { defineConfig } from 'vite';

export default defineConfig({
  // Everything is relative to the page, so that it also works behind a proxy with a path prefix.
  base: './',
  build: {
    // Both pages, / and /graphql, have their files under /graphql/assets/….
    assetsDir: 'graphql/assets',
    // Monaco and its GraphQL mode are what is large, and only the editors load them.
    chunkSizeWarningLimit: 8192,
    // A polyfill for old browsers, which GraphiQL 5 does not support anyway.
    modulePreload: { polyfill: false },
    rolldownOptions: {
      input: ['index.html', 'graphql.html'],
      // Dependencies say "use client" for server rendering, which this page has not.
      onLog: (level, log, handle) => log.code !== 'MODULE_LEVEL_DIRECTIVE' && handle(level, log),
    },
  },
  // The pages speak English: React Aria's words in thirty other languages stay out.
  plugins: [locales.vite({ locales: ['en-US'] })],
  worker: { format: 'es' },
});

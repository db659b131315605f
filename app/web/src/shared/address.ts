// Where the server is: the pages also work behind a proxy with a path prefix.

/** The scripts are at PREFIX/graphql/assets/…; in development, at PREFIX/src/…. */
const script = new URL(import.meta.url);

/** Path of the server's root, ending in a slash. */
export const ROOT = script.pathname.replace(/(graphql\/assets|src\/shared)\/[^/]*$/, '');

export const GRAPHQL = new URL(`${ROOT}graphql`, location.origin).href;
export const SOCKET = GRAPHQL.replace(/^http/, 'ws');
export const HEALTH = new URL(`${ROOT}health/live`, location.origin).href;

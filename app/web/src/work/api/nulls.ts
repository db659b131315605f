// Errors that made more null than the field they name, told to the cache as errors of what became null.
import { mapExchange, type Exchange } from '@urql/core';

/**
 * A field that may not be null takes its parents along when it fails: an error at `audience.members` leaves `audience: null`.
 * The cache takes only what an error names for unknown, and would believe that there is no such audience, in every view.
 */
export const nullsOfErrors: Exchange = mapExchange({
  onResult: ({ data, error }) => {
    for (const each of error?.graphQLErrors ?? []) {
      const path = each.path?.slice(0, depthOfNull(data, each.path));
      if (path) (each as { path?: readonly (string | number)[] }).path = path;
    }
  },
});

/** How many steps of a path lead to the first null on it; all of them when there is none. */
function depthOfNull(data: unknown, path: readonly (string | number)[]): number {
  let inner = data;
  for (const [depth, step] of path.entries()) {
    if (inner === null || inner === undefined) return depth;
    inner = (inner as Record<string | number, unknown>)[step];
  }
  return path.length;
}

// What went wrong and what to do, in words for those who look at the page.
import type { CombinedError } from '@urql/core';

const ANOTHER_KEY = 'Another token or key is given by the button with organisation and sandbox, at the bottom of the navigation.';

/** No answer came. */
export class Lost extends Error {
  constructor() {
    super('The server cannot be reached. This page asks again by itself as soon as it is back.');
  }
}

/** An answer that is none of the API: of a proxy, say. */
export class Foreign extends Error {
  constructor(answer: string) {
    super(`What answered was not the API (${answer}). If a proxy stands before the server, look at its limits and its log.`);
  }
}

const VERBS: Record<string, string> = { read: 'read', write: 'change', run: 'run', admin: 'administer' };

/** `schedules:read` in a sentence; a resource by its words: `mergePolicies` are merge policies. */
export function lackOf(...permissions: string[]): string {
  const parts = permissions.map((permission) => permission.split(':'));
  const resources = parts.map(([resource]) => resource.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`));
  return `You may not ${VERBS[parts[0][1]]} ${resources.join(' and ')}: ask for the permission${parts.length > 1 ? 's' : ''} ${permissions.join(' and ')}.`;
}

/** Of a refusal, what is missing. */
const sentenceOf = (message: string) => {
  const permission = / needs the permission (\w+:\w+), /.exec(message)?.[1];
  return permission ? lackOf(permission) : message;
};

/** The sentences of an error of a query, a mutation or a stream. */
export function problemOf(error: CombinedError | Error): string {
  const { networkError, graphQLErrors = [] } = error as Partial<CombinedError>;
  if (networkError || graphQLErrors.length === 0) return (networkError ?? error).message;
  const sentences = new Set(graphQLErrors.map((each) => (each.extensions?.code === 'FORBIDDEN' ? sentenceOf(each.message) : each.message)));
  if (graphQLErrors.some((each) => each.extensions?.code === 'FORBIDDEN')) sentences.add(ANOTHER_KEY);
  return [...sentences].join('\n');
}

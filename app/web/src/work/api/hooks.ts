// How views read and write: urql's hooks, which ask again when a lost server is back.
import { createRequest, type AnyVariables, type CombinedError, type TypedDocumentNode } from '@urql/core';
import { useEffect, useRef } from 'react';
import { useClient, useQuery } from 'urql';

import { useConnection } from './connection';
import { Lost, problemOf } from './problem';

export interface Loaded<Data> {
  data: Data | undefined;
  /** Nothing to show yet. */
  loading: boolean;
  /** A newer answer is on its way. */
  stale: boolean;
  error: CombinedError | undefined;
  again: () => void;
}

export function useData<Data, Variables extends AnyVariables>(
  query: TypedDocumentNode<Data, Variables>,
  variables: Variables,
  options: { pause?: boolean } = {},
): Loaded<Data> {
  const [result, execute] = useQuery<Data, Variables>({ query, variables, pause: options.pause } as never);
  const { epoch, state } = useConnection();
  const read = useRef(epoch);
  // Without an answer, what was read before is still the best there is; a draft that was made from it stays.
  const { key } = createRequest(query, variables);
  const last = useRef<{ key: number; data: Data }>(undefined);
  if (result.data) last.current = { key, data: result.data };
  const data = last.current?.key === key ? last.current.data : undefined;
  useEffect(() => {
    if (read.current === epoch || options.pause) return;
    read.current = epoch;
    execute({ requestPolicy: 'network-only' });
  }, [epoch, execute, options.pause]);
  return {
    data,
    loading: result.fetching && data === undefined,
    stale: result.stale || result.fetching,
    // While the banner says why nothing newer comes, views show what they have.
    error: data !== undefined && state !== 'online' ? undefined : result.error,
    again: () => execute({ requestPolicy: 'network-only' }),
  };
}

export interface Refusal {
  message: string;
  path?: string[];
  code?: string;
  dependents?: unknown[];
  diagnostics?: unknown[];
}

export class Refused extends Error {
  readonly errors: Refusal[];
  constructor(errors: Refusal[]) {
    super(errors.map((error) => error.message).join('\n'));
    this.errors = errors;
  }
}

/** One mutation: its payload, or `Refused` with what the caller did wrong, or the error of the transport. */
export function useAct() {
  const client = useClient();
  return async <Data extends object, Variables extends AnyVariables>(
    mutation: TypedDocumentNode<Data, Variables>,
    variables: Variables,
  ): Promise<Data> => {
    const { data, error } = await client.mutation(mutation, variables).toPromise();
    if (error?.networkError instanceof Lost) throw new Error('The server did not answer. When it is back, see whether the change has arrived before you try again.');
    if (error || !data) throw new Error(error ? problemOf(error) : 'The server sent no answer: try again.');
    for (const payload of Object.values(data) as { errors?: Refusal[] }[]) {
      if (payload?.errors?.length) throw new Refused(payload.errors);
    }
    return data;
  };
}

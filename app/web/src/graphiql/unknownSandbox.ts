// A name that is mistyped in the headers makes an empty sandbox of its own: say so, instead of answering with nothing.
import { GRAPHQL } from '../shared/address';

const QUERY = 'query Sandboxes { viewer { organisation sandbox sandboxes { name } } }';

interface Viewer {
  organisation: string;
  sandbox: string;
  sandboxes: { name: string }[];
}

let warning = '';
let asked = '';
const listeners = new Set<() => void>();

export const sandboxWarning = () => warning;

export function onSandboxWarning(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Looks at the tenant of an operation: once for each set of headers, and again for as long as there is a warning. */
export async function checkSandbox(headers: Record<string, string>): Promise<void> {
  const key = JSON.stringify(headers);
  if (key === asked && !warning) return;
  asked = key;
  const found = await warningOf(headers);
  if (key !== asked || found === warning) return;
  warning = found;
  listeners.forEach((listener) => listener());
}

async function warningOf(headers: Record<string, string>): Promise<string> {
  try {
    const response = await fetch(GRAPHQL, {
      method: 'POST',
      headers: { ...headers, 'content-type': 'application/json', 'x-requested-with': 'graphiql' },
      body: JSON.stringify({ query: QUERY }),
    });
    const viewer = ((await response.json()) as { data?: { viewer?: Viewer } }).data?.viewer;
    const names = viewer?.sandboxes.map((sandbox) => sandbox.name) ?? [];
    // Of an organisation that has nothing yet, no name is wrong.
    if (!viewer || !names.length || names.includes(viewer.sandbox)) return '';
    return `Nothing is stored in the sandbox ${viewer.sandbox} of ${viewer.organisation}. Sandboxes with data: ${names.join(', ')}.`;
  } catch {
    return ''; // The operation itself says what is wrong.
  }
}

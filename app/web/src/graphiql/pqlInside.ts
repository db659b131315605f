// Completion of PQL inside of `expression: "…"` in the query editor, from the same API as the workplace's editor.
import type * as Monaco from 'monaco-editor';
import * as core from 'monaco-graphql/esm/monaco-editor.js';

import { GRAPHQL } from '../shared/address';
import { currentHeaders } from './fetcher';

const monaco = core as unknown as typeof Monaco;
const COMPLETIONS = 50;
const QUERY = `query Complete($expression: String!, $offset: Int!, $first: Int!) {
  pql { complete(expression: $expression, offset: $offset, first: $first) { text detail kind replaceFrom replaceTo } }
}`;

interface Item {
  text: string;
  detail: string | null;
  kind: string;
  replaceFrom: number;
  replaceTo: number;
}

/** The expression around the cursor: its characters, and where each stands in the document. */
interface Inside {
  characters: string[];
  places: number[];
  cursor: number;
  block: boolean;
}

/** Reads a string of GraphQL from `start` (after its quotes) to its end; undefined when it has ended before `offset`. */
function inside(text: string, offset: number): Inside | undefined {
  const opened = /expression:\s*("""|")(?=[^]*$)/g;
  for (const match of text.slice(0, offset).matchAll(opened)) {
    const block = match[1] === '"""';
    const characters: string[] = [];
    const places: number[] = [];
    let place = match.index + match[0].length;
    while (place < text.length && !text.startsWith(match[1], place) && (block || text[place] !== '\n')) {
      const length = text[place] === '\\' && !block ? 2 : String.fromCodePoint(text.codePointAt(place)!).length;
      const raw = text.slice(place, place + length);
      characters.push(raw === '\\n' ? '\n' : length === 2 && raw[0] === '\\' ? raw[1] : raw);
      places.push(place);
      place += length;
    }
    places.push(place);
    if (offset >= places[0] && offset <= place) {
      return { characters, places, cursor: places.findIndex((each) => each >= offset), block };
    }
  }
  return undefined;
}

async function complete(expression: string, offset: number): Promise<Item[]> {
  const response = await fetch(GRAPHQL, {
    method: 'POST',
    headers: { accept: 'application/json', 'content-type': 'application/json', ...currentHeaders() },
    body: JSON.stringify({ query: QUERY, variables: { expression, offset, first: COMPLETIONS } }),
  });
  const answer = (await response.json()) as { data?: { pql: { complete: Item[] } } };
  return answer.data?.pql.complete ?? [];
}

monaco.languages.registerCompletionItemProvider('graphql', {
  triggerCharacters: ['.', '"', ' ', '(', '['],
  async provideCompletionItems(model, position) {
    const within = inside(model.getValue(), model.getOffsetAt(position));
    if (!within) return { suggestions: [] };
    const { characters, places, cursor, block } = within;
    const items = await complete(characters.join(''), cursor);
    const written = (text: string) => (block ? text : text.replaceAll('\\', '\\\\').replaceAll('"', '\\"'));
    return {
      incomplete: true,
      suggestions: items.map((item, index) => ({
        label: { label: item.kind === 'SEGMENT' ? (item.detail ?? item.text) : item.text, description: item.kind === 'SEGMENT' ? item.text : (item.detail ?? '') },
        kind: monaco.languages.CompletionItemKind.Field,
        insertText: written(item.text),
        filterText: written(item.text),
        sortText: String(index).padStart(4, '0'),
        range: monaco.Range.fromPositions(model.getPositionAt(places[item.replaceFrom]), model.getPositionAt(places[item.replaceTo])),
      })),
    };
  },
});

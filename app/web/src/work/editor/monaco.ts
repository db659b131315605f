// Monaco with PQL: loaded when an editor is opened, and shared with GraphiQL's page.
import '../../shared/tabLeaves';

import type * as Monaco from 'monaco-editor';
import EditorWorker from 'monaco-editor/esm/vs/editor/editor.worker.js?worker';
import * as core from 'monaco-graphql/esm/monaco-editor.js';

import { client } from '../api/client';
import { CompleteExpressionDocument, FunctionsDocument, type PqlCompletionKind } from '../api/operations';
import { isDark, onThemeChange } from '../../shared/theme';

export const monaco = core as unknown as typeof Monaco;

(globalThis as { MonacoEnvironment?: Monaco.Environment }).MonacoEnvironment = { getWorker: () => new EditorWorker() };

export const LANGUAGE = 'pql';
const COMPLETIONS = 60;

monaco.languages.register({ id: LANGUAGE });
monaco.languages.setLanguageConfiguration(LANGUAGE, {
  brackets: [['(', ')'], ['[', ']']],
  autoClosingPairs: [
    { open: '(', close: ')' },
    { open: '[', close: ']' },
    { open: '"', close: '"', notIn: ['string'] },
  ],
  wordPattern: /[A-Za-z_$^][\w$]*/,
});
monaco.languages.setMonarchTokensProvider(LANGUAGE, {
  ignoreCase: true,
  keywords: [
    'and', 'or', 'not', 'in', 'notin', 'exists', 'forall', 'select', 'from', 'where', 'over', 'let', 'if', 'occurs', 'like',
    'chain', 'what', 'when', 'before', 'after', 'between', 'on', 'this', 'last', 'next', 'now', 'today', 'yesterday', 'tomorrow',
    'true', 'false', 'null', 'sum', 'count', 'average', 'min', 'max',
  ],
  tokenizer: {
    root: [
      [/"(?:[^"\\]|\\.)*"?/, 'string'],
      [/\d+(\.\d+)?([eE][+-]?\d+)?/, 'number'],
      [/[A-Za-z_]\w*(?=\s*\()/, { cases: { '@keywords': 'keyword', '@default': 'type' } }],
      [/[A-Za-z_]\w*/, { cases: { '@keywords': 'keyword', '@default': 'identifier' } }],
      [/[=<>!+\-*/%^]+/, 'operator'],
    ],
  },
});

const colours = (dark: boolean): Monaco.editor.IStandaloneThemeData => ({
  base: dark ? 'vs-dark' : 'vs',
  inherit: true,
  rules: [
    { token: 'string', foreground: dark ? '8ad7a8' : '137a4b' },
    { token: 'number', foreground: dark ? 'e8b661' : '8a5a00' },
    { token: 'keyword', foreground: dark ? 'a39bff' : '4f46d8', fontStyle: '' },
    { token: 'type', foreground: dark ? '7db1ff' : '1d63c7' },
  ],
  colors: { 'editor.background': dark ? '#17181c' : '#ffffff', focusBorder: '#00000000' },
});
monaco.editor.defineTheme('pql-light', colours(false));
monaco.editor.defineTheme('pql-dark', colours(true));
const follow = () => monaco.editor.setTheme(isDark() ? 'pql-dark' : 'pql-light');
follow();
onThemeChange(follow);

const KINDS: Record<PqlCompletionKind, Monaco.languages.CompletionItemKind> = {
  FIELD: monaco.languages.CompletionItemKind.Field,
  FUNCTION: monaco.languages.CompletionItemKind.Function,
  KEYWORD: monaco.languages.CompletionItemKind.Keyword,
  SEGMENT: monaco.languages.CompletionItemKind.Reference,
  VALUE: monaco.languages.CompletionItemKind.Value,
};

/** The server counts characters, Monaco UTF-16 units. */
const characters = (text: string, offset: number) => [...text.slice(0, offset)].length;
const units = (text: string, offset: number) => [...text].slice(0, offset).join('').length;

monaco.languages.registerCompletionItemProvider(LANGUAGE, {
  triggerCharacters: ['.', '"', '(', '[', ' ', '='],
  async provideCompletionItems(model, position) {
    const text = model.getValue();
    const offset = characters(text, model.getOffsetAt(position));
    const { data } = await client
      .query(CompleteExpressionDocument, { expression: text, offset, first: COMPLETIONS }, { requestPolicy: 'network-only' })
      .toPromise();
    const suggestions = (data?.pql.complete ?? []).map((item, index): Monaco.languages.CompletionItem => {
      const start = model.getPositionAt(units(text, item.replaceFrom));
      let end = units(text, item.replaceTo);
      // The closing quote that the editor put there by itself is part of the value.
      if (item.text.endsWith('"') && text[end] === '"') end += 1;
      const range = monaco.Range.fromPositions(start, model.getPositionAt(end));
      return {
        label: item.kind === 'SEGMENT' ? { label: item.detail ?? item.text, description: item.text } : { label: item.text, description: item.detail ?? '' },
        kind: KINDS[item.kind],
        insertText: item.text,
        filterText: item.kind === 'SEGMENT' ? `${text.slice(units(text, item.replaceFrom), end)}${item.detail} ${item.text}` : item.text,
        range,
        sortText: String(index).padStart(4, '0'),
      };
    });
    return { suggestions, incomplete: true };
  },
});

monaco.languages.registerHoverProvider(LANGUAGE, {
  async provideHover(model, position) {
    const word = model.getWordAtPosition(position);
    if (!word) return null;
    const { data } = await client.query(FunctionsDocument, {}, { requestPolicy: 'cache-first' }).toPromise();
    const named = data?.pql.functions.filter((each) => each.name.toLowerCase() === word.word.toLowerCase()) ?? [];
    if (named.length === 0) return null;
    return {
      range: new monaco.Range(position.lineNumber, word.startColumn, position.lineNumber, word.endColumn),
      contents: named.flatMap((each) => [
        { value: `\`${each.signature}\`` },
        { value: `${each.description}\n\n\`\`\`pql\n${each.example}\n\`\`\`` },
      ]),
    };
  },
});

// The examples beside the editor: each opens in a tab of its own and runs against the demo's data as it is.
import { type GraphiQLPlugin, useGraphiQL, useGraphiQLActions } from '@graphiql/react';

const files = import.meta.glob<string>('./examples/*.graphql', { query: '?raw', import: 'default', eager: true });

const examples = Object.values(files).map((text) => ({
  text,
  names: [...text.matchAll(/^(?:query|mutation|subscription) (\w+)/gm)].map((match) => match[1]),
  about: text
    .split('\n')
    .filter((line) => line.startsWith('# '))
    .map((line) => line.slice(2))
    .join(' '),
}));

function Examples() {
  const { addTab } = useGraphiQLActions();
  const editor = useGraphiQL((state) => state.queryEditor);
  const open = (text: string) => {
    addTab();
    // The new tab has put its own text into the editor by then.
    setTimeout(() => {
      editor?.setValue(text);
      editor?.focus();
    });
  };
  return (
    <section aria-label="Examples" className="examples">
      <div className="graphiql-doc-explorer-title">Examples</div>
      <ul>
        {examples.map(({ text, names, about }) => (
          <li key={names[0]}>
            <button type="button" className="graphiql-un-styled" onClick={() => open(text)}>
              <strong>{names.join(', ')}</strong>
              <span>{about}</span>
            </button>
          </li>
        ))}
      </ul>
    </section>
  );
}

function ExamplesIcon() {
  return (
    <svg viewBox="0 0 16 16" fill="none" stroke="currentColor" strokeWidth="1.2" strokeLinejoin="round">
      <title>Examples</title>
      <path d="M8 1.8 9.7 5.8 14 6.2l-3.2 2.9 1 4.2L8 11.1l-3.8 2.2 1-4.2L2 6.2l4.3-.4L8 1.8Z" />
    </svg>
  );
}

export const EXAMPLES_PLUGIN: GraphiQLPlugin = { title: 'Examples', content: Examples, icon: ExamplesIcon };

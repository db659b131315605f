// The text of an expression: Monaco with completion, documentation at the cursor and diagnostics underlined.
import type * as Monaco from 'monaco-editor';
import { useEffect, useRef, useState } from 'react';

import type { CheckExpressionQuery } from '../api/operations';

export type Diagnostic = CheckExpressionQuery['pql']['check']['diagnostics'][number];

interface PqlEditorProps {
  value: string;
  onChange: (value: string) => void;
  diagnostics: Diagnostic[];
  onSave?: () => void;
}

export function PqlEditor({ value, onChange, diagnostics, onSave }: PqlEditorProps) {
  const host = useRef<HTMLDivElement>(null);
  const editor = useRef<Monaco.editor.IStandaloneCodeEditor>(undefined);
  const library = useRef<typeof Monaco>(undefined);
  const latest = useRef({ onChange, onSave, value });
  latest.current = { onChange, onSave, value };
  const [ready, setReady] = useState(false);

  useEffect(() => {
    let gone = false;
    void import('./monaco').then(({ monaco, LANGUAGE }) => {
      if (gone || !host.current) return;
      library.current = monaco;
      const created = monaco.editor.create(host.current, {
        value: latest.current.value,
        language: LANGUAGE,
        ariaLabel: 'Expression in PQL. Control Space completes, Tab leaves.',
        minimap: { enabled: false },
        lineNumbers: 'off',
        glyphMargin: false,
        folding: false,
        lineDecorationsWidth: 10,
        scrollBeyondLastLine: false,
        renderLineHighlight: 'none',
        overviewRulerLanes: 0,
        wordWrap: 'on',
        wrappingIndent: 'indent',
        fontFamily: "'JetBrains Mono', monospace",
        fontSize: 13,
        lineHeight: 21,
        padding: { top: 10, bottom: 10 },
        acceptSuggestionOnEnter: 'on',
        quickSuggestions: { strings: true, other: true, comments: false },
        suggest: { showWords: false, showIcons: true, preview: false },
        fixedOverflowWidgets: true,
        automaticLayout: true,
        scrollbar: { alwaysConsumeMouseWheel: false, vertical: 'auto' },
        bracketPairColorization: { enabled: false },
        unicodeHighlight: { ambiguousCharacters: false },
        contextmenu: false,
      });
      created.onDidChangeModelContent(() => latest.current.onChange(created.getValue()));
      created.addCommand(monaco.KeyMod.CtrlCmd | monaco.KeyCode.Enter, () => latest.current.onSave?.());
      const fit = () => {
        const height = Math.min(Math.max(created.getContentHeight(), 120), 480);
        if (host.current) host.current.style.height = `${height}px`;
      };
      created.onDidContentSizeChange(fit);
      fit();
      editor.current = created;
      setReady(true);
    });
    return () => {
      gone = true;
      editor.current?.getModel()?.dispose();
      editor.current?.dispose();
    };
  }, []);

  useEffect(() => {
    const current = editor.current;
    if (current && current.getValue() !== value) current.setValue(value);
  }, [value, ready]);

  useEffect(() => {
    const model = editor.current?.getModel();
    if (!model || !library.current) return;
    const severities = library.current.MarkerSeverity;
    library.current.editor.setModelMarkers(
      model,
      'pql',
      diagnostics.map((each) => ({
        message: each.message,
        severity: each.severity === 'ERROR' ? severities.Error : severities.Warning,
        startLineNumber: each.line,
        startColumn: each.column,
        endLineNumber: each.line,
        endColumn: each.column + Math.max(1, each.length),
      })),
    );
  }, [diagnostics, ready]);

  return (
    <div className="pql">
      {!ready && <pre className="code" aria-hidden="true">{value || ' '}</pre>}
      <div ref={host} hidden={!ready} />
    </div>
  );
}

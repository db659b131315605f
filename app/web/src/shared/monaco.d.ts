// Parts of Monaco that come without types of their own.
declare module 'monaco-graphql/esm/monaco-editor.js';
declare module 'monaco-editor/esm/vs/editor/browser/config/tabFocus.js' {
  export const TabFocus: { setTabFocusMode(on: boolean): void };
}

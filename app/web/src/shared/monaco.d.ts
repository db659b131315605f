// Parts of Monaco that come without types of their own.
declare module 'monaco-graphql/esm/monaco-editor.js';

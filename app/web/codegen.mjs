// Writes src/work/api/operations.ts: the types and documents of src/work/operations/*.graphql against ../../schema.graphql.
// `node codegen.mjs --check` changes nothing and fails when the file is not current.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';

import { codegen } from '@graphql-codegen/core';
import * as documents from '@graphql-codegen/typed-document-node';
import * as operations from '@graphql-codegen/typescript-operations';
import { buildSchema, isInterfaceType, isUnionType, parse } from 'graphql';

const here = (path) => new URL(path, import.meta.url);
const output = here('src/work/api/operations.ts');
const schemaText = readFileSync(here('../../schema.graphql'), 'utf8');
const schema = buildSchema(schemaText);
const sources = readdirSync(here('src/work/operations'))
  .filter((name) => name.endsWith('.graphql'))
  .sort()
  .map((name) => ({
    location: name,
    document: parse(readFileSync(here(`src/work/operations/${name}`), 'utf8'), { noLocation: true }),
  }));

const generated = await codegen({
  filename: 'operations.ts',
  schema: parse(schemaText),
  schemaAst: schema,
  documents: sources,
  config: {
    enumType: 'string-literal',
    // Rewording the schema changes no type.
    disableDescriptions: true,
    enumsAsTypes: true,
    useTypeImports: true,
    // As text, which is a sixth of the size of trees.
    documentMode: 'graphQLTag',
    gqlImport: '@urql/core#gql',
    dedupeFragments: true,
    inlineFragmentTypes: 'combine',
    skipTypename: false,
    scalars: {
      ID: 'string',
      BigInt: 'number',
      DateTime: 'string',
      JSON: 'unknown',
      Upload: 'File',
    },
  },
  plugins: [{ 'typescript-operations': {} }, { 'typed-document-node': {} }],
  pluginMap: { 'typescript-operations': operations, 'typed-document-node': documents },
});

const possible = Object.fromEntries(
  Object.values(schema.getTypeMap())
    .filter((type) => isInterfaceType(type) || isUnionType(type))
    .map((type) => [type.name, schema.getPossibleTypes(type).map((member) => member.name)]),
);
const text = [
  '// Written by `npm run codegen` from schema.graphql and src/work/operations; do not edit.',
  '/* eslint-disable */',
  generated.trim(),
  '',
  '/** For the cache: the object types behind each interface. */',
  `export const possibleTypes = ${JSON.stringify(possible)};`,
  '',
].join('\n');

if (process.argv.includes('--check')) {
  if (readFileSync(output, 'utf8') !== text) {
    console.error('src/work/api/operations.ts is not current: run `npm run codegen` in app/web');
    process.exit(1);
  }
} else {
  writeFileSync(output, text);
}

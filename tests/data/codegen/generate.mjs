// node generate.mjs CONFIG SCHEMA OPERATIONS OUTPUT: what GraphQL Code Generator makes of operations for Apollo Client.
import { readFileSync, writeFileSync } from 'node:fs';

import { codegen } from '@graphql-codegen/core';
import * as documents from '@graphql-codegen/typed-document-node';
import * as operations from '@graphql-codegen/typescript-operations';
import { buildSchema, parse } from 'graphql';

const [config, schemaFile, operationsFile, output] = process.argv.slice(1);
const schema = readFileSync(schemaFile, 'utf8');
writeFileSync(
  output,
  await codegen({
    filename: output,
    schema: parse(schema),
    schemaAst: buildSchema(schema),
    documents: [{ location: operationsFile, document: parse(readFileSync(operationsFile, 'utf8')) }],
    config: JSON.parse(readFileSync(config, 'utf8')),
    plugins: [{ operations: {} }, { documents: {} }],
    pluginMap: { operations, documents },
  }),
);

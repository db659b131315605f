// Checks ../../schema.graphql by the Relay rules of graphql-eslint: connections, edges, their arguments and PageInfo.
import graphql from '@graphql-eslint/eslint-plugin';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));

export default [
  {
    files: ['**/*.graphql'],
    plugins: { '@graphql-eslint': graphql },
    languageOptions: { parser: graphql.parser, parserOptions: { graphQLConfig: { schema: `${root}/schema.graphql` } } },
    rules: {
      ...graphql.configs['flat/schema-relay'].rules,
      // Relay's specification asks for neither Node in every edge nor edges in every list: a message's path is a list,
      // and an entry of a history is no object that could be fetched again.
      '@graphql-eslint/relay-edge-types': [
        'error',
        { withEdgeSuffix: true, shouldImplementNode: false, listTypeCanWrapOnlyEdgeType: false },
      ],
    },
  },
];

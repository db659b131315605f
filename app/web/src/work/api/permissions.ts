// What the caller may read, asked once: every request leaves out the rest, by `@include(if: $readFolders)` in its document.
import { makeOperation, mapExchange, type Exchange, type Operation } from '@urql/core';
import { useQuery } from 'urql';

import { ViewerDocument } from './operations';

/** As the server decides: a bare verb stands for every resource. */
const allows = (permissions: string[], permission: string) => permissions.includes(permission) || permissions.includes(permission.split(':')[1]);

/** Whether the caller has a permission such as `folders:read`; until it is known, yes: the server has the last word. */
export function useMay(): (permission: string) => boolean {
  const [{ data }] = useQuery({ query: ViewerDocument, variables: {}, requestPolicy: 'cache-first' });
  return (permission) => !data || allows(data.viewer.permissions, permission);
}

/** The variables of a document that stand for permissions, each with those that it needs: `readJobs_readExports` for two. */
function needsOf({ query }: Operation): [variable: string, permissions: string[]][] {
  return query.definitions.flatMap((definition) =>
    definition.kind !== 'OperationDefinition' ? [] : (definition.variableDefinitions ?? []).flatMap(({ variable: { name } }) => {
      const parts = name.value.split('_').map((part) => /^read([A-Z])(\w*)$/.exec(part));
      return parts.every((part) => part !== null) ? [[name.value, parts.map(([, first, rest]) => `${first.toLowerCase()}${rest}:read`)] as [string, string[]]] : [];
    }),
  );
}

/** Sets those variables by the permissions of the viewer, for every view; while they cannot be known, nothing is left out. */
export const leavesOutWhatIsForbidden: Exchange = (input) => {
  let permissions: string[] | undefined;
  let asking: Promise<void> | undefined;
  const ask = async () => {
    permissions = (await input.client.query(ViewerDocument, {}, { requestPolicy: 'cache-first' }).toPromise()).data?.viewer.permissions;
    asking = undefined;
  };
  return mapExchange({
    onOperation: (operation) => {
      const needs = needsOf(operation);
      if (needs.length === 0) return operation;
      const narrowed = () => {
        if (!permissions) return operation;
        const held = permissions;
        const may = needs.map(([variable, each]) => [variable, each.every((permission) => allows(held, permission))]);
        return makeOperation(operation.kind, { ...operation, variables: { ...operation.variables, ...Object.fromEntries(may) } }, operation.context);
      };
      // What is torn down meanwhile waits too, so that the order stays.
      return permissions ? narrowed() : (asking ??= ask()).then(narrowed);
    },
  })(input);
};

// What the caller may do, asked once. Requests leave out what may not be read, by `@include(if: $readFolders)` in their
// document; what may not be done has no button.
import { makeOperation, mapExchange, type Exchange, type Operation } from '@urql/core';
import type { DocumentNode } from 'graphql';
import { useQuery } from 'urql';

import { ViewerDocument } from './operations';

/** As the server decides: a bare verb stands for every resource. */
const allows = (permissions: string[], permission: string) => permissions.includes(permission) || permissions.includes(permission.split(':')[1]);

/** The permissions of the caller, as soon as they are known. */
export function usePermissions(): string[] | undefined {
  return useQuery({ query: ViewerDocument, variables: {}, requestPolicy: 'cache-first' })[0].data?.viewer.permissions;
}

/** Whether the caller has a permission such as `folders:read`; until it is known, yes: the server has the last word. */
export function useMay(): (permission: string) => boolean {
  const permissions = usePermissions();
  return (permission) => !permissions || allows(permissions, permission);
}

/** What each mutation of the page needs, as the server's own table has it; a test compares them. */
const NEEDS: Record<string, string> = {
  cancelExportJob: 'exports:run',
  cancelPreview: 'previews:run',
  cancelSegmentJob: 'jobs:run',
  createAudience: 'audiences:write',
  createDataset: 'datasets:write',
  createExportJob: 'exports:run',
  createFolder: 'folders:write',
  createPreview: 'previews:run',
  createSchedule: 'schedules:write',
  createSegmentJob: 'jobs:run',
  deleteAudience: 'audiences:write',
  deleteDataset: 'datasets:write',
  deleteSchedule: 'schedules:write',
  eraseProfile: 'erasures:admin',
  triggerSchedule: 'schedules:run',
  updateAudience: 'audiences:write',
  updateSchedule: 'schedules:write',
  uploadBatch: 'datasets:write',
};

/** The permissions that mutations need. */
export function needsToDo(mutations: DocumentNode[]): string[] {
  const selections = mutations.flatMap(({ definitions }) => definitions.flatMap((each) => (each.kind === 'OperationDefinition' ? each.selectionSet.selections : [])));
  return [...new Set(selections.flatMap((field) => (field.kind === 'Field' ? NEEDS[field.name.value] : [])))];
}

/** Whether the caller may do all of some mutations. */
export function useMayDo(): (...mutations: DocumentNode[]) => boolean {
  const may = useMay();
  return (...mutations) => needsToDo(mutations).every(may);
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

// Written by `npm run codegen` from schema.graphql and src/work/operations; do not edit.
/* eslint-disable */
/** Internal type. DO NOT USE DIRECTLY. */
type Exact<T extends { [key: string]: unknown }> = { [K in keyof T]: T[K] };
/** Internal type. DO NOT USE DIRECTLY. */
export type Incremental<T> = T | { [P in keyof T]?: P extends ' $fragmentName' | '__typename' ? T[P] : never };
import type { TypedDocumentNode as DocumentNode } from '@graphql-typed-document-node/core';
import { gql } from '@urql/core';
export type AudienceFilter = {
  id?: Array<string> | null | undefined;
  audienceId?: StringFilter | null | undefined;
  name?: StringFilter | null | undefined;
  description?: StringFilter | null | undefined;
  type?: Array<AudienceType> | null | undefined;
  origin?: Array<AudienceOrigin> | null | undefined;
  namespace?: StringFilter | null | undefined;
  lifecycleState?: Array<LifecycleState> | null | undefined;
  evaluationMethod?: EvaluationMethod | null | undefined;
  label?: string | null | undefined;
  mergePolicyId?: string | null | undefined;
  folderId?: string | null | undefined;
  createdBy?: StringFilter | null | undefined;
  createdAt?: DateTimeFilter | null | undefined;
  updatedAt?: DateTimeFilter | null | undefined;
};

export type AudienceOrder = {
  field: AudienceOrderField;
  direction: OrderDirection;
};

export type AudienceOrderField =
  | 'NAME'
  | 'CREATED_AT'
  | 'UPDATED_AT'
  | 'TOTAL_PROFILES';

export type AudienceOrigin =
  | 'REAL_TIME_CUSTOMER_PROFILE'
  | 'CUSTOM_UPLOAD'
  | 'AUDIENCE_ORCHESTRATION'
  | 'AUDIENCE_MANAGER'
  | 'AUDIENCE_MATCH';

export type AudienceType =
  | 'SEGMENT_DEFINITION'
  | 'EXTERNAL_SEGMENT';

export type BatchStatus =
  | 'LOADING'
  | 'ACTIVE'
  | 'FAILED'
  | 'DELETING';

export type CreateAudienceInput = {
  name: string;
  description?: string | null | undefined;
  type?: AudienceType;
  expression?: string | null | undefined;
  format?: ExpressionFormat | null | undefined;
  evaluationMethods?: Array<EvaluationMethod> | null | undefined;
  mergePolicyId?: string | null | undefined;
  audienceId?: string | null | undefined;
  namespace?: string | null | undefined;
  origin?: AudienceOrigin | null | undefined;
  datasetId?: string | null | undefined;
  ttlInDays?: number | null | undefined;
  audienceMeta?: unknown;
  linkedAudienceRef?: LinkedAudienceRefInput | null | undefined;
  excludeOptOut?: boolean | null | undefined;
  labels?: Array<string> | null | undefined;
  folderId?: string | null | undefined;
  lifecycleState?: LifecycleState | null | undefined;
};

export type CreateDatasetInput = {
  name: string;
  kind: DatasetKind;
  primaryIdentity?: PrimaryIdentityInput | null | undefined;
  timestampColumn?: string | null | undefined;
  schema?: unknown;
};

export type CreateExportJobInput = {
  fields?: Array<string> | null | undefined;
  mergePolicyId?: string | null | undefined;
  filter?: ExportFilterInput | null | undefined;
  additionalFields?: ExportEventsInput | null | undefined;
  destination: ExportDestinationInput;
  schemaName: string;
  evaluateFirst?: boolean | null | undefined;
  idempotencyKey?: string | null | undefined;
};

export type CreateFolderInput = {
  name: string;
  namespace: string;
  parentId?: string | null | undefined;
};

export type CreatePreviewInput = {
  expression: string;
  format?: ExpressionFormat | null | undefined;
  mergePolicyId?: string | null | undefined;
  graphType?: GraphType | null | undefined;
  excludeOptOut?: boolean | null | undefined;
  limit?: LimitInput | null | undefined;
};

export type CreateScheduleInput = {
  name: string;
  description?: string | null | undefined;
  type?: ScheduleType;
  cronExpression?: string | null | undefined;
  state?: ScheduleState | null | undefined;
  audienceIds?: Array<string> | null | undefined;
  allAudiences?: boolean | null | undefined;
  export?: CreateExportJobInput | null | undefined;
};

export type CreateSegmentJobInput = {
  definitionIds?: Array<string> | null | undefined;
  allDefinitions?: boolean | null | undefined;
  idempotencyKey?: string | null | undefined;
};

export type CsvOptionsInput = {
  delimiter?: string | null | undefined;
  quote?: string | null | undefined;
  escape?: string | null | undefined;
  decimalSeparator?: string | null | undefined;
  dateFormat?: string | null | undefined;
  timestampFormat?: string | null | undefined;
  encoding?: string | null | undefined;
  header?: boolean | null | undefined;
  nullValues?: Array<string> | null | undefined;
};

export type DataFormat =
  | 'CSV'
  | 'NDJSON'
  | 'PARQUET';

export type DatasetKind =
  | 'PROFILE'
  | 'EVENT'
  | 'AUDIENCE'
  | 'EXPORT';

export type DateTimeFilter = {
  eq?: string | null | undefined;
  lt?: string | null | undefined;
  lte?: string | null | undefined;
  gt?: string | null | undefined;
  gte?: string | null | undefined;
};

export type DeleteInput = {
  id: string;
  etag?: string | null | undefined;
};

export type DiagnosticKind =
  | 'SYNTAX'
  | 'UNKNOWN_FIELD'
  | 'UNKNOWN_FUNCTION'
  | 'UNKNOWN_SEGMENT'
  | 'ARGUMENT_COUNT'
  | 'TYPE'
  | 'LIMIT'
  | 'CYCLE'
  | 'DUPLICATE';

export type DiagnosticSeverity =
  | 'ERROR'
  | 'WARNING';

export type EraseProfileInput = {
  identity: IdentityInput;
  reason?: string | null | undefined;
  idempotencyKey?: string | null | undefined;
};

export type ErrorCode =
  | 'INVALID_INPUT'
  | 'INVALID_EXPRESSION'
  | 'NOT_FOUND'
  | 'ALREADY_EXISTS'
  | 'STALE_ETAG'
  | 'HAS_DEPENDENTS'
  | 'INVALID_STATE'
  | 'NOT_ELIGIBLE'
  | 'LIMIT_EXCEEDED'
  | 'FORBIDDEN';

export type EstimateState =
  | 'NEW'
  | 'RUNNING'
  | 'RESULT_READY'
  | 'FAILED'
  | 'CANCELLED';

export type EvaluationMethod =
  | 'BATCH'
  | 'STREAMING'
  | 'EDGE';

export type ExportDestinationInput = {
  datasetId: string;
  segmentPerBatch?: boolean | null | undefined;
};

export type ExportEventsInput = {
  fields?: Array<string> | null | undefined;
  from?: string | null | undefined;
  to?: string | null | undefined;
};

export type ExportFilterInput = {
  segments?: Array<ExportSegmentInput> | null | undefined;
  segmentQualificationTime?: TimeRangeInput | null | undefined;
  fromIngestTimestamp?: string | null | undefined;
  emptyProfiles?: boolean | null | undefined;
};

export type ExportJobFilter = {
  status?: Array<JobStatus> | null | undefined;
  source?: Array<JobSource> | null | undefined;
  segmentId?: string | null | undefined;
  scheduleId?: string | null | undefined;
  destinationId?: string | null | undefined;
  createdAt?: DateTimeFilter | null | undefined;
};

export type ExportSegmentInput = {
  segmentId: string;
  namespace?: string | null | undefined;
  status?: Array<MembershipStatus> | null | undefined;
};

export type ExpressionFormat =
  | 'PQL_TEXT'
  | 'PQL_JSON';

export type GraphType =
  | 'NONE'
  | 'PDG';

export type IdentityInput = {
  namespace: string;
  id: string;
};

export type JobFilter = {
  kind?: Array<JobKind> | null | undefined;
  status?: Array<JobStatus> | null | undefined;
  source?: Array<JobSource> | null | undefined;
  createdAt?: DateTimeFilter | null | undefined;
};

export type JobKind =
  | 'SEGMENT'
  | 'EXPORT'
  | 'ERASURE';

export type JobPhase =
  | 'WAITING'
  | 'READING'
  | 'EVALUATING'
  | 'WRITING'
  | 'DONE';

export type JobSource =
  | 'API'
  | 'SCHEDULER';

export type JobStatus =
  | 'NEW'
  | 'QUEUED'
  | 'PROCESSING'
  | 'SUCCEEDED'
  | 'FAILED'
  | 'CANCELLING'
  | 'CANCELLED';

export type LifecycleState =
  | 'DRAFT'
  | 'PUBLISHED'
  | 'INACTIVE';

export type LimitInput = {
  first: number;
  by: string;
  direction?: OrderDirection;
};

export type LinkedAudienceRefInput = {
  flowId?: string | null | undefined;
  aoWorkflowId?: string | null | undefined;
  payloadFieldGroupRef?: string | null | undefined;
  audienceFolderId?: string | null | undefined;
};

export type MembershipStatus =
  | 'REALIZED'
  | 'EXISTING'
  | 'EXITED';

export type OrderDirection =
  | 'ASC'
  | 'DESC';

export type PeopleInput = {
  audienceId?: string | null | undefined;
  expression?: string | null | undefined;
};

export type PqlCompletionKind =
  | 'FIELD'
  | 'FUNCTION'
  | 'KEYWORD'
  | 'SEGMENT'
  | 'VALUE';

export type PrimaryIdentityInput = {
  column: string;
  namespace: string;
};

export type ProfileOrder = {
  expression: string;
  direction?: OrderDirection;
};

export type ScheduleRunOutcome =
  | 'STARTED'
  | 'SKIPPED'
  | 'REFUSED';

export type ScheduleState =
  | 'ACTIVE'
  | 'INACTIVE';

export type ScheduleType =
  | 'BATCH_SEGMENTATION'
  | 'EXPORT';

export type SegmentJobFilter = {
  status?: Array<JobStatus> | null | undefined;
  source?: Array<JobSource> | null | undefined;
  segmentId?: string | null | undefined;
  scheduleId?: string | null | undefined;
  createdAt?: DateTimeFilter | null | undefined;
};

export type StringFilter = {
  eq?: string | null | undefined;
  ne?: string | null | undefined;
  in?: Array<string> | null | undefined;
  contains?: string | null | undefined;
  startsWith?: string | null | undefined;
};

export type TimeRangeInput = {
  start?: string | null | undefined;
  end?: string | null | undefined;
};

export type UpdateAudienceInput = {
  id: string;
  etag?: string | null | undefined;
  name?: string | null | undefined;
  description?: string | null | undefined;
  expression?: string | null | undefined;
  format?: ExpressionFormat | null | undefined;
  evaluationMethods?: Array<EvaluationMethod> | null | undefined;
  mergePolicyId?: string | null | undefined;
  excludeOptOut?: boolean | null | undefined;
  labels?: Array<string> | null | undefined;
  ttlInDays?: number | null | undefined;
  datasetId?: string | null | undefined;
  audienceMeta?: unknown;
  linkedAudienceRef?: LinkedAudienceRefInput | null | undefined;
  folderId?: string | null | undefined;
  lifecycleState?: LifecycleState | null | undefined;
};

export type UpdateScheduleInput = {
  id: string;
  etag?: string | null | undefined;
  name?: string | null | undefined;
  description?: string | null | undefined;
  cronExpression?: string | null | undefined;
  state?: ScheduleState | null | undefined;
  audienceIds?: Array<string> | null | undefined;
  allAudiences?: boolean | null | undefined;
  export?: CreateExportJobInput | null | undefined;
};

export type UploadBatchInput = {
  datasetId: string;
  file: File;
  format: DataFormat;
  idempotencyKey?: string | null | undefined;
  csv?: CsvOptionsInput | null | undefined;
  dryRun?: boolean | null | undefined;
};

export type AudienceRowFragment = { __typename: 'Audience', id: string, audienceId: string, name: string, description: string | null, type: AudienceType, namespace: string, lifecycleState: LifecycleState, evaluationMethods: Array<EvaluationMethod>, labels: Array<string>, etag: string, updatedAt: string, createdAt: string, folder?: { id: string, name: string } | null, metrics: { totalProfiles: number, updatedAt: string } | null, definition?: { id: string, segmentId: string } | null, schedules?: { totalCount: number, nodes: Array<{ id: string, scheduleId: string, name: string, state: ScheduleState, frequency: string, nextRunTimes: Array<string> }> } };

export type AudienceTrendFragment = { id: string, history: { nodes: Array<{ at: string, totalProfiles: number }> } };

export type AudiencesQueryVariables = Exact<{
  first: number;
  after?: string | null | undefined;
  filter?: AudienceFilter | null | undefined;
  orderBy?: AudienceOrder | null | undefined;
  readDefinitions?: boolean;
  readFolders?: boolean;
  readSchedules?: boolean;
}>;


export type AudiencesQuery = { audiences: { totalCount: number, pageInfo: { hasNextPage: boolean, endCursor: string | null }, nodes: Array<(
      AudienceRowFragment
      & AudienceTrendFragment
    )> } };

export type SearchAudiencesQueryVariables = Exact<{
  term: string;
  first: number;
  after?: string | null | undefined;
  folderId?: string | null | undefined;
  readDefinitions?: boolean;
  readFolders?: boolean;
  readSchedules?: boolean;
}>;


export type SearchAudiencesQuery = { search: { totalCount: number, error: { message: string, position: number } | null, pageInfo: { hasNextPage: boolean, endCursor: string | null }, nodes: Array<{ id: string, name: string, isFolder: boolean, namespace: string, node:
        | { __typename: 'ApiKey', id: string }
        | (
          { __typename: 'Audience', id: string }
          & AudienceRowFragment
          & AudienceTrendFragment
        )
        | { __typename: 'Batch', id: string }
        | { __typename: 'Dataset', id: string }
        | { __typename: 'ErasureJob', id: string }
        | { __typename: 'Estimate', id: string }
        | { __typename: 'ExportJob', id: string }
        | { __typename: 'Folder', id: string }
        | { __typename: 'MergePolicy', id: string }
        | { __typename: 'Preview', id: string }
        | { __typename: 'Profile', id: string }
        | { __typename: 'Schedule', id: string }
        | { __typename: 'SegmentDefinition', id: string }
        | { __typename: 'SegmentJob', id: string }
       | null }> } };

export type FoldersQueryVariables = Exact<{
  parentId?: string | null | undefined;
  readFolders?: boolean;
}>;


export type FoldersQuery = { folders?: { nodes: Array<{ id: string, name: string }> } };

export type FolderPathQueryVariables = Exact<{
  id: string;
  readFolders?: boolean;
}>;


export type FolderPathQuery = { folder?: { id: string, name: string, namespace: string, path: string, etag: string, parent: { id: string, name: string } | null } | null };

export type AudiencePageQueryVariables = Exact<{
  id: string;
  readDatasets?: boolean;
  readDefinitions?: boolean;
  readFolders?: boolean;
  readJobs?: boolean;
  readMergePolicies?: boolean;
  readSchedules?: boolean;
}>;


export type AudiencePageQuery = { audience: (
    { origin: AudienceOrigin, excludeOptOut: boolean, ttlInDays: number | null, expiresAt: string | null, createdBy: string, lastModifiedBy: string, isSystem: boolean, metrics: { totalProfiles: number, updatedAt: string, byNamespace: Array<{ namespace: string, count: number }>, job?: { id: string, jobId: string } | null } | null, definition?: { id: string, segmentId: string, version: number, expression: string, streamingEligibility: { eligible: boolean, reasons: Array<string> } } | null, mergePolicy?: { id: string, name: string, identityGraph: GraphType } | null, dataset?: { id: string, datasetId: string, name: string } | null }
    & AudienceRowFragment
  ) | null };

export type AudienceUpdatedSubscriptionVariables = Exact<{
  id: string;
  readDefinitions?: boolean;
  readFolders?: boolean;
  readJobs?: boolean;
  readSchedules?: boolean;
}>;


export type AudienceUpdatedSubscription = { audienceUpdated: (
    { lastModifiedBy: string, metrics: { totalProfiles: number, updatedAt: string, byNamespace: Array<{ namespace: string, count: number }>, job?: { id: string, jobId: string } | null } | null, definition?: { id: string, version: number, expression: string } | null }
    & AudienceRowFragment
  ) };

export type AudienceUseQueryVariables = Exact<{
  id: string;
  readDefinitions?: boolean;
  readFolders?: boolean;
  readSchedules?: boolean;
}>;


export type AudienceUseQuery = { audience: { id: string, dependencies: { nodes: Array<AudienceRowFragment> }, dependents: { nodes: Array<AudienceRowFragment> }, schedules?: { nodes: Array<{ id: string, scheduleId: string, name: string, state: ScheduleState, frequency: string, nextRunTimes: Array<string> }> } } | null };

export type AudienceJobsQueryVariables = Exact<{
  id: string;
  readDefinitions?: boolean;
  readJobs?: boolean;
}>;


export type AudienceJobsQuery = { audience: { id: string, jobs?: { totalCount: number, nodes: Array<JobLine_SegmentJob_Fragment> } } | null };

export type AudienceMembersQueryVariables = Exact<{
  id: string;
  first: number;
  after?: string | null | undefined;
  status?: Array<MembershipStatus> | MembershipStatus | null | undefined;
  where?: string | null | undefined;
  orderBy?: ProfileOrder | null | undefined;
  asOf?: string | null | undefined;
  paths?: Array<string> | string | null | undefined;
  readProfiles?: boolean;
}>;


export type AudienceMembersQuery = { audience: { id: string, members?: { totalCount: number, pageInfo: { hasNextPage: boolean, endCursor: string | null }, nodes: Array<{ status: MembershipStatus, lastQualificationTime: string, payload: unknown, profile: { id: string, profileId: string, attributes: unknown, identities: Array<{ namespace: string, id: string, primary: boolean }> } }> } } | null };

export type AudienceMomentsQueryVariables = Exact<{
  id: string;
}>;


export type AudienceMomentsQuery = { audience: { id: string, history: { nodes: Array<{ at: string, totalProfiles: number }> } } | null };

export type ProfileFieldsQueryVariables = Exact<{
  readDatasets?: boolean;
}>;


export type ProfileFieldsQuery = { datasets?: { nodes: Array<{ id: string, fields: Array<{ path: string, type: string }> }> } };

type Problem_DependentsError_Fragment = { __typename: 'DependentsError', code: ErrorCode, message: string, path: Array<string> };

type Problem_ExpressionError_Fragment = { __typename: 'ExpressionError', code: ErrorCode, message: string, path: Array<string>, diagnostics: Array<{ kind: DiagnosticKind, severity: DiagnosticSeverity, message: string, line: number, column: number, length: number, suggestions: Array<string> }> };

type Problem_InputError_Fragment = { __typename: 'InputError', code: ErrorCode, message: string, path: Array<string> };

type Problem_StaleEtagError_Fragment = { __typename: 'StaleEtagError', code: ErrorCode, message: string, path: Array<string> };

export type ProblemFragment =
  | Problem_DependentsError_Fragment
  | Problem_ExpressionError_Fragment
  | Problem_InputError_Fragment
  | Problem_StaleEtagError_Fragment
;

export type CreateAudienceMutationVariables = Exact<{
  input: CreateAudienceInput;
  readDefinitions?: boolean;
  readFolders?: boolean;
  readSchedules?: boolean;
}>;


export type CreateAudienceMutation = { createAudience: { audience: AudienceRowFragment | null, warnings: Array<{ message: string }>, errors: Array<
      | Problem_DependentsError_Fragment
      | Problem_ExpressionError_Fragment
      | Problem_InputError_Fragment
      | Problem_StaleEtagError_Fragment
    > } };

export type UpdateAudienceMutationVariables = Exact<{
  input: UpdateAudienceInput;
  readDefinitions?: boolean;
  readFolders?: boolean;
  readMergePolicies?: boolean;
  readSchedules?: boolean;
}>;


export type UpdateAudienceMutation = { updateAudience: { audience: (
      { excludeOptOut: boolean, lastModifiedBy: string, mergePolicy?: { id: string, name: string, identityGraph: GraphType } | null, definition?: { id: string, version: number, expression: string, streamingEligibility: { eligible: boolean, reasons: Array<string> } } | null }
      & AudienceRowFragment
    ) | null, warnings: Array<{ message: string }>, errors: Array<
      | Problem_DependentsError_Fragment
      | Problem_ExpressionError_Fragment
      | Problem_InputError_Fragment
      | Problem_StaleEtagError_Fragment
    > } };

export type DeleteAudienceMutationVariables = Exact<{
  input: DeleteInput;
}>;


export type DeleteAudienceMutation = { deleteAudience: { deletedId: string | null, errors: Array<
      | Problem_DependentsError_Fragment
      | Problem_ExpressionError_Fragment
      | Problem_InputError_Fragment
      | Problem_StaleEtagError_Fragment
    > } };

export type CreateFolderMutationVariables = Exact<{
  input: CreateFolderInput;
}>;


export type CreateFolderMutation = { createFolder: { folder: { id: string, name: string, path: string } | null, errors: Array<
      | Problem_DependentsError_Fragment
      | Problem_ExpressionError_Fragment
      | Problem_InputError_Fragment
      | Problem_StaleEtagError_Fragment
    > } };

export type RunDefinitionsMutationVariables = Exact<{
  input: CreateSegmentJobInput;
  readDefinitions?: boolean;
}>;


export type RunDefinitionsMutation = { createSegmentJob: { job: JobLine_SegmentJob_Fragment | null, errors: Array<
      | Problem_DependentsError_Fragment
      | Problem_ExpressionError_Fragment
      | Problem_InputError_Fragment
      | Problem_StaleEtagError_Fragment
    > } };

export type DatasetRowFragment = { id: string, datasetId: string, name: string, kind: DatasetKind, rowCount: number, createdAt: string, updatedAt: string };

export type DatasetsQueryVariables = Exact<{ [key: string]: never; }>;


export type DatasetsQuery = { datasets: { nodes: Array<(
      { fields: Array<{ path: string }> }
      & DatasetRowFragment
    )> } };

export type DatasetPageQueryVariables = Exact<{
  id: string;
}>;


export type DatasetPageQuery = { dataset: (
    { fields: Array<{ path: string, type: string }> }
    & DatasetRowFragment
  ) | null };

export type DatasetFieldsQueryVariables = Exact<{
  id: string;
  paths?: Array<string> | string | null | undefined;
  readProfiles?: boolean;
}>;


export type DatasetFieldsQuery = { dataset: { id: string, fieldStatistics?: Array<{ path: string, rows: number, filled: number, fillRate: number | null, distinct: number | null, approximate: boolean, values: Array<{ value: unknown, count: number }> }> } | null };

export type DatasetBatchesQueryVariables = Exact<{
  id: string;
  first: number;
  after?: string | null | undefined;
  readProfiles?: boolean;
}>;


export type DatasetBatchesQuery = { dataset: { id: string, batches: { totalCount: number, pageInfo: { hasNextPage: boolean, endCursor: string | null }, nodes: Array<{ id: string, batchId: string, status: BatchStatus, rowCount: number, rejectedRows: number, duplicateRows: number, bytes: number, createdAt: string, error?: string | null }> } } | null };

export type BatchRejectedQueryVariables = Exact<{
  id: string;
  readProfiles?: boolean;
}>;


export type BatchRejectedQuery = { batch: { id: string, rejected?: Array<{ row: number, message: string }> } | null };

export type CreateDatasetMutationVariables = Exact<{
  input: CreateDatasetInput;
}>;


export type CreateDatasetMutation = { createDataset: { dataset: DatasetRowFragment | null, errors: Array<
      | Problem_DependentsError_Fragment
      | Problem_ExpressionError_Fragment
      | Problem_InputError_Fragment
      | Problem_StaleEtagError_Fragment
    > } };

export type DeleteDatasetMutationVariables = Exact<{
  input: DeleteInput;
}>;


export type DeleteDatasetMutation = { deleteDataset: { deletedId: string | null, errors: Array<
      | Problem_DependentsError_Fragment
      | Problem_ExpressionError_Fragment
      | Problem_InputError_Fragment
      | Problem_StaleEtagError_Fragment
    > } };

export type UploadBatchMutationVariables = Exact<{
  input: UploadBatchInput;
}>;


export type UploadBatchMutation = { uploadBatch: { warnings: Array<string>, batch: { id: string, batchId: string, rowCount: number, rejectedRows: number, duplicateRows: number } | null, dryRun: { rowCount: number, rejectedRows: number, duplicateRows: number, newFields: Array<string>, fields: Array<{ path: string, type: string }> } | null, rejected: Array<{ row: number, message: string }>, errors: Array<
      | Problem_DependentsError_Fragment
      | Problem_ExpressionError_Fragment
      | Problem_InputError_Fragment
      | Problem_StaleEtagError_Fragment
    > } };

export type PeopleQueryVariables = Exact<{
  where?: string | null | undefined;
  first: number;
  after?: string | null | undefined;
}>;


export type PeopleQuery = { profiles: { pageInfo: { hasNextPage: boolean, endCursor: string | null }, nodes: Array<{ id: string, profileId: string, attributes: unknown, identities: Array<{ namespace: string, id: string, primary: boolean }> }> } };

export type PersonByIdentityQueryVariables = Exact<{
  identity: IdentityInput;
}>;


export type PersonByIdentityQuery = { profile: { id: string, profileId: string } | null };

export type PersonQueryVariables = Exact<{
  id: string;
  readAudiences?: boolean;
}>;


export type PersonQuery = { profile: { id: string, profileId: string, attributes: unknown, identities: Array<{ namespace: string, id: string, primary: boolean }>, memberships: { totalCount: number, nodes: Array<{ status: MembershipStatus, lastQualificationTime: string, payload: unknown, audience?: { id: string, audienceId: string, name: string, type: AudienceType } }> } } | null };

export type PersonEventsQueryVariables = Exact<{
  id: string;
  first: number;
  after?: string | null | undefined;
}>;


export type PersonEventsQuery = { profile: { id: string, events: { totalCount: number, pageInfo: { hasNextPage: boolean, endCursor: string | null }, nodes: Array<{ eventId: string, timestamp: string, attributes: unknown }> } } | null };

export type OverlapQueryVariables = Exact<{
  people: Array<PeopleInput> | PeopleInput;
}>;


export type OverlapQuery = { overlap: { sizes: Array<number>, union: number, exact: boolean, cells: Array<{ in: Array<boolean>, count: number }>, error:
      | { message: string }
      | { message: string }
      | { message: string }
      | { message: string }
     | null } };

export type CheckExpressionQueryVariables = Exact<{
  expression: string;
}>;


export type CheckExpressionQuery = { pql: { check: { ok: boolean, diagnostics: Array<{ kind: DiagnosticKind, severity: DiagnosticSeverity, message: string, line: number, column: number, length: number, suggestions: Array<string> }>, streamingEligibility: { eligible: boolean, reasons: Array<string> } | null } } };

export type CompleteExpressionQueryVariables = Exact<{
  expression: string;
  offset: number;
  first: number;
}>;


export type CompleteExpressionQuery = { pql: { complete: Array<{ text: string, kind: PqlCompletionKind, detail: string | null, replaceFrom: number, replaceTo: number }> } };

export type ConvertExpressionQueryVariables = Exact<{
  expression: string;
}>;


export type ConvertExpressionQuery = { pql: { convert: { expression: string | null, diagnostics: Array<{ message: string }> } } };

export type FunctionsQueryVariables = Exact<{ [key: string]: never; }>;


export type FunctionsQuery = { pql: { functions: Array<{ name: string, signature: string, description: string, example: string }> } };

export type CatalogueQueryVariables = Exact<{
  readDatasets?: boolean;
}>;


export type CatalogueQuery = { datasets?: { nodes: Array<{ id: string, kind: DatasetKind, fields: Array<{ path: string, type: string }> }> } };

export type FieldValuesQueryVariables = Exact<{
  ids: Array<string> | string;
  paths?: Array<string> | string | null | undefined;
  readDatasets?: boolean;
  readProfiles?: boolean;
}>;


export type FieldValuesQuery = { nodes?: Array<
    | { id: string }
    | { id: string }
    | { id: string }
    | { id: string, fieldStatistics?: Array<{ path: string, values: Array<{ value: unknown, count: number }> }> }
    | { id: string }
    | { id: string }
    | { id: string }
    | { id: string }
    | { id: string }
    | { id: string }
    | { id: string }
    | { id: string }
    | { id: string }
    | { id: string }
   | null> };

export type EditorChoicesQueryVariables = Exact<{
  readMergePolicies?: boolean;
}>;


export type EditorChoicesQuery = { mergePolicies?: { nodes: Array<{ id: string, mergePolicyId: string, name: string, isDefault: boolean }> } };

export type CreatePreviewMutationVariables = Exact<{
  input: CreatePreviewInput;
}>;


export type CreatePreviewMutation = { createPreview: { preview: { id: string, previewId: string } | null, errors: Array<
      | Problem_DependentsError_Fragment
      | Problem_ExpressionError_Fragment
      | Problem_InputError_Fragment
      | Problem_StaleEtagError_Fragment
    > } };

export type CancelPreviewMutationVariables = Exact<{
  id: string;
}>;


export type CancelPreviewMutation = { cancelPreview: { preview: { id: string } | null, errors: Array<
      | { message: string }
      | { message: string }
      | { message: string }
      | { message: string }
    > } };

export type EstimateUpdatedSubscriptionVariables = Exact<{
  id: string;
}>;


export type EstimateUpdatedSubscription = { estimateUpdated: { id: string, state: EstimateState, estimatedSize: number | null, numRowsToRead: number, profilesReadSoFar: number, profilesMatchedSoFar: number, totalRows: number, standardError: number | null, error: string | null, sequence: number, confidenceInterval: { low: number, high: number } | null, estimatedNamespaceDistribution: Array<{ namespace: string, count: number }> } };

export type PreviewPeopleQueryVariables = Exact<{
  id: string;
  readProfiles?: boolean;
}>;


export type PreviewPeopleQuery = { preview: { id: string, profiles?: { nodes: Array<{ id: string, profileId: string, attributes: unknown }> } } | null };

export type EraseProfileMutationVariables = Exact<{
  input: EraseProfileInput;
  readDefinitions?: boolean;
}>;


export type EraseProfileMutation = { eraseProfile: { job: JobLine_ErasureJob_Fragment | null, errors: Array<
      | Problem_DependentsError_Fragment
      | Problem_ExpressionError_Fragment
      | Problem_InputError_Fragment
      | Problem_StaleEtagError_Fragment
    > } };

export type ErasureJobPageQueryVariables = Exact<{
  id: string;
  readDefinitions?: boolean;
}>;


export type ErasureJobPageQuery = { erasureJob: (
    { verified: boolean, rows: Array<{ place: string, count: number }> }
    & JobLine_ErasureJob_Fragment
  ) | null };

export type AudienceHistoryQueryVariables = Exact<{
  id: string;
  readDefinitions?: boolean;
  readJobs?: boolean;
  readMergePolicies?: boolean;
}>;


export type AudienceHistoryQuery = { audience: { id: string, history: { totalCount: number, nodes: Array<{ at: string, totalProfiles: number, entered: number, exited: number, version: number, job?: { id: string, jobId: string } | null }> }, versions?: { nodes: Array<{ version: number, expression: string, createdBy: string, createdAt: string, mergePolicy?: { id: string, name: string } }> } } | null };

export type AudienceChangesQueryVariables = Exact<{
  id: string;
  first: number;
  after?: string | null | undefined;
  readJobs?: boolean;
  readProfiles?: boolean;
}>;


export type AudienceChangesQuery = { audience: { id: string, changes?: { pageInfo: { hasNextPage: boolean, endCursor: string | null }, nodes: Array<{ status: MembershipStatus, at: string, cursor: string, profile: { id: string, profileId: string }, job?: { id: string, jobId: string } | null }> } } | null };

export type ExplanationPartFragment = { text: string, start: number, end: number, value: unknown, holds: boolean | null, elements: number | null, passed: number | null };

export type ExplainQueryVariables = Exact<{
  identity: IdentityInput;
  people: PeopleInput;
}>;


export type ExplainQuery = { explain: { member: boolean, evaluatedAt: string, root: (
      { children: Array<(
        { children: Array<(
          { children: Array<(
            { children: Array<(
              { children: Array<(
                { children: Array<(
                  { children: Array<(
                    { children: Array<ExplanationPartFragment> }
                    & ExplanationPartFragment
                  )> }
                  & ExplanationPartFragment
                )> }
                & ExplanationPartFragment
              )> }
              & ExplanationPartFragment
            )> }
            & ExplanationPartFragment
          )> }
          & ExplanationPartFragment
        )> }
        & ExplanationPartFragment
      )> }
      & ExplanationPartFragment
    ), error:
      | { message: string }
      | { message: string }
      | { message: string }
      | { message: string }
     | null } };

export type CompareQueryVariables = Exact<{
  audienceId: string;
  expression: string;
}>;


export type CompareQuery = { compare: { before: number, after: number, stay: number, enter: number, leave: number, exact: boolean, entering: { nodes: Array<{ id: string, profileId: string }> }, leaving: { nodes: Array<{ id: string, profileId: string }> }, error:
      | { message: string }
      | { message: string }
      | { message: string }
      | { message: string }
     | null } };

export type AudienceNamesQueryVariables = Exact<{
  ids: Array<string> | string;
}>;


export type AudienceNamesQuery = { nodes: Array<
    | { __typename: 'ApiKey', id: string }
    | { __typename: 'Audience', name: string, id: string }
    | { __typename: 'Batch', id: string }
    | { __typename: 'Dataset', id: string }
    | { __typename: 'ErasureJob', id: string }
    | { __typename: 'Estimate', id: string }
    | { __typename: 'ExportJob', id: string }
    | { __typename: 'Folder', id: string }
    | { __typename: 'MergePolicy', id: string }
    | { __typename: 'Preview', id: string }
    | { __typename: 'Profile', id: string }
    | { __typename: 'Schedule', id: string }
    | { __typename: 'SegmentDefinition', id: string }
    | { __typename: 'SegmentJob', id: string }
   | null> };

export type SegmentJobSubjectFragment = { allDefinitions: boolean, segments: { totalCount: number, nodes: Array<{ id: string, segmentId: string, definition?: { id: string, name: string } | null }> } };

export type SegmentJobsQueryVariables = Exact<{
  first: number;
  after?: string | null | undefined;
  filter?: SegmentJobFilter | null | undefined;
  readDefinitions?: boolean;
}>;


export type SegmentJobsQuery = { segmentJobs: { totalCount: number, pageInfo: { hasNextPage: boolean, endCursor: string | null }, nodes: Array<(
      JobLine_SegmentJob_Fragment
      & SegmentJobSubjectFragment
    )> } };

export type JobsQueryVariables = Exact<{
  first: number;
  after?: string | null | undefined;
  filter?: JobFilter | null | undefined;
  readDatasets?: boolean;
  readDefinitions?: boolean;
}>;


export type JobsQuery = { jobs: { totalCount: number, pageInfo: { hasNextPage: boolean, endCursor: string | null }, nodes: Array<
      | JobLine_ErasureJob_Fragment
      | (
        { destination?: { id: string, datasetId: string, name: string }, metrics: { totalExportedProfiles: number } | null }
        & JobLine_ExportJob_Fragment
      )
      | (
        JobLine_SegmentJob_Fragment
        & SegmentJobSubjectFragment
      )
    > } };

export type ExportJobsQueryVariables = Exact<{
  first: number;
  after?: string | null | undefined;
  filter?: ExportJobFilter | null | undefined;
  readDatasets?: boolean;
  readDefinitions?: boolean;
  readSchedules?: boolean;
}>;


export type ExportJobsQuery = { exportJobs: { totalCount: number, pageInfo: { hasNextPage: boolean, endCursor: string | null }, nodes: Array<(
      { schedule?: { id: string, scheduleId: string, name: string } | null, destination?: { id: string, datasetId: string, name: string }, metrics: { totalExportedProfiles: number } | null }
      & JobLine_ExportJob_Fragment
    )> } };

export type SegmentJobPageQueryVariables = Exact<{
  id: string;
  readDefinitions?: boolean;
  readMergePolicies?: boolean;
  readSchedules?: boolean;
}>;


export type SegmentJobPageQuery = { segmentJob: (
    { allDefinitions: boolean, runId: string | null, evaluatedAt: string | null, schedule?: { id: string, scheduleId: string, name: string } | null, metrics: { totalProfiles: number, totalTime: { totalMs: number }, profileSegmentationTime: { totalMs: number }, bucketTime: { buckets: number, totalMs: number, readingMs: number, evaluatingMs: number, slowest: Array<{ bucket: number, profiles: number, totalMs: number }> } | null, totalProfilesByMergePolicy: Array<{ count: number, mergePolicy?: { id: string, name: string } }> } | null, segments: { totalCount: number, nodes: Array<{ id: string, segmentId: string, version: number, expression: string, profileCount: number | null, evaluationMs: number | null, byStatus: Array<{ status: MembershipStatus, count: number }>, error: { code: string, message: string } | null, definition?: { id: string, name: string, version: number } | null }> } }
    & JobLine_SegmentJob_Fragment
  ) | null };

export type ExportJobPageQueryVariables = Exact<{
  id: string;
  readDatasets?: boolean;
  readDefinitions?: boolean;
  readJobs?: boolean;
  readMergePolicies?: boolean;
  readSchedules?: boolean;
}>;


export type ExportJobPageQuery = { exportJob: (
    { runId: string | null, fields: Array<string>, schemaName: string, segmentPerBatch: boolean, evaluateFirst: boolean, schedule?: { id: string, scheduleId: string, name: string } | null, mergePolicy?: { id: string, name: string }, destination?: { id: string, datasetId: string, name: string }, evaluation?: { id: string, jobId: string, status: JobStatus } | null, metrics: { totalExportedProfiles: number, totalTime: { totalMs: number }, profileExportTime: { totalMs: number }, exportedProfilesByNamespace: Array<{ namespace: string, count: number }> } | null, batches?: { totalCount: number, nodes: Array<{ id: string, batchId: string, status: BatchStatus, rowCount: number, rejectedRows: number, bytes: number, segmentIds: Array<string>, createdAt: string }> } }
    & JobLine_ExportJob_Fragment
  ) | null };

export type SegmentJobUpdatedSubscriptionVariables = Exact<{
  id: string;
  readDefinitions?: boolean;
}>;


export type SegmentJobUpdatedSubscription = { segmentJobUpdated: JobLine_SegmentJob_Fragment };

export type ExportJobUpdatedSubscriptionVariables = Exact<{
  id: string;
  readDefinitions?: boolean;
}>;


export type ExportJobUpdatedSubscription = { exportJobUpdated: JobLine_ExportJob_Fragment };

export type CancelSegmentJobMutationVariables = Exact<{
  id: string;
  readDefinitions?: boolean;
}>;


export type CancelSegmentJobMutation = { cancelSegmentJob: { job: JobLine_SegmentJob_Fragment | null, errors: Array<
      | Problem_DependentsError_Fragment
      | Problem_ExpressionError_Fragment
      | Problem_InputError_Fragment
      | Problem_StaleEtagError_Fragment
    > } };

export type CancelExportJobMutationVariables = Exact<{
  id: string;
  readDefinitions?: boolean;
}>;


export type CancelExportJobMutation = { cancelExportJob: { job: JobLine_ExportJob_Fragment | null, errors: Array<
      | Problem_DependentsError_Fragment
      | Problem_ExpressionError_Fragment
      | Problem_InputError_Fragment
      | Problem_StaleEtagError_Fragment
    > } };

export type WaterfallQueryVariables = Exact<{
  id: string;
}>;


export type WaterfallQuery = { audience: { id: string, waterfall: Array<{ name: string, count: number }> } | null };

export type StatisticsQueryVariables = Exact<{
  id: string;
  expressions: Array<string> | string;
  readProfiles?: boolean;
}>;


export type StatisticsQuery = { audience: { id: string, statistics?: Array<{ expression: string, count: number, distinct: number, sum: number | null, average: number | null, minimum: unknown, maximum: unknown, quartiles: Array<number>, histogram: Array<{ low: unknown, high: unknown, count: number }>, error:
        | { message: string }
        | { message: string }
        | { message: string }
        | { message: string }
       | null }> } | null };

export type ExpressionTextQueryVariables = Exact<{
  expression: string;
}>;


export type ExpressionTextQuery = { pql: { convert: { expression: string | null, diagnostics: Array<{ message: string }> } } };

export type SizesQueryVariables = Exact<{
  people: Array<PeopleInput> | PeopleInput;
  mergePolicyId?: string | null | undefined;
}>;


export type SizesQuery = { overlap: { sizes: Array<number>, exact: boolean, error:
      | { message: string }
      | { message: string }
      | { message: string }
      | { message: string }
     | null } };

export type ScheduleRowFragment = { id: string, scheduleId: string, name: string, description: string | null, type: ScheduleType, state: ScheduleState, cronExpression: string, frequency: string, allAudiences: boolean, etag: string, createdBy: string, createdAt: string, updatedAt: string, nextRunTimes: Array<string>, export: { fields: Array<string>, segmentPerBatch: boolean, schemaName: string, evaluateFirst: boolean, mergePolicy?: { id: string, name: string } | null, additionalFields: { fields: Array<string>, from: string | null, to: string | null } | null, filter: { fromIngestTimestamp: string | null, emptyProfiles: boolean, segmentQualificationTime: { start: string | null, end: string | null } | null, segments: Array<{ segmentId: string, namespace: string | null, status: Array<MembershipStatus>, audience?: { id: string, audienceId: string, name: string, type: AudienceType } | null }> } | null, destination?: { id: string, datasetId: string, name: string } } | null, lastRun: { runId: string, outcome: ScheduleRunOutcome, ranAt: string, dueAt: string | null, message: string | null, job?:
      | JobLine_ErasureJob_Fragment
      | JobLine_ExportJob_Fragment
      | JobLine_SegmentJob_Fragment
     | null } | null, audiences?: { totalCount: number, nodes: Array<{ id: string, audienceId: string, name: string, type: AudienceType }> } };

export type SchedulesQueryVariables = Exact<{
  first: number;
  after?: string | null | undefined;
  readAudiences?: boolean;
  readDatasets?: boolean;
  readDefinitions?: boolean;
  readJobs_readExports?: boolean;
  readMergePolicies?: boolean;
}>;


export type SchedulesQuery = { schedules: { totalCount: number, pageInfo: { hasNextPage: boolean, endCursor: string | null }, nodes: Array<ScheduleRowFragment> } };

export type SchedulePageQueryVariables = Exact<{
  id: string;
  readAudiences?: boolean;
  readDatasets?: boolean;
  readDefinitions?: boolean;
  readJobs_readExports?: boolean;
  readMergePolicies?: boolean;
}>;


export type SchedulePageQuery = { schedule: (
    { jobs?: { totalCount: number, nodes: Array<
        | JobLine_ErasureJob_Fragment
        | JobLine_ExportJob_Fragment
        | JobLine_SegmentJob_Fragment
      > } }
    & ScheduleRowFragment
  ) | null };

export type CreateScheduleMutationVariables = Exact<{
  input: CreateScheduleInput;
  readAudiences?: boolean;
  readDatasets?: boolean;
  readDefinitions?: boolean;
  readJobs_readExports?: boolean;
  readMergePolicies?: boolean;
}>;


export type CreateScheduleMutation = { createSchedule: { schedule: ScheduleRowFragment | null, errors: Array<
      | Problem_DependentsError_Fragment
      | Problem_ExpressionError_Fragment
      | Problem_InputError_Fragment
      | Problem_StaleEtagError_Fragment
    > } };

export type UpdateScheduleMutationVariables = Exact<{
  input: UpdateScheduleInput;
  readAudiences?: boolean;
  readDatasets?: boolean;
  readDefinitions?: boolean;
  readJobs_readExports?: boolean;
  readMergePolicies?: boolean;
}>;


export type UpdateScheduleMutation = { updateSchedule: { schedule: ScheduleRowFragment | null, errors: Array<
      | Problem_DependentsError_Fragment
      | Problem_ExpressionError_Fragment
      | Problem_InputError_Fragment
      | Problem_StaleEtagError_Fragment
    > } };

export type DeleteScheduleMutationVariables = Exact<{
  input: DeleteInput;
}>;


export type DeleteScheduleMutation = { deleteSchedule: { deletedId: string | null, errors: Array<
      | Problem_DependentsError_Fragment
      | Problem_ExpressionError_Fragment
      | Problem_InputError_Fragment
      | Problem_StaleEtagError_Fragment
    > } };

export type TriggerScheduleMutationVariables = Exact<{
  id: string;
  readDefinitions?: boolean;
}>;


export type TriggerScheduleMutation = { triggerSchedule: { job:
      | JobLine_ErasureJob_Fragment
      | JobLine_ExportJob_Fragment
      | JobLine_SegmentJob_Fragment
     | null, errors: Array<
      | Problem_DependentsError_Fragment
      | Problem_ExpressionError_Fragment
      | Problem_InputError_Fragment
      | Problem_StaleEtagError_Fragment
    > } };

export type AudienceChoicesQueryVariables = Exact<{
  first: number;
  filter?: AudienceFilter | null | undefined;
  readAudiences?: boolean;
}>;


export type AudienceChoicesQuery = { audiences?: { totalCount: number, nodes: Array<{ id: string, audienceId: string, name: string, type: AudienceType }> } };

export type ExportTargetsQueryVariables = Exact<{
  readDatasets?: boolean;
}>;


export type ExportTargetsQuery = { datasets?: { nodes: Array<{ id: string, datasetId: string, name: string }> } };

export type CreateExportMutationVariables = Exact<{
  input: CreateExportJobInput;
  readDefinitions?: boolean;
}>;


export type CreateExportMutation = { createExportJob: { job: JobLine_ExportJob_Fragment | null, errors: Array<
      | Problem_DependentsError_Fragment
      | Problem_ExpressionError_Fragment
      | Problem_InputError_Fragment
      | Problem_StaleEtagError_Fragment
    > } };

export type ViewerQueryVariables = Exact<{ [key: string]: never; }>;


export type ViewerQuery = { viewer: { subject: string, organisation: string, sandbox: string, permissions: Array<string> } };

type JobLine_ErasureJob_Fragment = { __typename: 'ErasureJob', id: string, jobId: string, status: JobStatus, source: JobSource, createdAt: string, updatedAt: string, startedAt: string | null, finishedAt: string | null, attempts: number, createdBy: string, progress: { phase: JobPhase, fraction: number, profilesRead: number, totalProfiles: number, estimatedSecondsLeft: number | null, sequence: number }, errors: Array<{ code: string, message: string, definition?: { id: string, segmentId: string, name: string } | null }> };

type JobLine_ExportJob_Fragment = { __typename: 'ExportJob', id: string, jobId: string, status: JobStatus, source: JobSource, createdAt: string, updatedAt: string, startedAt: string | null, finishedAt: string | null, attempts: number, createdBy: string, progress: { phase: JobPhase, fraction: number, profilesRead: number, totalProfiles: number, estimatedSecondsLeft: number | null, sequence: number }, errors: Array<{ code: string, message: string, definition?: { id: string, segmentId: string, name: string } | null }> };

type JobLine_SegmentJob_Fragment = { __typename: 'SegmentJob', id: string, jobId: string, status: JobStatus, source: JobSource, createdAt: string, updatedAt: string, startedAt: string | null, finishedAt: string | null, attempts: number, createdBy: string, progress: { phase: JobPhase, fraction: number, profilesRead: number, totalProfiles: number, estimatedSecondsLeft: number | null, sequence: number }, errors: Array<{ code: string, message: string, definition?: { id: string, segmentId: string, name: string } | null }> };

export type JobLineFragment =
  | JobLine_ErasureJob_Fragment
  | JobLine_ExportJob_Fragment
  | JobLine_SegmentJob_Fragment
;

export type JobsUpdatedSubscriptionVariables = Exact<{
  readDefinitions?: boolean;
}>;


export type JobsUpdatedSubscription = { jobsUpdated:
    | JobLine_ErasureJob_Fragment
    | JobLine_ExportJob_Fragment
    | JobLine_SegmentJob_Fragment
   };

export type SegmentJobsUpdatedSubscriptionVariables = Exact<{
  readDefinitions?: boolean;
}>;


export type SegmentJobsUpdatedSubscription = { segmentJobsUpdated: JobLine_SegmentJob_Fragment };

export type ExportJobsUpdatedSubscriptionVariables = Exact<{
  readDefinitions?: boolean;
}>;


export type ExportJobsUpdatedSubscription = { exportJobsUpdated: JobLine_ExportJob_Fragment };

export const AudienceRowFragmentDoc = gql`
    fragment AudienceRow on Audience {
  __typename
  id
  audienceId
  name
  description
  type
  namespace
  lifecycleState
  evaluationMethods
  labels
  etag
  updatedAt
  createdAt
  folder @include(if: $readFolders) {
    id
    name
  }
  metrics {
    totalProfiles
    updatedAt
  }
  definition @include(if: $readDefinitions) {
    id
    segmentId
  }
  schedules(first: 2) @include(if: $readSchedules) {
    totalCount
    nodes {
      id
      scheduleId
      name
      state
      frequency
      nextRunTimes(first: 1)
    }
  }
}
    ` as unknown as DocumentNode<AudienceRowFragment, unknown>;
export const AudienceTrendFragmentDoc = gql`
    fragment AudienceTrend on Audience {
  id
  history(last: 12) {
    nodes {
      at
      totalProfiles
    }
  }
}
    ` as unknown as DocumentNode<AudienceTrendFragment, unknown>;
export const ProblemFragmentDoc = gql`
    fragment Problem on UserError {
  __typename
  code
  message
  path
  ... on ExpressionError {
    diagnostics {
      kind
      severity
      message
      line
      column
      length
      suggestions
    }
  }
}
    ` as unknown as DocumentNode<ProblemFragment, unknown>;
export const DatasetRowFragmentDoc = gql`
    fragment DatasetRow on Dataset {
  id
  datasetId
  name
  kind
  rowCount
  createdAt
  updatedAt
}
    ` as unknown as DocumentNode<DatasetRowFragment, unknown>;
export const ExplanationPartFragmentDoc = gql`
    fragment ExplanationPart on ExplanationNode {
  text
  start
  end
  value
  holds
  elements
  passed
}
    ` as unknown as DocumentNode<ExplanationPartFragment, unknown>;
export const SegmentJobSubjectFragmentDoc = gql`
    fragment SegmentJobSubject on SegmentJob {
  allDefinitions
  segments(first: 3) {
    totalCount
    nodes {
      id
      segmentId
      definition @include(if: $readDefinitions) {
        id
        name
      }
    }
  }
}
    ` as unknown as DocumentNode<SegmentJobSubjectFragment, unknown>;
export const JobLineFragmentDoc = gql`
    fragment JobLine on Job {
  __typename
  id
  jobId
  status
  source
  createdAt
  updatedAt
  startedAt
  finishedAt
  attempts
  createdBy
  progress {
    phase
    fraction
    profilesRead
    totalProfiles
    estimatedSecondsLeft
    sequence
  }
  errors {
    code
    message
    definition @include(if: $readDefinitions) {
      id
      segmentId
      name
    }
  }
}
    ` as unknown as DocumentNode<JobLineFragment, unknown>;
export const ScheduleRowFragmentDoc = gql`
    fragment ScheduleRow on Schedule {
  id
  scheduleId
  name
  description
  type
  state
  cronExpression
  frequency
  allAudiences
  etag
  createdBy
  createdAt
  updatedAt
  export {
    fields
    segmentPerBatch
    schemaName
    evaluateFirst
    mergePolicy @include(if: $readMergePolicies) {
      id
      name
    }
    additionalFields {
      fields
      from
      to
    }
    filter {
      fromIngestTimestamp
      emptyProfiles
      segmentQualificationTime {
        start
        end
      }
      segments {
        segmentId
        namespace
        status
        audience @include(if: $readAudiences) {
          id
          audienceId
          name
          type
        }
      }
    }
    destination @include(if: $readDatasets) {
      id
      datasetId
      name
    }
  }
  nextRunTimes(first: 42)
  lastRun {
    runId
    outcome
    ranAt
    dueAt
    message
    job @include(if: $readJobs_readExports) {
      ...JobLine
    }
  }
  audiences(first: 20) @include(if: $readAudiences) {
    totalCount
    nodes {
      id
      audienceId
      name
      type
    }
  }
}
    ` as unknown as DocumentNode<ScheduleRowFragment, unknown>;
export const AudiencesDocument = gql`
    query Audiences($first: Int!, $after: String, $filter: AudienceFilter, $orderBy: AudienceOrder, $readDefinitions: Boolean! = true, $readFolders: Boolean! = true, $readSchedules: Boolean! = true) {
  audiences(first: $first, after: $after, filter: $filter, orderBy: $orderBy) {
    totalCount
    pageInfo {
      hasNextPage
      endCursor
    }
    nodes {
      ...AudienceRow
      ...AudienceTrend
    }
  }
}
    ${AudienceRowFragmentDoc}
${AudienceTrendFragmentDoc}` as unknown as DocumentNode<AudiencesQuery, AudiencesQueryVariables>;
export const SearchAudiencesDocument = gql`
    query SearchAudiences($term: String!, $first: Int!, $after: String, $folderId: ID, $readDefinitions: Boolean! = true, $readFolders: Boolean! = true, $readSchedules: Boolean! = true) {
  search(term: $term, first: $first, after: $after, folderId: $folderId) {
    totalCount
    error {
      message
      position
    }
    pageInfo {
      hasNextPage
      endCursor
    }
    nodes {
      id
      name
      isFolder
      namespace
      node {
        __typename
        id
        ... on Audience {
          ...AudienceRow
          ...AudienceTrend
        }
      }
    }
  }
}
    ${AudienceRowFragmentDoc}
${AudienceTrendFragmentDoc}` as unknown as DocumentNode<SearchAudiencesQuery, SearchAudiencesQueryVariables>;
export const FoldersDocument = gql`
    query Folders($parentId: ID, $readFolders: Boolean! = true) {
  folders(first: 200, parentId: $parentId) @include(if: $readFolders) {
    nodes {
      id
      name
    }
  }
}
    ` as unknown as DocumentNode<FoldersQuery, FoldersQueryVariables>;
export const FolderPathDocument = gql`
    query FolderPath($id: ID!, $readFolders: Boolean! = true) {
  folder(id: $id) @include(if: $readFolders) {
    id
    name
    namespace
    path
    etag
    parent {
      id
      name
    }
  }
}
    ` as unknown as DocumentNode<FolderPathQuery, FolderPathQueryVariables>;
export const AudiencePageDocument = gql`
    query AudiencePage($id: ID!, $readDatasets: Boolean! = true, $readDefinitions: Boolean! = true, $readFolders: Boolean! = true, $readJobs: Boolean! = true, $readMergePolicies: Boolean! = true, $readSchedules: Boolean! = true) {
  audience(id: $id) {
    ...AudienceRow
    origin
    excludeOptOut
    ttlInDays
    expiresAt
    createdBy
    lastModifiedBy
    isSystem
    metrics {
      totalProfiles
      updatedAt
      byNamespace {
        namespace
        count
      }
      job @include(if: $readJobs) {
        id
        jobId
      }
    }
    definition @include(if: $readDefinitions) {
      id
      segmentId
      version
      expression
      streamingEligibility {
        eligible
        reasons
      }
    }
    mergePolicy @include(if: $readMergePolicies) {
      id
      name
      identityGraph
    }
    dataset @include(if: $readDatasets) {
      id
      datasetId
      name
    }
  }
}
    ${AudienceRowFragmentDoc}` as unknown as DocumentNode<AudiencePageQuery, AudiencePageQueryVariables>;
export const AudienceUpdatedDocument = gql`
    subscription AudienceUpdated($id: ID!, $readDefinitions: Boolean! = true, $readFolders: Boolean! = true, $readJobs: Boolean! = true, $readSchedules: Boolean! = true) {
  audienceUpdated(id: $id) {
    ...AudienceRow
    lastModifiedBy
    metrics {
      totalProfiles
      updatedAt
      byNamespace {
        namespace
        count
      }
      job @include(if: $readJobs) {
        id
        jobId
      }
    }
    definition @include(if: $readDefinitions) {
      id
      version
      expression
    }
  }
}
    ${AudienceRowFragmentDoc}` as unknown as DocumentNode<AudienceUpdatedSubscription, AudienceUpdatedSubscriptionVariables>;
export const AudienceUseDocument = gql`
    query AudienceUse($id: ID!, $readDefinitions: Boolean! = true, $readFolders: Boolean! = true, $readSchedules: Boolean! = true) {
  audience(id: $id) {
    id
    dependencies(first: 100) {
      nodes {
        ...AudienceRow
      }
    }
    dependents(first: 100) {
      nodes {
        ...AudienceRow
      }
    }
    schedules(first: 100) @include(if: $readSchedules) {
      nodes {
        id
        scheduleId
        name
        state
        frequency
        nextRunTimes(first: 3)
      }
    }
  }
}
    ${AudienceRowFragmentDoc}` as unknown as DocumentNode<AudienceUseQuery, AudienceUseQueryVariables>;
export const AudienceJobsDocument = gql`
    query AudienceJobs($id: ID!, $readDefinitions: Boolean! = true, $readJobs: Boolean! = true) {
  audience(id: $id) {
    id
    jobs(first: 20) @include(if: $readJobs) {
      totalCount
      nodes {
        ...JobLine
      }
    }
  }
}
    ${JobLineFragmentDoc}` as unknown as DocumentNode<AudienceJobsQuery, AudienceJobsQueryVariables>;
export const AudienceMembersDocument = gql`
    query AudienceMembers($id: ID!, $first: Int!, $after: String, $status: [MembershipStatus!], $where: String, $orderBy: ProfileOrder, $asOf: DateTime, $paths: [String!], $readProfiles: Boolean! = true) {
  audience(id: $id) {
    id
    members(
      first: $first
      after: $after
      status: $status
      where: $where
      orderBy: $orderBy
      asOf: $asOf
    ) @include(if: $readProfiles) {
      totalCount
      pageInfo {
        hasNextPage
        endCursor
      }
      nodes {
        status
        lastQualificationTime
        payload
        profile {
          id
          profileId
          identities {
            namespace
            id
            primary
          }
          attributes(paths: $paths)
        }
      }
    }
  }
}
    ` as unknown as DocumentNode<AudienceMembersQuery, AudienceMembersQueryVariables>;
export const AudienceMomentsDocument = gql`
    query AudienceMoments($id: ID!) {
  audience(id: $id) {
    id
    history(last: 100) {
      nodes {
        at
        totalProfiles
      }
    }
  }
}
    ` as unknown as DocumentNode<AudienceMomentsQuery, AudienceMomentsQueryVariables>;
export const ProfileFieldsDocument = gql`
    query ProfileFields($readDatasets: Boolean! = true) {
  datasets(first: 200, kind: PROFILE) @include(if: $readDatasets) {
    nodes {
      id
      fields {
        path
        type
      }
    }
  }
}
    ` as unknown as DocumentNode<ProfileFieldsQuery, ProfileFieldsQueryVariables>;
export const CreateAudienceDocument = gql`
    mutation CreateAudience($input: CreateAudienceInput!, $readDefinitions: Boolean! = true, $readFolders: Boolean! = true, $readSchedules: Boolean! = true) {
  createAudience(input: $input) {
    audience {
      ...AudienceRow
    }
    warnings {
      message
    }
    errors {
      ...Problem
    }
  }
}
    ${AudienceRowFragmentDoc}
${ProblemFragmentDoc}` as unknown as DocumentNode<CreateAudienceMutation, CreateAudienceMutationVariables>;
export const UpdateAudienceDocument = gql`
    mutation UpdateAudience($input: UpdateAudienceInput!, $readDefinitions: Boolean! = true, $readFolders: Boolean! = true, $readMergePolicies: Boolean! = true, $readSchedules: Boolean! = true) {
  updateAudience(input: $input) {
    audience {
      ...AudienceRow
      excludeOptOut
      lastModifiedBy
      mergePolicy @include(if: $readMergePolicies) {
        id
        name
        identityGraph
      }
      definition @include(if: $readDefinitions) {
        id
        version
        expression
        streamingEligibility {
          eligible
          reasons
        }
      }
    }
    warnings {
      message
    }
    errors {
      ...Problem
    }
  }
}
    ${AudienceRowFragmentDoc}
${ProblemFragmentDoc}` as unknown as DocumentNode<UpdateAudienceMutation, UpdateAudienceMutationVariables>;
export const DeleteAudienceDocument = gql`
    mutation DeleteAudience($input: DeleteInput!) {
  deleteAudience(input: $input) {
    deletedId
    errors {
      ...Problem
    }
  }
}
    ${ProblemFragmentDoc}` as unknown as DocumentNode<DeleteAudienceMutation, DeleteAudienceMutationVariables>;
export const CreateFolderDocument = gql`
    mutation CreateFolder($input: CreateFolderInput!) {
  createFolder(input: $input) {
    folder {
      id
      name
      path
    }
    errors {
      ...Problem
    }
  }
}
    ${ProblemFragmentDoc}` as unknown as DocumentNode<CreateFolderMutation, CreateFolderMutationVariables>;
export const RunDefinitionsDocument = gql`
    mutation RunDefinitions($input: CreateSegmentJobInput!, $readDefinitions: Boolean! = true) {
  createSegmentJob(input: $input) {
    job {
      ...JobLine
    }
    errors {
      ...Problem
    }
  }
}
    ${JobLineFragmentDoc}
${ProblemFragmentDoc}` as unknown as DocumentNode<RunDefinitionsMutation, RunDefinitionsMutationVariables>;
export const DatasetsDocument = gql`
    query Datasets {
  datasets(first: 500) {
    nodes {
      ...DatasetRow
      fields {
        path
      }
    }
  }
}
    ${DatasetRowFragmentDoc}` as unknown as DocumentNode<DatasetsQuery, DatasetsQueryVariables>;
export const DatasetPageDocument = gql`
    query DatasetPage($id: ID!) {
  dataset(id: $id) {
    ...DatasetRow
    fields {
      path
      type
    }
  }
}
    ${DatasetRowFragmentDoc}` as unknown as DocumentNode<DatasetPageQuery, DatasetPageQueryVariables>;
export const DatasetFieldsDocument = gql`
    query DatasetFields($id: ID!, $paths: [String!], $readProfiles: Boolean! = true) {
  dataset(id: $id) {
    id
    fieldStatistics(paths: $paths, values: 6) @include(if: $readProfiles) {
      path
      rows
      filled
      fillRate
      distinct
      values {
        value
        count
      }
      approximate
    }
  }
}
    ` as unknown as DocumentNode<DatasetFieldsQuery, DatasetFieldsQueryVariables>;
export const DatasetBatchesDocument = gql`
    query DatasetBatches($id: ID!, $first: Int!, $after: String, $readProfiles: Boolean! = true) {
  dataset(id: $id) {
    id
    batches(first: $first, after: $after) {
      totalCount
      pageInfo {
        hasNextPage
        endCursor
      }
      nodes {
        id
        batchId
        status
        rowCount
        rejectedRows
        duplicateRows
        bytes
        createdAt
        error @include(if: $readProfiles)
      }
    }
  }
}
    ` as unknown as DocumentNode<DatasetBatchesQuery, DatasetBatchesQueryVariables>;
export const BatchRejectedDocument = gql`
    query BatchRejected($id: ID!, $readProfiles: Boolean! = true) {
  batch(id: $id) {
    id
    rejected @include(if: $readProfiles) {
      row
      message
    }
  }
}
    ` as unknown as DocumentNode<BatchRejectedQuery, BatchRejectedQueryVariables>;
export const CreateDatasetDocument = gql`
    mutation CreateDataset($input: CreateDatasetInput!) {
  createDataset(input: $input) {
    dataset {
      ...DatasetRow
    }
    errors {
      ...Problem
    }
  }
}
    ${DatasetRowFragmentDoc}
${ProblemFragmentDoc}` as unknown as DocumentNode<CreateDatasetMutation, CreateDatasetMutationVariables>;
export const DeleteDatasetDocument = gql`
    mutation DeleteDataset($input: DeleteInput!) {
  deleteDataset(input: $input) {
    deletedId
    errors {
      ...Problem
    }
  }
}
    ${ProblemFragmentDoc}` as unknown as DocumentNode<DeleteDatasetMutation, DeleteDatasetMutationVariables>;
export const UploadBatchDocument = gql`
    mutation UploadBatch($input: UploadBatchInput!) {
  uploadBatch(input: $input) {
    batch {
      id
      batchId
      rowCount
      rejectedRows
      duplicateRows
    }
    dryRun {
      rowCount
      rejectedRows
      duplicateRows
      newFields
      fields {
        path
        type
      }
    }
    warnings
    rejected {
      row
      message
    }
    errors {
      ...Problem
    }
  }
}
    ${ProblemFragmentDoc}` as unknown as DocumentNode<UploadBatchMutation, UploadBatchMutationVariables>;
export const PeopleDocument = gql`
    query People($where: String, $first: Int!, $after: String) {
  profiles(where: $where, first: $first, after: $after) {
    pageInfo {
      hasNextPage
      endCursor
    }
    nodes {
      id
      profileId
      identities {
        namespace
        id
        primary
      }
      attributes
    }
  }
}
    ` as unknown as DocumentNode<PeopleQuery, PeopleQueryVariables>;
export const PersonByIdentityDocument = gql`
    query PersonByIdentity($identity: IdentityInput!) {
  profile(identity: $identity) {
    id
    profileId
  }
}
    ` as unknown as DocumentNode<PersonByIdentityQuery, PersonByIdentityQueryVariables>;
export const PersonDocument = gql`
    query Person($id: ID!, $readAudiences: Boolean! = true) {
  profile(id: $id) {
    id
    profileId
    identities {
      namespace
      id
      primary
    }
    attributes
    memberships(first: 200) {
      totalCount
      nodes {
        status
        lastQualificationTime
        payload
        audience @include(if: $readAudiences) {
          id
          audienceId
          name
          type
        }
      }
    }
  }
}
    ` as unknown as DocumentNode<PersonQuery, PersonQueryVariables>;
export const PersonEventsDocument = gql`
    query PersonEvents($id: ID!, $first: Int!, $after: String) {
  profile(id: $id) {
    id
    events(first: $first, after: $after) {
      totalCount
      pageInfo {
        hasNextPage
        endCursor
      }
      nodes {
        eventId
        timestamp
        attributes
      }
    }
  }
}
    ` as unknown as DocumentNode<PersonEventsQuery, PersonEventsQueryVariables>;
export const OverlapDocument = gql`
    query Overlap($people: [PeopleInput!]!) {
  overlap(people: $people) {
    cells {
      in
      count
    }
    sizes
    union
    exact
    error {
      message
    }
  }
}
    ` as unknown as DocumentNode<OverlapQuery, OverlapQueryVariables>;
export const CheckExpressionDocument = gql`
    query CheckExpression($expression: String!) {
  pql {
    check(expression: $expression) {
      ok
      diagnostics {
        kind
        severity
        message
        line
        column
        length
        suggestions
      }
      streamingEligibility {
        eligible
        reasons
      }
    }
  }
}
    ` as unknown as DocumentNode<CheckExpressionQuery, CheckExpressionQueryVariables>;
export const CompleteExpressionDocument = gql`
    query CompleteExpression($expression: String!, $offset: Int!, $first: Int!) {
  pql {
    complete(expression: $expression, offset: $offset, first: $first) {
      text
      kind
      detail
      replaceFrom
      replaceTo
    }
  }
}
    ` as unknown as DocumentNode<CompleteExpressionQuery, CompleteExpressionQueryVariables>;
export const ConvertExpressionDocument = gql`
    query ConvertExpression($expression: String!) {
  pql {
    convert(expression: $expression, from: PQL_TEXT, to: PQL_JSON) {
      expression
      diagnostics {
        message
      }
    }
  }
}
    ` as unknown as DocumentNode<ConvertExpressionQuery, ConvertExpressionQueryVariables>;
export const FunctionsDocument = gql`
    query Functions {
  pql {
    functions {
      name
      signature
      description
      example
    }
  }
}
    ` as unknown as DocumentNode<FunctionsQuery, FunctionsQueryVariables>;
export const CatalogueDocument = gql`
    query Catalogue($readDatasets: Boolean! = true) {
  datasets(first: 500) @include(if: $readDatasets) {
    nodes {
      id
      kind
      fields {
        path
        type
      }
    }
  }
}
    ` as unknown as DocumentNode<CatalogueQuery, CatalogueQueryVariables>;
export const FieldValuesDocument = gql`
    query FieldValues($ids: [ID!]!, $paths: [String!], $readDatasets: Boolean! = true, $readProfiles: Boolean! = true) {
  nodes(ids: $ids) @include(if: $readDatasets) {
    id
    ... on Dataset {
      fieldStatistics(paths: $paths, values: 40) @include(if: $readProfiles) {
        path
        values {
          value
          count
        }
      }
    }
  }
}
    ` as unknown as DocumentNode<FieldValuesQuery, FieldValuesQueryVariables>;
export const EditorChoicesDocument = gql`
    query EditorChoices($readMergePolicies: Boolean! = true) {
  mergePolicies(first: 100) @include(if: $readMergePolicies) {
    nodes {
      id
      mergePolicyId
      name
      isDefault
    }
  }
}
    ` as unknown as DocumentNode<EditorChoicesQuery, EditorChoicesQueryVariables>;
export const CreatePreviewDocument = gql`
    mutation CreatePreview($input: CreatePreviewInput!) {
  createPreview(input: $input) {
    preview {
      id
      previewId
    }
    errors {
      ...Problem
    }
  }
}
    ${ProblemFragmentDoc}` as unknown as DocumentNode<CreatePreviewMutation, CreatePreviewMutationVariables>;
export const CancelPreviewDocument = gql`
    mutation CancelPreview($id: ID!) {
  cancelPreview(id: $id) {
    preview {
      id
    }
    errors {
      message
    }
  }
}
    ` as unknown as DocumentNode<CancelPreviewMutation, CancelPreviewMutationVariables>;
export const EstimateUpdatedDocument = gql`
    subscription EstimateUpdated($id: ID!) {
  estimateUpdated(id: $id) {
    id
    state
    estimatedSize
    numRowsToRead
    profilesReadSoFar
    profilesMatchedSoFar
    totalRows
    standardError
    confidenceInterval {
      low
      high
    }
    estimatedNamespaceDistribution {
      namespace
      count
    }
    error
    sequence
  }
}
    ` as unknown as DocumentNode<EstimateUpdatedSubscription, EstimateUpdatedSubscriptionVariables>;
export const PreviewPeopleDocument = gql`
    query PreviewPeople($id: ID!, $readProfiles: Boolean! = true) {
  preview(id: $id) {
    id
    profiles(first: 8) @include(if: $readProfiles) {
      nodes {
        id
        profileId
        attributes
      }
    }
  }
}
    ` as unknown as DocumentNode<PreviewPeopleQuery, PreviewPeopleQueryVariables>;
export const EraseProfileDocument = gql`
    mutation EraseProfile($input: EraseProfileInput!, $readDefinitions: Boolean! = true) {
  eraseProfile(input: $input) {
    job {
      ...JobLine
    }
    errors {
      ...Problem
    }
  }
}
    ${JobLineFragmentDoc}
${ProblemFragmentDoc}` as unknown as DocumentNode<EraseProfileMutation, EraseProfileMutationVariables>;
export const ErasureJobPageDocument = gql`
    query ErasureJobPage($id: ID!, $readDefinitions: Boolean! = true) {
  erasureJob(id: $id) {
    ...JobLine
    verified
    rows {
      place
      count
    }
  }
}
    ${JobLineFragmentDoc}` as unknown as DocumentNode<ErasureJobPageQuery, ErasureJobPageQueryVariables>;
export const AudienceHistoryDocument = gql`
    query AudienceHistory($id: ID!, $readDefinitions: Boolean! = true, $readJobs: Boolean! = true, $readMergePolicies: Boolean! = true) {
  audience(id: $id) {
    id
    history(last: 200) {
      totalCount
      nodes {
        at
        totalProfiles
        entered
        exited
        version
        job @include(if: $readJobs) {
          id
          jobId
        }
      }
    }
    versions(last: 50) @include(if: $readDefinitions) {
      nodes {
        version
        expression
        createdBy
        createdAt
        mergePolicy @include(if: $readMergePolicies) {
          id
          name
        }
      }
    }
  }
}
    ` as unknown as DocumentNode<AudienceHistoryQuery, AudienceHistoryQueryVariables>;
export const AudienceChangesDocument = gql`
    query AudienceChanges($id: ID!, $first: Int!, $after: String, $readJobs: Boolean! = true, $readProfiles: Boolean! = true) {
  audience(id: $id) {
    id
    changes(first: $first, after: $after) @include(if: $readProfiles) {
      pageInfo {
        hasNextPage
        endCursor
      }
      nodes {
        status
        at
        cursor
        profile {
          id
          profileId
        }
        job @include(if: $readJobs) {
          id
          jobId
        }
      }
    }
  }
}
    ` as unknown as DocumentNode<AudienceChangesQuery, AudienceChangesQueryVariables>;
export const ExplainDocument = gql`
    query Explain($identity: IdentityInput!, $people: PeopleInput!) {
  explain(profile: $identity, people: $people) {
    member
    evaluatedAt
    root {
      ...ExplanationPart
      children {
        ...ExplanationPart
        children {
          ...ExplanationPart
          children {
            ...ExplanationPart
            children {
              ...ExplanationPart
              children {
                ...ExplanationPart
                children {
                  ...ExplanationPart
                  children {
                    ...ExplanationPart
                    children {
                      ...ExplanationPart
                    }
                  }
                }
              }
            }
          }
        }
      }
    }
    error {
      message
    }
  }
}
    ${ExplanationPartFragmentDoc}` as unknown as DocumentNode<ExplainQuery, ExplainQueryVariables>;
export const CompareDocument = gql`
    query Compare($audienceId: ID!, $expression: String!) {
  compare(audienceId: $audienceId, expression: $expression) {
    before
    after
    stay
    enter
    leave
    exact
    entering(first: 5) {
      nodes {
        id
        profileId
      }
    }
    leaving(first: 5) {
      nodes {
        id
        profileId
      }
    }
    error {
      message
    }
  }
}
    ` as unknown as DocumentNode<CompareQuery, CompareQueryVariables>;
export const AudienceNamesDocument = gql`
    query AudienceNames($ids: [ID!]!) {
  nodes(ids: $ids) {
    __typename
    id
    ... on Audience {
      name
    }
  }
}
    ` as unknown as DocumentNode<AudienceNamesQuery, AudienceNamesQueryVariables>;
export const SegmentJobsDocument = gql`
    query SegmentJobs($first: Int!, $after: String, $filter: SegmentJobFilter, $readDefinitions: Boolean! = true) {
  segmentJobs(
    first: $first
    after: $after
    filter: $filter
    orderBy: {field: CREATED_AT, direction: DESC}
  ) {
    totalCount
    pageInfo {
      hasNextPage
      endCursor
    }
    nodes {
      ...JobLine
      ...SegmentJobSubject
    }
  }
}
    ${JobLineFragmentDoc}
${SegmentJobSubjectFragmentDoc}` as unknown as DocumentNode<SegmentJobsQuery, SegmentJobsQueryVariables>;
export const JobsDocument = gql`
    query Jobs($first: Int!, $after: String, $filter: JobFilter, $readDatasets: Boolean! = true, $readDefinitions: Boolean! = true) {
  jobs(
    first: $first
    after: $after
    filter: $filter
    orderBy: {field: CREATED_AT, direction: DESC}
  ) {
    totalCount
    pageInfo {
      hasNextPage
      endCursor
    }
    nodes {
      ...JobLine
      ...SegmentJobSubject
      ... on ExportJob {
        destination @include(if: $readDatasets) {
          id
          datasetId
          name
        }
        metrics {
          totalExportedProfiles
        }
      }
    }
  }
}
    ${JobLineFragmentDoc}
${SegmentJobSubjectFragmentDoc}` as unknown as DocumentNode<JobsQuery, JobsQueryVariables>;
export const ExportJobsDocument = gql`
    query ExportJobs($first: Int!, $after: String, $filter: ExportJobFilter, $readDatasets: Boolean! = true, $readDefinitions: Boolean! = true, $readSchedules: Boolean! = true) {
  exportJobs(
    first: $first
    after: $after
    filter: $filter
    orderBy: {field: CREATED_AT, direction: DESC}
  ) {
    totalCount
    pageInfo {
      hasNextPage
      endCursor
    }
    nodes {
      ...JobLine
      schedule @include(if: $readSchedules) {
        id
        scheduleId
        name
      }
      destination @include(if: $readDatasets) {
        id
        datasetId
        name
      }
      metrics {
        totalExportedProfiles
      }
    }
  }
}
    ${JobLineFragmentDoc}` as unknown as DocumentNode<ExportJobsQuery, ExportJobsQueryVariables>;
export const SegmentJobPageDocument = gql`
    query SegmentJobPage($id: ID!, $readDefinitions: Boolean! = true, $readMergePolicies: Boolean! = true, $readSchedules: Boolean! = true) {
  segmentJob(id: $id) {
    ...JobLine
    allDefinitions
    runId
    evaluatedAt
    schedule @include(if: $readSchedules) {
      id
      scheduleId
      name
    }
    metrics {
      totalProfiles
      totalTime {
        totalMs
      }
      profileSegmentationTime {
        totalMs
      }
      bucketTime {
        buckets
        totalMs
        readingMs
        evaluatingMs
        slowest {
          bucket
          profiles
          totalMs
        }
      }
      totalProfilesByMergePolicy {
        count
        mergePolicy @include(if: $readMergePolicies) {
          id
          name
        }
      }
    }
    segments(first: 500) {
      totalCount
      nodes {
        id
        segmentId
        version
        expression
        profileCount
        evaluationMs
        byStatus {
          status
          count
        }
        error {
          code
          message
        }
        definition @include(if: $readDefinitions) {
          id
          name
          version
        }
      }
    }
  }
}
    ${JobLineFragmentDoc}` as unknown as DocumentNode<SegmentJobPageQuery, SegmentJobPageQueryVariables>;
export const ExportJobPageDocument = gql`
    query ExportJobPage($id: ID!, $readDatasets: Boolean! = true, $readDefinitions: Boolean! = true, $readJobs: Boolean! = true, $readMergePolicies: Boolean! = true, $readSchedules: Boolean! = true) {
  exportJob(id: $id) {
    ...JobLine
    runId
    fields
    schemaName
    segmentPerBatch
    evaluateFirst
    schedule @include(if: $readSchedules) {
      id
      scheduleId
      name
    }
    mergePolicy @include(if: $readMergePolicies) {
      id
      name
    }
    destination @include(if: $readDatasets) {
      id
      datasetId
      name
    }
    evaluation @include(if: $readJobs) {
      id
      jobId
      status
    }
    metrics {
      totalTime {
        totalMs
      }
      profileExportTime {
        totalMs
      }
      totalExportedProfiles
      exportedProfilesByNamespace {
        namespace
        count
      }
    }
    batches(first: 100) @include(if: $readDatasets) {
      totalCount
      nodes {
        id
        batchId
        status
        rowCount
        rejectedRows
        bytes
        segmentIds
        createdAt
      }
    }
  }
}
    ${JobLineFragmentDoc}` as unknown as DocumentNode<ExportJobPageQuery, ExportJobPageQueryVariables>;
export const SegmentJobUpdatedDocument = gql`
    subscription SegmentJobUpdated($id: ID!, $readDefinitions: Boolean! = true) {
  segmentJobUpdated(id: $id) {
    ...JobLine
  }
}
    ${JobLineFragmentDoc}` as unknown as DocumentNode<SegmentJobUpdatedSubscription, SegmentJobUpdatedSubscriptionVariables>;
export const ExportJobUpdatedDocument = gql`
    subscription ExportJobUpdated($id: ID!, $readDefinitions: Boolean! = true) {
  exportJobUpdated(id: $id) {
    ...JobLine
  }
}
    ${JobLineFragmentDoc}` as unknown as DocumentNode<ExportJobUpdatedSubscription, ExportJobUpdatedSubscriptionVariables>;
export const CancelSegmentJobDocument = gql`
    mutation CancelSegmentJob($id: ID!, $readDefinitions: Boolean! = true) {
  cancelSegmentJob(id: $id) {
    job {
      ...JobLine
    }
    errors {
      ...Problem
    }
  }
}
    ${JobLineFragmentDoc}
${ProblemFragmentDoc}` as unknown as DocumentNode<CancelSegmentJobMutation, CancelSegmentJobMutationVariables>;
export const CancelExportJobDocument = gql`
    mutation CancelExportJob($id: ID!, $readDefinitions: Boolean! = true) {
  cancelExportJob(id: $id) {
    job {
      ...JobLine
    }
    errors {
      ...Problem
    }
  }
}
    ${JobLineFragmentDoc}
${ProblemFragmentDoc}` as unknown as DocumentNode<CancelExportJobMutation, CancelExportJobMutationVariables>;
export const WaterfallDocument = gql`
    query Waterfall($id: ID!) {
  audience(id: $id) {
    id
    waterfall {
      name
      count
    }
  }
}
    ` as unknown as DocumentNode<WaterfallQuery, WaterfallQueryVariables>;
export const StatisticsDocument = gql`
    query Statistics($id: ID!, $expressions: [String!]!, $readProfiles: Boolean! = true) {
  audience(id: $id) {
    id
    statistics(expressions: $expressions) @include(if: $readProfiles) {
      expression
      count
      distinct
      sum
      average
      minimum
      maximum
      quartiles
      histogram {
        low
        high
        count
      }
      error {
        message
      }
    }
  }
}
    ` as unknown as DocumentNode<StatisticsQuery, StatisticsQueryVariables>;
export const ExpressionTextDocument = gql`
    query ExpressionText($expression: String!) {
  pql {
    convert(expression: $expression, from: PQL_JSON, to: PQL_TEXT) {
      expression
      diagnostics {
        message
      }
    }
  }
}
    ` as unknown as DocumentNode<ExpressionTextQuery, ExpressionTextQueryVariables>;
export const SizesDocument = gql`
    query Sizes($people: [PeopleInput!]!, $mergePolicyId: ID) {
  overlap(people: $people, mergePolicyId: $mergePolicyId) {
    sizes
    exact
    error {
      message
    }
  }
}
    ` as unknown as DocumentNode<SizesQuery, SizesQueryVariables>;
export const SchedulesDocument = gql`
    query Schedules($first: Int!, $after: String, $readAudiences: Boolean! = true, $readDatasets: Boolean! = true, $readDefinitions: Boolean! = true, $readJobs_readExports: Boolean! = true, $readMergePolicies: Boolean! = true) {
  schedules(first: $first, after: $after, orderBy: {field: NAME, direction: ASC}) {
    totalCount
    pageInfo {
      hasNextPage
      endCursor
    }
    nodes {
      ...ScheduleRow
    }
  }
}
    ${ScheduleRowFragmentDoc}
${JobLineFragmentDoc}` as unknown as DocumentNode<SchedulesQuery, SchedulesQueryVariables>;
export const SchedulePageDocument = gql`
    query SchedulePage($id: ID!, $readAudiences: Boolean! = true, $readDatasets: Boolean! = true, $readDefinitions: Boolean! = true, $readJobs_readExports: Boolean! = true, $readMergePolicies: Boolean! = true) {
  schedule(id: $id) {
    ...ScheduleRow
    jobs(first: 20) @include(if: $readJobs_readExports) {
      totalCount
      nodes {
        ...JobLine
      }
    }
  }
}
    ${ScheduleRowFragmentDoc}
${JobLineFragmentDoc}` as unknown as DocumentNode<SchedulePageQuery, SchedulePageQueryVariables>;
export const CreateScheduleDocument = gql`
    mutation CreateSchedule($input: CreateScheduleInput!, $readAudiences: Boolean! = true, $readDatasets: Boolean! = true, $readDefinitions: Boolean! = true, $readJobs_readExports: Boolean! = true, $readMergePolicies: Boolean! = true) {
  createSchedule(input: $input) {
    schedule {
      ...ScheduleRow
    }
    errors {
      ...Problem
    }
  }
}
    ${ScheduleRowFragmentDoc}
${JobLineFragmentDoc}
${ProblemFragmentDoc}` as unknown as DocumentNode<CreateScheduleMutation, CreateScheduleMutationVariables>;
export const UpdateScheduleDocument = gql`
    mutation UpdateSchedule($input: UpdateScheduleInput!, $readAudiences: Boolean! = true, $readDatasets: Boolean! = true, $readDefinitions: Boolean! = true, $readJobs_readExports: Boolean! = true, $readMergePolicies: Boolean! = true) {
  updateSchedule(input: $input) {
    schedule {
      ...ScheduleRow
    }
    errors {
      ...Problem
    }
  }
}
    ${ScheduleRowFragmentDoc}
${JobLineFragmentDoc}
${ProblemFragmentDoc}` as unknown as DocumentNode<UpdateScheduleMutation, UpdateScheduleMutationVariables>;
export const DeleteScheduleDocument = gql`
    mutation DeleteSchedule($input: DeleteInput!) {
  deleteSchedule(input: $input) {
    deletedId
    errors {
      ...Problem
    }
  }
}
    ${ProblemFragmentDoc}` as unknown as DocumentNode<DeleteScheduleMutation, DeleteScheduleMutationVariables>;
export const TriggerScheduleDocument = gql`
    mutation TriggerSchedule($id: ID!, $readDefinitions: Boolean! = true) {
  triggerSchedule(id: $id) {
    job {
      ...JobLine
    }
    errors {
      ...Problem
    }
  }
}
    ${JobLineFragmentDoc}
${ProblemFragmentDoc}` as unknown as DocumentNode<TriggerScheduleMutation, TriggerScheduleMutationVariables>;
export const AudienceChoicesDocument = gql`
    query AudienceChoices($first: Int!, $filter: AudienceFilter, $readAudiences: Boolean! = true) {
  audiences(
    first: $first
    filter: $filter
    orderBy: {field: NAME, direction: ASC}
  ) @include(if: $readAudiences) {
    totalCount
    nodes {
      id
      audienceId
      name
      type
    }
  }
}
    ` as unknown as DocumentNode<AudienceChoicesQuery, AudienceChoicesQueryVariables>;
export const ExportTargetsDocument = gql`
    query ExportTargets($readDatasets: Boolean! = true) {
  datasets(first: 200, kind: EXPORT) @include(if: $readDatasets) {
    nodes {
      id
      datasetId
      name
    }
  }
}
    ` as unknown as DocumentNode<ExportTargetsQuery, ExportTargetsQueryVariables>;
export const CreateExportDocument = gql`
    mutation CreateExport($input: CreateExportJobInput!, $readDefinitions: Boolean! = true) {
  createExportJob(input: $input) {
    job {
      ...JobLine
    }
    errors {
      ...Problem
    }
  }
}
    ${JobLineFragmentDoc}
${ProblemFragmentDoc}` as unknown as DocumentNode<CreateExportMutation, CreateExportMutationVariables>;
export const ViewerDocument = gql`
    query Viewer {
  viewer {
    subject
    organisation
    sandbox
    permissions
  }
}
    ` as unknown as DocumentNode<ViewerQuery, ViewerQueryVariables>;
export const JobsUpdatedDocument = gql`
    subscription JobsUpdated($readDefinitions: Boolean! = true) {
  jobsUpdated {
    ...JobLine
  }
}
    ${JobLineFragmentDoc}` as unknown as DocumentNode<JobsUpdatedSubscription, JobsUpdatedSubscriptionVariables>;
export const SegmentJobsUpdatedDocument = gql`
    subscription SegmentJobsUpdated($readDefinitions: Boolean! = true) {
  segmentJobsUpdated {
    ...JobLine
  }
}
    ${JobLineFragmentDoc}` as unknown as DocumentNode<SegmentJobsUpdatedSubscription, SegmentJobsUpdatedSubscriptionVariables>;
export const ExportJobsUpdatedDocument = gql`
    subscription ExportJobsUpdated($readDefinitions: Boolean! = true) {
  exportJobsUpdated {
    ...JobLine
  }
}
    ${JobLineFragmentDoc}` as unknown as DocumentNode<ExportJobsUpdatedSubscription, ExportJobsUpdatedSubscriptionVariables>;

/** For the cache: the object types behind each interface. */
export const possibleTypes = {"Job":["ErasureJob","ExportJob","SegmentJob"],"Node":["ApiKey","Audience","Batch","Dataset","ErasureJob","Estimate","ExportJob","Folder","MergePolicy","Preview","Profile","Schedule","SegmentDefinition","SegmentJob"],"UserError":["DependentsError","ExpressionError","InputError","StaleEtagError"]};

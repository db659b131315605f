// The one way to the server: urql with a normalised cache; requests by HTTP, subscriptions by WebSocket.
import { Client, fetchExchange, subscriptionExchange } from '@urql/core';
import { cacheExchange, type Cache } from '@urql/exchange-graphcache';
import { relayPagination } from '@urql/exchange-graphcache/extras';
import { createClient as createSocket } from 'graphql-ws';

import { GRAPHQL, SOCKET } from '../../shared/address';
import { identityHeaders } from '../../shared/identity';
import { lookAgain, pause, reportAnswer, reportGap, reportLost, reportUnauthorized } from './connection';
import { nullsOfErrors } from './nulls';
import { possibleTypes } from './operations';
import { leavesOutWhatIsForbidden } from './permissions';
import { Foreign, Lost } from './problem';

const PONG_SECONDS = 5;

/** `fetch` that says what became of the server; where JSON is expected, other text, as of a proxy, is shown as an error. */
export async function request(input: RequestInfo | URL, init?: RequestInit, expected: 'json' | 'file' = 'json'): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(input, { ...init, headers: { ...(init?.headers as object), ...identityHeaders() } });
  } catch (error) {
    if (error instanceof DOMException && error.name === 'AbortError') throw error;
    reportLost();
    throw new Lost();
  }
  if (response.status === 401) reportUnauthorized();
  else if ([502, 503, 504].includes(response.status)) reportLost();
  else reportAnswer();
  if ((expected === 'json' || !response.ok) && !/\bjson\b/.test(response.headers.get('content-type') ?? '')) {
    throw new Foreign(`${response.status} ${response.statusText}: ${(await response.text()).slice(0, 300)}`);
  }
  return response;
}

let overdue: ReturnType<typeof setTimeout> | undefined;
let channel: WebSocket | undefined;

export const socket = createSocket({
  url: SOCKET,
  lazy: true,
  retryAttempts: Infinity,
  shouldRetry: () => true,
  retryWait: (retries) => pause(Math.min(500 * 2 ** retries, 5_000)),
  connectionParams: () => identityHeaders(),
  keepAlive: 10_000,
  on: {
    opened: (opened) => (channel = opened as WebSocket),
    connected: (_socket, _payload, again) => (again ? reportGap() : reportAnswer()),
    closed: (event) => {
      if ((event as CloseEvent).code === 4401 || (event as CloseEvent).code === 4403) reportUnauthorized();
      else if ((event as CloseEvent).code !== 1000) void lookAgain();
    },
    // A server that hangs closes nothing: without an answer to a ping, we do.
    ping: (received) => {
      if (!received) overdue = setTimeout(() => channel?.close(4408, 'no pong'), PONG_SECONDS * 1_000);
    },
    pong: (received) => {
      if (received) clearTimeout(overdue);
    },
  },
});

/** Lists that a mutation may have changed are read again. */
function forget(cache: Cache, ...fields: string[]): void {
  for (const field of cache.inspectFields('Query')) {
    if (fields.includes(field.fieldName)) cache.invalidate('Query', field.fieldKey);
  }
}

const after =
  (...fields: string[]) =>
  (_result: unknown, _args: unknown, cache: Cache) =>
    forget(cache, ...fields);

const JOB_LISTS = ['jobs', 'segmentJobs', 'exportJobs'];
const AUDIENCE_LISTS = ['audiences', 'segmentDefinitions', 'search', 'searchNamespaces'];

/** The first that a stream says of a job, and its end: lists and audiences have changed. */
const heardOf = (field: string) => (result: Record<string, unknown>, _args: unknown, cache: Cache) => {
  const job = result[field] as { status: string; __typename: string };
  if (job.status === 'NEW' || job.status === 'QUEUED') forget(cache, ...JOB_LISTS);
  if (job.status === 'SUCCEEDED' || job.status === 'FAILED') {
    forget(cache, ...JOB_LISTS, ...AUDIENCE_LISTS);
    if (job.__typename === 'ErasureJob') forget(cache, 'profile', 'profiles', 'dataset', 'datasets');
  }
};

const pages = relayPagination();
const unkeyed = () => null;

const cache = cacheExchange({
  possibleTypes,
  resolvers: {
    Query: { audiences: pages, jobs: pages, segmentJobs: pages, exportJobs: pages, schedules: pages, search: pages, profiles: pages },
    Audience: { members: pages, changes: pages },
    Dataset: { batches: pages },
    Profile: { events: pages },
  },
  keys: {
    AudienceMetrics: unkeyed,
    ConfidenceInterval: unkeyed,
    DatasetField: unkeyed,
    ExperienceEvent: unkeyed,
    ExportEvents: unkeyed,
    ExportFilter: unkeyed,
    ExportJobMetrics: unkeyed,
    ExportSegment: unkeyed,
    ExportSpec: unkeyed,
    Identity: unkeyed,
    JobError: unkeyed,
    JobProgress: unkeyed,
    LinkedAudienceRef: unkeyed,
    Membership: unkeyed,
    MergePolicyCount: unkeyed,
    NamespaceCount: unkeyed,
    PqlCheck: unkeyed,
    PqlCompletion: unkeyed,
    PqlConversion: unkeyed,
    PqlDiagnostic: unkeyed,
    PqlFunction: unkeyed,
    PqlService: unkeyed,
    Comparison: unkeyed,
    ErasedRows: unkeyed,
    FieldStatistics: unkeyed,
    FieldValue: unkeyed,
    HistogramBucket: unkeyed,
    BucketTime: unkeyed,
    BucketTimes: unkeyed,
    DryRun: unkeyed,
    AudiencePoint: unkeyed,
    DefinitionVersion: unkeyed,
    MembershipChange: unkeyed,
    PrimaryIdentity: unkeyed,
    Explanation: unkeyed,
    ExplanationNode: unkeyed,
    Overlap: unkeyed,
    OverlapCell: unkeyed,
    RejectedRow: unkeyed,
    ScheduleRun: unkeyed,
    SearchHit: unkeyed,
    SearchNamespace: unkeyed,
    SearchNamespaces: unkeyed,
    SegmentJobMetrics: unkeyed,
    StatusCount: unkeyed,
    StreamingEligibility: unkeyed,
    TimeRange: unkeyed,
    TimeSpan: unkeyed,
    ValueStatistics: unkeyed,
    Viewer: unkeyed,
    WaterfallStep: unkeyed,
  },
  updates: {
    Mutation: {
      createAudience: after(...AUDIENCE_LISTS),
      updateAudience: after('search'),
      deleteAudience: after(...AUDIENCE_LISTS),
      createFolder: after('folders', 'search', 'searchNamespaces'),
      createSegmentJob: after(...JOB_LISTS),
      createExportJob: after(...JOB_LISTS),
      triggerSchedule: after(...JOB_LISTS),
      createSchedule: after('schedules'),
      deleteSchedule: after('schedules'),
      createDataset: after('datasets'),
      deleteDataset: after('datasets'),
      uploadBatch: after('datasets', 'dataset', 'profile', 'pql'),
    },
    Subscription: { jobsUpdated: heardOf('jobsUpdated'), segmentJobsUpdated: heardOf('segmentJobsUpdated'), exportJobsUpdated: heardOf('exportJobsUpdated') },
  },
});

export const client = new Client({
  url: GRAPHQL,
  preferGetMethod: false,
  fetch: (input, init) => request(input, init),
  // urql would also accept streams, and the server then prefers them.
  fetchOptions: { headers: { accept: 'application/graphql-response+json, application/json', 'x-requested-with': 'workplace' } },
  requestPolicy: 'cache-and-network',
  exchanges: [
    leavesOutWhatIsForbidden,
    cache,
    nullsOfErrors,
    fetchExchange,
    subscriptionExchange({
      forwardSubscription: ({ query, variables, operationName }) => ({
        subscribe: (sink) => {
          const complete = () => {
            sink.complete();
            // Of an audience that is the end: it has been deleted, and what shows it is old.
            if (operationName === 'AudienceUpdated') reportGap();
          };
          return { unsubscribe: socket.subscribe({ query: query ?? '', variables }, { ...sink, complete } as never) };
        },
      }),
    }),
  ],
});

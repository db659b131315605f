// The lists of jobs and of exports, live.
import { useNavigate, useSearch } from '@tanstack/react-router';
import { useEffect, useState } from 'react';

import { useData } from '../api/hooks';
import { CreateExportDocument, ExportJobsDocument, JobsDocument, SegmentJobsDocument, type JobKind, type JobsQuery, type JobStatus } from '../api/operations';
import { useMay, usePermissions } from '../api/permissions';
import { Button, May, Select } from '../ui/controls';
import { plural } from '../ui/format';
import { Failure, Head, More, Skeleton, Withheld } from '../ui/pieces';
import { ExportDialog } from './ExportDialog';
import { JobTable } from './JobTable';

const PAGE = 30;
export const JOB_STATES = [
  { id: 'all', label: 'Any state' },
  { id: 'live', label: 'Under way' },
  { id: 'SUCCEEDED', label: 'Succeeded' },
  { id: 'FAILED', label: 'Failed' },
  { id: 'CANCELLED', label: 'Cancelled' },
];

function statuses(status: string | undefined): JobStatus[] | undefined {
  if (!status) return undefined;
  return status === 'live' ? ['NEW', 'QUEUED', 'PROCESSING', 'CANCELLING'] : [status as JobStatus];
}

export const JOB_KINDS: { id: string; label: string }[] = [
  { id: 'all', label: 'Any kind' },
  { id: 'SEGMENT', label: 'Evaluations' },
  { id: 'EXPORT', label: 'Exports' },
  { id: 'ERASURE', label: 'Erasures' },
];

type Page = JobsQuery['jobs'];
type ListedJob = Page['nodes'][number];

/** What a job does, in a few words; an erasure does not say whom it erases. */
function what(job: ListedJob): string {
  if (job.__typename === 'ErasureJob') return 'Erasure of a person';
  if (job.__typename === 'ExportJob') return job.destination ? `Export to ${job.destination.name}` : 'Export';
  if (job.allDefinitions) return `Every audience (${job.segments.totalCount})`;
  const names = job.segments.nodes.map((segment) => segment.definition?.name ?? segment.segmentId);
  const rest = job.segments.totalCount - names.length;
  return names.join(', ') + (rest > 0 ? ` and ${rest} more` : '');
}

export function Jobs() {
  const { status, kind } = useSearch({ from: '/jobs' });
  const navigate = useNavigate({ from: '/jobs' });
  const [after, setAfter] = useState<string>();
  useEffect(() => setAfter(undefined), [status, kind]);
  // The list of all kinds needs exports, too; without that permission it is one of evaluations. None is read before that is known.
  const known = usePermissions() !== undefined;
  const every = useMay()('exports:read');
  const filter = { status: statuses(status) };
  const all = useData(JobsDocument, { first: PAGE, after, filter: { ...filter, kind: kind ? [kind as JobKind] : undefined } }, { pause: !known || !every });
  const evaluations = useData(SegmentJobsDocument, { first: PAGE, after, filter }, { pause: !known || every });
  const { loading, stale, error, again } = every ? all : evaluations;
  const page: Page | undefined = every ? all.data?.jobs : evaluations.data?.segmentJobs;
  const change = (part: { status?: string; kind?: string }) => void navigate({ search: (old) => ({ ...old, ...part }), replace: true });
  const some = (id: string) => (id === 'all' ? undefined : id);
  return (
    <div className="page">
      <Head title="Jobs" about="Evaluations, exports and erasures, as they happen." />
      <div className="toolbar">
        {every && <Select label="Kind" options={JOB_KINDS} value={kind ?? 'all'} onChange={(next) => change({ kind: some(next) })} />}
        <Select label="State" options={JOB_STATES} value={status ?? 'all'} onChange={(next) => change({ status: some(next) })} />
      </div>
      {!every && <Withheld needs={['exports:read']} />}
      {error && <Failure error={error} again={again} />}
      {loading || !page ? !error && <Skeleton lines={8} /> : <JobTable jobs={page.nodes} what={what} empty="No jobs yet" />}
      {page && page.nodes.length > 0 && <More shown={page.nodes.length} total={page.totalCount} next={page.pageInfo.hasNextPage ? page.pageInfo.endCursor : null} busy={stale} load={setAfter} />}
    </div>
  );
}

export function Exports() {
  const { status, audiences } = useSearch({ from: '/exports' });
  const [open, setOpen] = useState(audiences !== undefined);
  const navigate = useNavigate({ from: '/exports' });
  const [after, setAfter] = useState<string>();
  useEffect(() => setAfter(undefined), [status]);
  const { data, loading, stale, error, again } = useData(ExportJobsDocument, { first: PAGE, after, filter: { status: statuses(status) } });
  const page = data?.exportJobs;
  return (
    <div className="page">
      <Head title="Exports" about="Members written to Delta tables that any reader opens.">
        <Button kind="primary" icon="export" does={[CreateExportDocument]} onPress={() => setOpen(true)}>New export</Button>
      </Head>
      {open && <May act={[CreateExportDocument]}><ExportDialog audiences={audiences?.split(' ') ?? []} onClose={() => setOpen(false)} /></May>}
      <div className="toolbar">
        <Select label="State" options={JOB_STATES} value={status ?? 'all'} onChange={(next) => void navigate({ search: { status: next === 'all' ? undefined : next }, replace: true })} />
      </div>
      {error && <Failure error={error} again={again} />}
      {loading || !page ? (
        !error && <Skeleton lines={8} />
      ) : (
        <JobTable
          jobs={page.nodes}
          what={({ metrics, destination, jobId }) => {
            const to = destination ? `to ${destination.name}` : `by job ${jobId}`;
            return metrics ? `${plural(metrics.totalExportedProfiles, 'person', 'people')} ${to}` : `Export ${to}`;
          }}
          empty="No exports yet"
        />
      )}
      {page && page.nodes.length > 0 && <More shown={page.nodes.length} total={page.totalCount} next={page.pageInfo.hasNextPage ? page.pageInfo.endCursor : null} busy={stale} load={setAfter} />}
    </div>
  );
}

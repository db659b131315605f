// A table of jobs: state, progress, how long they took.
import { Link } from '@tanstack/react-router';
import type { ReactNode } from 'react';

import type { JobLineFragment } from '../api/operations';
import { duration, plural, Time, useNow, words } from '../ui/format';
import { Empty, isLive, JobBadge, Progress } from '../ui/pieces';

const SECTIONS: Record<string, string> = { ExportJob: 'exports', ErasureJob: 'erasures' };

export const jobPath = (job: { __typename: string; jobId: string }) => `/${SECTIONS[job.__typename] ?? 'jobs'}/${job.jobId}`;

export function JobTable<Job extends JobLineFragment>({ jobs, what, empty }: { jobs: Job[]; what?: (job: Job) => ReactNode; empty: string }) {
  if (jobs.length === 0) return <Empty title={empty} />;
  return (
    <div className="tablebox">
      <table>
        <thead>
          <tr>
            <th scope="col">Job</th>
            <th scope="col">State</th>
            <th scope="col" className="middle">Progress</th>
            <th scope="col" className="wide">Started by</th>
            <th scope="col" className="right">Took</th>
            <th scope="col" className="fit middle">Created</th>
          </tr>
        </thead>
        <tbody>
          {jobs.map((job) => (
            <tr key={job.id} className="link">
              <td className="clip">
                <Link to={jobPath(job) as never} className="title">{what?.(job) ?? <span className="mono">{job.jobId}</span>}</Link>
                {job.errors.length > 0 && <span className="sub" style={{ color: 'var(--bad)' }}>{job.errors[0].message}</span>}
              </td>
              <td><JobBadge status={job.status} /></td>
              <td className="middle" style={{ minWidth: 150 }}><JobProgressLine job={job} /></td>
              <td className="wide muted">{words(job.source)} · {job.createdBy}</td>
              <td className="right"><Took job={job} /></td>
              <td className="fit middle muted"><Time at={job.createdAt} /></td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

export function JobProgressLine({ job }: { job: JobLineFragment }) {
  const { phase, fraction, profilesRead, estimatedSecondsLeft } = job.progress;
  if (!isLive(job.status)) return <span className="muted numeric">{plural(profilesRead, 'person', 'people')} read</span>;
  return (
    <div className="stack tight">
      <Progress fraction={fraction} label={`Progress of job ${job.jobId}`} />
      <span className="faint numeric">
        {words(phase)} · {Math.round(fraction * 100)}%
        {estimatedSecondsLeft !== null && ` · ${duration(estimatedSecondsLeft * 1_000)} left`}
      </span>
    </div>
  );
}

export function Took({ job }: { job: JobLineFragment }) {
  const now = useNow(1_000);
  if (!job.startedAt) return <span className="faint">–</span>;
  const end = job.finishedAt ? Date.parse(job.finishedAt) : now;
  return <>{duration(Math.max(0, end - Date.parse(job.startedAt)))}</>;
}

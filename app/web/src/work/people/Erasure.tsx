// One erasure job: how far it is, and what it erased in which place. It does not say who it was.
import { Link, useParams } from '@tanstack/react-router';
import { useEffect } from 'react';

import { useData } from '../api/hooks';
import { ErasureJobPageDocument } from '../api/operations';
import { JobErrors, JobState } from '../jobs/Job';
import { count, Time } from '../ui/format';
import { Empty, Failure, Figure, Head, isLive, JobBadge, Skeleton } from '../ui/pieces';

export function ErasurePage() {
  const { id } = useParams({ from: '/erasures/$id' });
  const { data, loading, error, again } = useData(ErasureJobPageDocument, { id });
  const job = data?.erasureJob;
  // The page's stream of all jobs brings its state; the rows are read again whenever it has moved.
  useEffect(() => {
    if (job) again();
  }, [job?.status, job?.progress.sequence]);
  if (loading) return <div className="page"><Skeleton /></div>;
  if (!job) return <div className="page">{error ? <Failure error={error} again={again} /> : <Empty title="There is no such erasure"><Link to="/people">To the people</Link></Empty>}</div>;
  return (
    <div className="page">
      <Head title="Erasure of a person" back={{ label: 'People', to: '/people' }} badges={<JobBadge status={job.status} />} about={<><span className="mono">{job.jobId}</span> · requested <Time at={job.createdAt} /> by {job.createdBy}</>} />
      <div className="stack">
        <JobState job={job}>
          {!isLive(job.status) && <Figure name="Second look" value={job.verified ? 'nothing left' : 'not done'} />}
        </JobState>
        <JobErrors job={job} />
        <div className="tablebox">
          <table>
            <thead><tr><th scope="col">Place</th><th scope="col" className="right">Erased</th></tr></thead>
            <tbody>
              {job.rows.map((row) => <tr key={row.place}><td>{row.place}</td><td className="right">{count(row.count)}</td></tr>)}
              {job.rows.length === 0 && <tr><td colSpan={2} className="muted">{isLive(job.status) ? 'Nothing yet.' : 'Nothing was found.'}</td></tr>}
            </tbody>
          </table>
        </div>
      </div>
    </div>
  );
}

// One export job: what it writes, where, and the batches that came of it.
import { Link, useParams } from '@tanstack/react-router';
import { useEffect } from 'react';
import { useSubscription } from 'urql';

import { useAct, useData } from '../api/hooks';
import { CancelExportJobDocument, ExportJobPageDocument, ExportJobUpdatedDocument } from '../api/operations';
import { Button } from '../ui/controls';
import { bytes, count, duration, Time } from '../ui/format';
import { Bars, Empty, Failure, Figure, Head, isLive, JobBadge, Skeleton, Withheld } from '../ui/pieces';
import { attempt } from '../ui/toasts';
import { JobErrors, JobState } from './Job';

export function ExportPage() {
  const { id } = useParams({ from: '/exports/$id' });
  const act = useAct();
  const { data, loading, error, again } = useData(ExportJobPageDocument, { id });
  const job = data?.exportJob;
  const live = job ? isLive(job.status) : false;
  useSubscription({ query: ExportJobUpdatedDocument, variables: { id }, pause: !live });
  useEffect(() => {
    if (job && !live && job.metrics === null) again();
  }, [job?.status]);
  if (loading) return <div className="page"><Skeleton /></div>;
  if (!job) return <div className="page">{error ? <Failure error={error} again={again} /> : <Empty title="There is no such export"><Link to="/exports">To the exports</Link></Empty>}</div>;
  const cancel = () => attempt(async () => void (await act(CancelExportJobDocument, { id: job.id })));
  return (
    <div className="page">
      <Head
        title={job.destination ? `Export to ${job.destination.name}` : `Export ${job.jobId}`}
        back={{ label: 'Exports', to: '/exports' }}
        badges={<JobBadge status={job.status} />}
        about={<><span className="mono">{job.jobId}</span> · created <Time at={job.createdAt} /> by {job.createdBy}</>}
      >
        {live && <Button does={[CancelExportJobDocument]} onPress={cancel} isDisabled={job.status === 'CANCELLING'}>Cancel</Button>}
      </Head>
      <div className="split">
        <div className="stack">
          <JobState job={job}>
            {job.metrics && <Figure name="People written" value={count(job.metrics.totalExportedProfiles)} />}
            {job.metrics && <Figure name="Writing" value={duration(job.metrics.profileExportTime.totalMs)} />}
          </JobState>
          <JobErrors job={job} />
          <div className="tablebox">
            <table>
              <thead><tr><th scope="col">Batch</th><th scope="col" className="right">Rows</th><th scope="col" className="right">Size</th><th scope="col" className="fit">Created</th></tr></thead>
              <tbody>
                {!job.batches && <tr><td colSpan={4}><Withheld needs={['datasets:read']} /></td></tr>}
                {job.batches?.nodes.map((batch) => (
                  <tr key={batch.id}><td className="mono">{batch.batchId}</td><td className="right">{count(batch.rowCount)}</td><td className="right">{bytes(batch.bytes)}</td><td className="fit muted"><Time at={batch.createdAt} /></td></tr>
                ))}
                {job.batches?.nodes.length === 0 && <tr><td colSpan={4} className="muted">No batch yet: one appears with all of its rows at once.</td></tr>}
              </tbody>
            </table>
          </div>
        </div>
        <aside className="stack" aria-label="What is exported">
          <section className="card">
            <dl className="facts">
              <dt>Into</dt><dd>{job.destination ? <Link to="/data/$id" params={{ id: job.destination.datasetId }}>{job.destination.name}</Link> : <Withheld needs={['datasets:read']} />}</dd>
              <dt>Fields</dt><dd>{job.fields.length ? job.fields.map((field) => <code key={field}>{field} </code>) : 'all'}</dd>
              <dt>Batches</dt><dd>{job.segmentPerBatch ? 'one for each audience' : 'one for all'}</dd>
              <dt>Merge policy</dt><dd>{job.mergePolicy ? job.mergePolicy.name : <Withheld needs={['mergePolicies:read']} />}</dd>
              {job.evaluation === undefined && <><dt>Evaluation</dt><dd><Withheld needs={['jobs:read']} /></dd></>}
              {job.evaluation && <><dt>Evaluation</dt><dd><Link to="/jobs/$id" params={{ id: job.evaluation.jobId }}>{job.evaluation.status.toLowerCase()}</Link></dd></>}
            </dl>
          </section>
          {job.metrics && <section className="card"><h2>By identity</h2><Bars items={job.metrics.exportedProfilesByNamespace.map((each) => ({ key: each.namespace, name: each.namespace, count: each.count }))} /></section>}
        </aside>
      </div>
    </div>
  );
}

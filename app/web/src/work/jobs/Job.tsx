// One segment job, watched while it runs: progress, then what came of each definition.
import { Link, useParams } from '@tanstack/react-router';
import { useEffect } from 'react';
import { useSubscription } from 'urql';

import { useAct, useData } from '../api/hooks';
import { CancelSegmentJobDocument, RunDefinitionsDocument, SegmentJobPageDocument, SegmentJobUpdatedDocument, UpdateAudienceDocument, type JobLineFragment } from '../api/operations';
import { Button, May } from '../ui/controls';
import { count, duration, plural, Time, words } from '../ui/format';
import { Empty, Failure, Figure, Head, isLive, JobBadge, Progress, Skeleton, Withheld } from '../ui/pieces';
import { attempt, say } from '../ui/toasts';
import { Durations } from './Durations';
import { Took } from './JobTable';

export function JobPage() {
  const { id } = useParams({ from: '/jobs/$id' });
  const act = useAct();
  const { data, loading, error, again } = useData(SegmentJobPageDocument, { id });
  const job = data?.segmentJob;
  const live = job ? isLive(job.status) : false;
  useSubscription({ query: SegmentJobUpdatedDocument, variables: { id }, pause: !live });
  // The stream tells of the state; what came of each definition is read once it has ended.
  useEffect(() => {
    if (job && !live && job.metrics === null) again();
  }, [job?.status]);
  if (loading) return <div className="page"><Skeleton /></div>;
  if (!job) return <div className="page">{error ? <Failure error={error} again={again} /> : <Empty title="There is no such job"><Link to="/jobs">To the jobs</Link></Empty>}</div>;
  const cancel = () => attempt(async () => void (await act(CancelSegmentJobDocument, { id: job.id })));
  const retry = () =>
    attempt(async () => {
      const ids = job.segments.nodes.flatMap((segment) => (segment.definition === undefined ? [segment.segmentId] : segment.definition ? [segment.definition.id] : []));
      const input = job.allDefinitions ? { allDefinitions: true } : { definitionIds: ids };
      const { createSegmentJob } = await act(RunDefinitionsDocument, { input });
      say('A new job has started.', { link: { label: 'Watch', to: `/jobs/${createSegmentJob.job!.jobId}` } });
    });
  return (
    <div className="page">
      <Head
        title={job.allDefinitions ? 'Job over every audience' : `Job over ${plural(job.segments.totalCount, 'audience')}`}
        back={{ label: 'Jobs', to: '/jobs' }}
        badges={<JobBadge status={job.status} />}
        about={<><span className="mono">{job.jobId}</span> · created <Time at={job.createdAt} /> by {job.createdBy}{job.schedule && <> · schedule {job.schedule.name}</>}{job.schedule === undefined && <> · schedule: <Withheld brief needs={['schedules:read']} /></>}</>}
      >
        {live ? <Button does={[CancelSegmentJobDocument]} onPress={cancel} isDisabled={job.status === 'CANCELLING'}>Cancel</Button> : <Button icon="refresh" does={[RunDefinitionsDocument]} onPress={retry}>Run again</Button>}
      </Head>
      <div className="stack">
        <JobState job={job}>
          {job.evaluatedAt && <Figure name="“Now” in this job" value={<Time at={job.evaluatedAt} />} />}
          {job.metrics && <Figure name="Evaluating" value={duration(job.metrics.profileSegmentationTime.totalMs)} />}
        </JobState>
        <JobErrors job={job} />
        {job.segments.nodes.some((segment) => segment.definition === undefined) && <Withheld needs={['definitions:read']} />}
        <div className="tablebox">
          <table>
            <thead>
              <tr>
                <th scope="col">Audience</th>
                <th scope="col" className="right">People</th>
                <th scope="col" className="right middle">Entered</th>
                <th scope="col" className="right middle">Stayed</th>
                <th scope="col" className="right middle">Left</th>
                <th scope="col" className="right middle">Evaluating</th>
                <th scope="col" className="wide">Expression</th>
              </tr>
            </thead>
            <tbody>
              {job.segments.nodes.map((segment) => {
                const idle = segment.evaluationMs === null && segment.profileCount !== null;
                const of = Object.fromEntries(segment.byStatus.map((each) => [each.status, each.count]));
                return (
                  <tr key={segment.segmentId}>
                    <td className="clip">
                      <Link className="title" to="/audiences/$id" params={{ id: segment.segmentId }}>{segment.definition?.name ?? segment.segmentId}</Link>
                      {segment.error && <span className="sub problem">{segment.error.message}</span>}
                      {segment.definition && segment.definition.version !== segment.version && <span className="sub">ran version {segment.version}, now {segment.definition.version}</span>}
                    </td>
                    <td className="right">{segment.profileCount === null ? <span className="faint">–</span> : count(segment.profileCount)}</td>
                    <td className="right middle up">{of.REALIZED ? `+${count(of.REALIZED)}` : ''}</td>
                    <td className="right middle">{of.EXISTING ? count(of.EXISTING) : ''}</td>
                    <td className="right middle down">{of.EXITED ? `−${count(of.EXITED)}` : ''}</td>
                    <td className="right middle">{segment.evaluationMs === null ? <span className="faint" title={idle ? 'Not evaluated: nothing has changed since its last run' : undefined}>–</span> : duration(segment.evaluationMs)}</td>
                    <td className="wide clip mono" title={segment.expression}>{segment.expression}</td>
                  </tr>
                );
              })}
            </tbody>
          </table>
        </div>
        {job.metrics?.bucketTime && <Durations times={job.metrics.bucketTime} />}
      </div>
    </div>
  );
}

/** Where a job stands, in figures. */
export function JobState({ job, children }: { job: JobLineFragment; children?: React.ReactNode }) {
  const { phase, fraction, profilesRead, totalProfiles, estimatedSecondsLeft } = job.progress;
  const live = isLive(job.status);
  return (
    <section className="card stack">
      {live && <Progress fraction={fraction} label="Progress" />}
      <div className="figures">
        <Figure name="Phase" value={words(phase)} />
        <Figure name="Done" value={`${Math.round(fraction * 100)}%`} />
        <Figure name="People read" value={<>{count(profilesRead)}{live && totalProfiles > 0 && <span className="faint"> of {count(totalProfiles)}</span>}</>} />
        {live && estimatedSecondsLeft !== null && <Figure name="Left" value={duration(estimatedSecondsLeft * 1_000)} />}
        <Figure name="Took" value={<Took job={job} />} />
        {job.attempts > 1 && <Figure name="Attempts" value={job.attempts} />}
        {children}
      </div>
    </section>
  );
}

export function JobErrors({ job }: { job: JobLineFragment }) {
  if (job.errors.length === 0) return null;
  return (
    <div className="stack tight">
      {job.errors.map((error, index) => (
        <div key={index} className="note row" role="alert">
          <span className="grow">{error.message}</span>
          <span className="faint mono">{error.code}</span>
          {error.definition && <May act={[UpdateAudienceDocument]}><Link to="/audiences/$id/edit" params={{ id: error.definition.segmentId }}>Edit {error.definition.name}</Link></May>}
        </div>
      ))}
    </div>
  );
}

// Where an audience is used, what it is made of, and the jobs that evaluated it.
import { Link } from '@tanstack/react-router';

import { useData } from '../api/hooks';
import { AudienceJobsDocument, AudienceUseDocument, type AudienceRowFragment } from '../api/operations';
import { JobTable } from '../jobs/JobTable';
import { count, Time } from '../ui/format';
import { Failure, Skeleton, Withheld } from '../ui/pieces';
import { audiencePath } from './address';
import { useAudience } from './Audience';

export function AudienceUse() {
  const { id } = useAudience();
  const use = useData(AudienceUseDocument, { id });
  const runs = useData(AudienceJobsDocument, { id });
  if (use.error) return <Failure error={use.error} again={use.again} />;
  const audience = use.data?.audience;
  if (use.loading || !audience) return <Skeleton />;
  return (
    <div className="stack">
      <div className="cards">
        <Related title="Made of" empty="Its expression refers to no other audience." rows={audience.dependencies.nodes} />
        <Related title="Used by" empty="No other audience refers to it." rows={audience.dependents.nodes} />
        <section className="card">
          <h2>Schedules</h2>
          {!audience.schedules && <Withheld needs={['schedules:read']} />}
          {audience.schedules?.nodes.length === 0 && <p className="muted">No schedule evaluates it.</p>}
          <ul className="stack tight">
            {audience.schedules?.nodes.map((schedule) => (
              <li key={schedule.id} className="row">
                <span className="grow">{schedule.name}<br /><span className="faint">{schedule.frequency}</span></span>
                {schedule.state === 'ACTIVE' && schedule.nextRunTimes[0] ? <span className="muted">next <Time at={schedule.nextRunTimes[0]} /></span> : <span className="badge">Inactive</span>}
              </li>
            ))}
          </ul>
        </section>
      </div>
      <section className="section stack">
        <h2>Runs</h2>
        {runs.error ? <Failure error={runs.error} again={runs.again} /> : !runs.data?.audience ? <Skeleton lines={4} /> : !runs.data.audience.jobs ? <Withheld needs={['jobs:read']} /> : <JobTable jobs={runs.data.audience.jobs.nodes} empty="It was not evaluated yet." />}
      </section>
    </div>
  );
}

function Related({ title, empty, rows }: { title: string; empty: string; rows: AudienceRowFragment[] }) {
  return (
    <section className="card">
      <h2>{title}</h2>
      {rows.length === 0 && <p className="muted">{empty}</p>}
      <ul className="stack tight">
        {rows.map((row) => (
          <li key={row.id} className="row">
            <Link className="grow" to={audiencePath(row) as never}>{row.name}</Link>
            <span className="numeric muted">{row.metrics ? count(row.metrics.totalProfiles) : '–'}</span>
          </li>
        ))}
      </ul>
    </section>
  );
}

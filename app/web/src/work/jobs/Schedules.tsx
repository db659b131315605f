// Schedules: what runs by itself, when, in words and on a calendar.
import { Link, useNavigate, useParams } from '@tanstack/react-router';
import { useState, type ReactNode } from 'react';

import { useAct, useData } from '../api/hooks';
import {
  CreateScheduleDocument,
  DeleteScheduleDocument,
  SchedulePageDocument,
  SchedulesDocument,
  TriggerScheduleDocument,
  UpdateScheduleDocument,
  type ScheduleRowFragment,
} from '../api/operations';
import { audiencePath } from '../audiences/address';
import { Button, Confirm } from '../ui/controls';
import { Time, words } from '../ui/format';
import { Empty, Failure, Head, JobBadge, More, Skeleton, Withheld } from '../ui/pieces';
import { attempt, say } from '../ui/toasts';
import { jobPath, JobTable } from './JobTable';
import { ScheduleDialog } from './ScheduleDialog';

export function Schedules() {
  const [after, setAfter] = useState<string>();
  const [open, setOpen] = useState(false);
  const { data, loading, stale, error, again } = useData(SchedulesDocument, { first: 50, after });
  const page = data?.schedules;
  const create = <Button kind="primary" icon="plus" does={[CreateScheduleDocument]} onPress={() => setOpen(true)}>New schedule</Button>;
  return (
    <div className="page">
      <Head title="Schedules" about="What runs by itself, at most once a day each. Times of schedules are in UTC.">{create}</Head>
      {error && <Failure error={error} again={again} />}
      {loading || !page ? !error && <Skeleton /> : page.nodes.length === 0 ? (
        <Empty title="Nothing is scheduled" actions={create}>A schedule evaluates audiences every night, every Monday, or when you say.</Empty>
      ) : (
        <>
          <div className="tablebox">
            <table>
              <thead>
                <tr>
                  <th scope="col">Name</th>
                  <th scope="col">State</th>
                  <th scope="col" className="middle">When</th>
                  <th scope="col" className="wide">What</th>
                  <th scope="col" className="fit">Next</th>
                  <th scope="col" className="middle">Last run</th>
                </tr>
              </thead>
              <tbody>
                {page.nodes.map((schedule) => (
                  <tr key={schedule.id} className="link">
                    <td className="clip">
                      <Link to="/schedules/$id" params={{ id: schedule.scheduleId }} className="title">{schedule.name}</Link>
                      {schedule.description && <span className="sub">{schedule.description}</span>}
                    </td>
                    <td><ScheduleBadge schedule={schedule} /></td>
                    <td className="middle muted">{schedule.frequency}</td>
                    <td className="wide muted clip">{what(schedule)}</td>
                    <td className="fit muted">{schedule.state === 'ACTIVE' && schedule.nextRunTimes[0] ? <Time at={schedule.nextRunTimes[0]} /> : '–'}</td>
                    <td className="middle"><LastRun schedule={schedule} /></td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
          <section className="card" style={{ maxWidth: 420, marginTop: 18 }}>
            <h2>The next weeks</h2>
            <Calendar due={page.nodes.flatMap((schedule) => (schedule.state === 'ACTIVE' ? schedule.nextRunTimes.map((time) => ({ time, name: schedule.name })) : []))} />
          </section>
          <More shown={page.nodes.length} total={page.totalCount} next={page.pageInfo.hasNextPage ? page.pageInfo.endCursor : null} busy={stale} load={setAfter} />
        </>
      )}
      {open && <ScheduleDialog onClose={() => setOpen(false)} />}
    </div>
  );
}

function what(schedule: ScheduleRowFragment): ReactNode {
  if (schedule.type === 'EXPORT') return schedule.export?.destination ? `Export to ${schedule.export.destination.name}` : 'An export';
  if (schedule.allAudiences) return 'Every audience';
  if (!schedule.audiences) return <Withheld brief needs={['audiences:read']} />;
  const names = schedule.audiences.nodes.map((audience) => audience.name);
  const rest = schedule.audiences.totalCount - names.length;
  return names.slice(0, 3).join(', ') + (names.length > 3 || rest > 0 ? ` and ${schedule.audiences.totalCount - Math.min(3, names.length)} more` : '');
}

function ScheduleBadge({ schedule }: { schedule: ScheduleRowFragment }) {
  return <span className={schedule.state === 'ACTIVE' ? 'badge good' : 'badge'}><span className="dot" />{words(schedule.state)}</span>;
}

function LastRun({ schedule }: { schedule: ScheduleRowFragment }) {
  const run = schedule.lastRun;
  if (!run) return <span className="faint">never</span>;
  if (run.job === undefined) return <Withheld brief needs={['jobs:read', 'exports:read']} />;
  if (run.job) return <Link to={jobPath(run.job) as never}><JobBadge status={run.job.status} /></Link>;
  return <span className="badge warn" title={run.message ?? undefined}>{words(run.outcome)}</span>;
}

export function SchedulePage() {
  const { id } = useParams({ from: '/schedules/$id' });
  const act = useAct();
  const navigate = useNavigate();
  const [editing, setEditing] = useState(false);
  const [deleting, setDeleting] = useState(false);
  const { data, loading, error, again } = useData(SchedulePageDocument, { id });
  const schedule = data?.schedule;
  if (loading) return <div className="page"><Skeleton /></div>;
  if (!schedule) return <div className="page">{error ? <Failure error={error} again={again} /> : <Empty title="There is no such schedule"><Link to="/schedules">To the schedules</Link></Empty>}</div>;
  const active = schedule.state === 'ACTIVE';
  const toggle = () =>
    attempt(async () => {
      await act(UpdateScheduleDocument, { input: { id: schedule.id, etag: schedule.etag, state: active ? 'INACTIVE' : 'ACTIVE' } });
      say(active ? 'Paused.' : 'Active: it runs by itself from now on.');
    });
  const run = () =>
    attempt(async () => {
      const { triggerSchedule } = await act(TriggerScheduleDocument, { id: schedule.id });
      say('The job has started.', { link: { label: 'Watch', to: jobPath(triggerSchedule.job!) } });
      again();
    });
  const remove = async () => {
    await act(DeleteScheduleDocument, { input: { id: schedule.id, etag: schedule.etag } });
    say(`${schedule.name} deleted.`);
    void navigate({ to: '/schedules' });
  };
  return (
    <div className="page">
      <Head title={schedule.name} back={{ label: 'Schedules', to: '/schedules' }} badges={<ScheduleBadge schedule={schedule} />} about={schedule.description ?? schedule.frequency}>
        <Button does={[UpdateScheduleDocument]} onPress={toggle}>{active ? 'Pause' : 'Activate'}</Button>
        <Button icon="edit" does={[UpdateScheduleDocument]} onPress={() => setEditing(true)}>Edit</Button>
        <Button icon="trash" aria-label="Delete" does={[DeleteScheduleDocument]} onPress={() => setDeleting(true)} />
        <Button kind="primary" icon="job" does={[TriggerScheduleDocument]} onPress={run}>Run now</Button>
      </Head>
      <div className="split">
        <div className="stack">
          <section className="section stack"><h2>Runs</h2>{schedule.jobs ? <JobTable jobs={schedule.jobs.nodes} empty="It did not run yet" /> : <Withheld needs={['jobs:read', 'exports:read']} />}</section>
        </div>
        <aside className="stack">
          <section className="card">
            <h2>{schedule.frequency}</h2>
            {active ? <Calendar due={schedule.nextRunTimes.map((time) => ({ time, name: '' }))} /> : <p className="muted">Paused: nothing is due.</p>}
          </section>
          <section className="card">
            <dl className="facts">
              <dt>Cron</dt><dd className="mono">{schedule.cronExpression}</dd>
              {active && schedule.nextRunTimes[0] && <><dt>Next</dt><dd><Time at={schedule.nextRunTimes[0]} full /></dd></>}
              {schedule.export && <Exported spec={schedule.export} />}
              {schedule.type !== 'EXPORT' && <dt>Evaluates</dt>}
              {schedule.type !== 'EXPORT' && <dd>
                {schedule.allAudiences ? 'every audience' : !schedule.audiences ? <Withheld needs={['audiences:read']} /> : (
                  <ul>{schedule.audiences.nodes.map((audience) => <li key={audience.id}><Link to={audiencePath(audience) as never}>{audience.name}</Link></li>)}</ul>
                )}
              </dd>}
              <dt>Created</dt><dd><Time at={schedule.createdAt} full /> by {schedule.createdBy}</dd>
              {schedule.lastRun?.message && <><dt>Last run</dt><dd>{schedule.lastRun.message}</dd></>}
            </dl>
          </section>
        </aside>
      </div>
      {editing && <ScheduleDialog schedule={schedule} onClose={() => setEditing(false)} />}
      <Confirm title={`Delete ${schedule.name}?`} open={deleting} onClose={() => setDeleting(false)} verb="Delete schedule" act={remove}>Its jobs and what they evaluated stay.</Confirm>
    </div>
  );
}

function Exported({ spec }: { spec: NonNullable<ScheduleRowFragment['export']> }) {
  const segments = spec.filter?.segments ?? [];
  return (
    <>
      <dt>Exports</dt>
      <dd>{segments.length === 0 ? 'everybody' : <ul>{segments.map(({ segmentId, audience }) => <li key={segmentId}>{audience ? <Link to={audiencePath(audience) as never}>{audience.name}</Link> : segmentId}</li>)}</ul>}</dd>
      <dt>Into</dt><dd>{spec.destination ? <Link to="/data/$id" params={{ id: spec.destination.datasetId }}>{spec.destination.name}</Link> : <Withheld needs={['datasets:read']} />}</dd>
      <dt>Fields</dt><dd>{spec.fields.length > 0 ? spec.fields.map((field) => <code key={field}>{field} </code>) : 'all'}</dd>
      <dt>Batches</dt><dd>{spec.segmentPerBatch ? 'one for each audience' : 'one for all'}</dd>
      {spec.evaluateFirst && <><dt>Before</dt><dd>evaluates the audiences</dd></>}
    </>
  );
}

const DAYS = ['Mo', 'Tu', 'We', 'Th', 'Fr', 'Sa', 'Su'];
const WEEKS = 6;
const DAY_MS = 86_400_000;

interface Due {
  time: string;
  name: string;
}

/** The next weeks, with the days marked on which something is due; in UTC, as schedules are. */
function Calendar({ due }: { due: Due[] }) {
  const byDay = new Map<string, string[]>();
  for (const { time, name } of due.toSorted((one, other) => one.time.localeCompare(other.time))) {
    const day = time.slice(0, 10);
    byDay.set(day, [...(byDay.get(day) ?? []), `${name} ${time.slice(11, 16)} UTC`.trim()]);
  }
  const today = new Date(new Date().toISOString().slice(0, 10)).getTime();
  const monday = today - ((new Date(today).getUTCDay() + 6) % 7) * DAY_MS;
  return (
    <div className="calendar" role="list" aria-label="Days on which it runs">
      {DAYS.map((day) => <span key={day} className="faint" aria-hidden="true">{day}</span>)}
      {Array.from({ length: WEEKS * 7 }, (_, index) => {
        const date = new Date(monday + index * DAY_MS);
        const key = date.toISOString().slice(0, 10);
        const times = byDay.get(key);
        return (
          <span key={key} role={times ? 'listitem' : undefined} className={[times && 'due', date.getTime() < today && 'past', date.getTime() === today && 'today'].filter(Boolean).join(' ')} title={times && `${key}: ${times.join(', ')}`}>
            {date.getUTCDate()}
            {times && <span className="hidden"> {date.toLocaleString('en', { month: 'long', timeZone: 'UTC' })}: {times.join(', ')}</span>}
          </span>
        );
      })}
    </div>
  );
}

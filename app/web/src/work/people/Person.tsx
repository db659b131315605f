// One person: identities, attributes, a time line of events, memberships.
import { Link, useNavigate, useParams, useSearch } from '@tanstack/react-router';
import { useState, type ReactNode } from 'react';

import { useData } from '../api/hooks';
import { PersonDocument, PersonEventsDocument } from '../api/operations';
import { audiencePath } from '../audiences/address';
import { AudienceBox } from '../audiences/Choice';
import { Why, type IdentityOf } from '../insight/Why';
import { count, plural, Time, value, words } from '../ui/format';
import { Empty, Failure, Head, More, Skeleton, Withheld } from '../ui/pieces';
import { Erase } from './Erase';

const PAGE = 50;
const HIDDEN = ['identityMap', 'segmentMembership'];

export function PersonPage() {
  const { id } = useParams({ from: '/people/$id' });
  const { data, loading, error, again } = useData(PersonDocument, { id });
  const person = data?.profile;
  if (loading) return <div className="page"><Skeleton /></div>;
  if (!person) return <div className="page">{error ? <Failure error={error} again={again} /> : <Empty title="There is no such person"><Link to="/people">To the people</Link></Empty>}</div>;
  const attributes = (person.attributes ?? {}) as Record<string, unknown>;
  const current = person.memberships.nodes.flatMap(({ audience, ...rest }) => (audience && rest.status !== 'EXITED' ? [{ audience, ...rest }] : []));
  const withheld = person.memberships.nodes.some(({ audience }) => !audience);
  const primary = person.identities.find((each) => each.primary) ?? person.identities.at(0);
  return (
    <div className="page">
      <Head title={nameOf(attributes) ?? person.profileId} back={{ label: 'People', to: '/people' }} about={<span className="mono">{person.profileId}</span>}>
        {primary && <Erase name={nameOf(attributes)} profileId={person.profileId} identity={primary} />}
      </Head>
      <div className="split">
        <div className="stack"><Events id={id} /></div>
        <aside className="stack">
          <section className="card">
            <h2>Identities</h2>
            <dl className="facts">
              {person.identities.map((identity) => <Fact key={`${identity.namespace}:${identity.id}`} name={identity.namespace}><span className="mono">{identity.id}</span>{identity.primary && <span className="faint"> primary</span>}</Fact>)}
            </dl>
          </section>
          <section className="card">
            <h2>Attributes</h2>
            <Attributes record={attributes} />
          </section>
          <section className="card">
            <h2>Audiences</h2>
            {withheld && <Withheld needs={['audiences:read']} />}
            {!withheld && current.length === 0 && <p className="muted">In none.</p>}
            <ul className="stack tight">
              {current.map((membership) => (
                <li key={membership.audience.id} className="row">
                  <Link className="grow" to={audiencePath(membership.audience) as never}>{membership.audience.name}</Link>
                  <span className="faint"><Time at={membership.lastQualificationTime} /></span>
                </li>
              ))}
            </ul>
          </section>
          {primary && <Explained identity={primary} />}
        </aside>
      </div>
    </div>
  );
}

/** Why this person is in an audience that one chooses, or not. */
function Explained({ identity }: { identity: IdentityOf }) {
  const { why } = useSearch({ from: '/people/$id' });
  const navigate = useNavigate({ from: '/people/$id' });
  return (
    <section className="card stack" aria-label="Why">
      <h2>Why in an audience, or not</h2>
      <AudienceBox label="Audience" placeholder="Choose an audience" computed value={why} onChange={({ audienceId }) => void navigate({ search: { why: audienceId }, replace: true })} />
      {why && <Why identity={{ namespace: identity.namespace, id: identity.id }} people={{ audienceId: why }} />}
    </section>
  );
}

/** A name that people go by, where the data have one. */
function nameOf(attributes: Record<string, unknown>): string | undefined {
  const person = (attributes.person ?? attributes) as Record<string, unknown>;
  const name = person.name as unknown;
  if (typeof name === 'string') return name;
  if (name && typeof name === 'object') {
    const { fullName, firstName, lastName } = name as Record<string, unknown>;
    if (typeof fullName === 'string') return fullName;
    const parts = [firstName, lastName].filter((part) => typeof part === 'string');
    if (parts.length > 0) return parts.join(' ');
  }
  return undefined;
}

function Fact({ name, children }: { name: string; children: ReactNode }) {
  return <><dt>{name}</dt><dd>{children}</dd></>;
}

function Attributes({ record }: { record: Record<string, unknown> }) {
  const rows: [string, unknown][] = [];
  const walk = (item: unknown, path: string) => {
    if (item && typeof item === 'object' && !Array.isArray(item)) {
      for (const [name, inner] of Object.entries(item)) if (path !== '' || !HIDDEN.includes(name)) walk(inner, path ? `${path}.${name}` : name);
    } else rows.push([path, item]);
  };
  walk(record, '');
  if (rows.length === 0) return <p className="muted">Nothing is known but the identities.</p>;
  return <dl className="facts">{rows.map(([path, item]) => <Fact key={path} name={path}>{value(item)}</Fact>)}</dl>;
}

function Events({ id }: { id: string }) {
  const [after, setAfter] = useState<string>();
  const { data, loading, stale, error, again } = useData(PersonEventsDocument, { id, first: PAGE, after });
  if (error) return <Failure error={error} again={again} />;
  const events = data?.profile?.events;
  if (loading || !events) return <Skeleton />;
  if (events.nodes.length === 0) return <Empty title="No events">Nothing that this person did is known.</Empty>;
  return (
    <section className="section stack">
      <h2>{plural(events.totalCount, 'event')}</h2>
      <ol className="timeline">
        {events.nodes.map((event, index) => {
          const attributes = event.attributes as Record<string, unknown>;
          const day = event.timestamp.slice(0, 10);
          return (
            <li key={event.eventId}>
              {(index === 0 || events.nodes[index - 1].timestamp.slice(0, 10) !== day) && <h3 className="label">{new Date(day).toLocaleDateString('en-GB', { dateStyle: 'full', timeZone: 'UTC' })}</h3>}
              <details>
                <summary className="row">
                  <span className="numeric faint">{event.timestamp.slice(11, 16)}</span>
                  <strong>{words(String(attributes.eventType ?? attributes.type ?? 'event').replaceAll('.', ' '))}</strong>
                  <span className="muted grow brief">{brief(attributes, id)}</span>
                </summary>
                <Attributes record={attributes} />
              </details>
            </li>
          );
        })}
      </ol>
      <More shown={events.nodes.length} total={events.totalCount} next={events.pageInfo.hasNextPage ? events.pageInfo.endCursor : null} busy={stale} load={setAfter} />
    </section>
  );
}

const PLAIN = ['_id', 'timestamp', 'eventType', 'type'];

/** What an event says, on one line; not whose it is. */
function brief(attributes: Record<string, unknown>, person: string): string {
  const parts: string[] = [];
  const walk = (item: unknown, name: string) => {
    if (parts.length >= 4 || item === null || item === undefined) return;
    if (Array.isArray(item)) item.length > 0 && parts.push(`${name}: ${count(item.length)}`);
    else if (typeof item === 'object') for (const [inner, each] of Object.entries(item)) walk(each, inner);
    else if (!PLAIN.includes(name) && !person.endsWith(`:${String(item)}`)) parts.push(value(item));
  };
  walk(attributes, '');
  return parts.join(' · ');
}

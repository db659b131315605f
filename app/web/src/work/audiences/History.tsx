// The history of an audience: its size over time, who entered and left, and its versions with their differences.
import { Link } from '@tanstack/react-router';
import { useState } from 'react';

import { useData } from '../api/hooks';
import { AudienceChangesDocument, AudienceHistoryDocument, type AudienceHistoryQuery } from '../api/operations';
import { SizeChart } from '../ui/charts';
import { count, Time } from '../ui/format';
import { Empty, Failure, More, Skeleton, Withheld } from '../ui/pieces';
import { useAudience } from './Audience';
import { difference } from './difference';

type History = NonNullable<AudienceHistoryQuery['audience']>;

const PAGE = 50;
const LONGEST_DIFFERENCE = 8_000;

export function AudienceHistory() {
  const { id } = useAudience();
  const { data, loading, error, again } = useData(AudienceHistoryDocument, { id });
  if (error) return <Failure error={error} again={again} />;
  const audience = data?.audience;
  if (loading || !audience) return <Skeleton />;
  const points = audience.history.nodes;
  return (
    <div className="stack">
      <section className="card stack">
        <h2>People over time</h2>
        {points.length === 0 ? <Empty title="No history yet">It begins with the first run.</Empty> : <SizeChart points={points.map((point) => ({ at: point.at, size: point.totalProfiles }))} />}
      </section>
      <div className="cards">
        <section className="card stack"><h2>Runs</h2><Points id={id} points={points} /></section>
        <section className="card stack"><h2>Who entered and left</h2><Changes id={id} /></section>
      </div>
      <section className="card stack"><h2>Versions</h2>{audience.versions ? <Versions versions={audience.versions.nodes} /> : <Withheld needs={['definitions:read']} />}</section>
    </div>
  );
}

function Points({ id, points }: { id: string; points: History['history']['nodes'] }) {
  if (points.length === 0) return <p className="muted">None yet.</p>;
  return (
    <table>
      <thead><tr><th scope="col">When</th><th scope="col" className="right">People</th><th scope="col" className="right">Entered</th><th scope="col" className="right">Left</th></tr></thead>
      <tbody>
        {points.toReversed().slice(0, PAGE).map((point) => (
          <tr key={point.at}>
            <td>{point.job ? <Link to="/jobs/$id" params={{ id: point.job.jobId }}><Time at={point.at} /></Link> : <Time at={point.at} />}</td>
            <td className="right"><Link to="/audiences/$id/members" params={{ id }} search={{ at: point.at }} title="Who was in it then">{count(point.totalProfiles)}</Link></td>
            <td className="right up">{point.entered > 0 && `+${count(point.entered)}`}</td>
            <td className="right down">{point.exited > 0 && `−${count(point.exited)}`}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function Changes({ id }: { id: string }) {
  const [after, setAfter] = useState<string>();
  const { data, loading, stale, error, again } = useData(AudienceChangesDocument, { id, first: PAGE, after });
  if (error) return <Failure error={error} again={again} />;
  const changes = data?.audience?.changes;
  if (data?.audience && !changes) return <Withheld needs={['profiles:read']} />;
  if (loading || !changes) return <Skeleton lines={4} />;
  if (changes.nodes.length === 0) return <p className="muted">Nobody yet.</p>;
  return (
    <>
      <ul className="changes" tabIndex={0} aria-label="Changes">
        {changes.nodes.map((change) => (
          <li key={change.cursor} className="row">
            <span className={change.status === 'EXITED' ? 'down' : 'up'}>{change.status === 'EXITED' ? '− left' : '+ entered'}</span>
            <Link className="mono grow" to="/people/$id" params={{ id: change.profile.profileId }}>{change.profile.profileId}</Link>
            <span className="faint"><Time at={change.at} /></span>
          </li>
        ))}
      </ul>
      <More shown={changes.nodes.length} next={changes.pageInfo.hasNextPage ? changes.pageInfo.endCursor : null} busy={stale} load={setAfter} />
    </>
  );
}

function Versions({ versions }: { versions: NonNullable<History['versions']>['nodes'] }) {
  if (versions.length === 0) return <p className="muted">An uploaded audience has no expression.</p>;
  return (
    <ol className="stack">
      {versions.toReversed().map((version, index, every) => {
        const before = every[index + 1]?.expression;
        const compared = before !== undefined && before.length + version.expression.length < LONGEST_DIFFERENCE;
        return (
          <li key={version.version} className="stack tight">
            <p><strong>Version {version.version}</strong> <span className="muted">by {version.createdBy}, <Time at={version.createdAt} full /></span></p>
            <pre className="code">
              {compared
                ? difference(before, version.expression).map((piece, place) =>
                    piece.kind === 'same' ? piece.text : piece.kind === 'added' ? <ins key={place}>{piece.text}</ins> : <del key={place}>{piece.text}</del>,
                  )
                : version.expression}
            </pre>
          </li>
        );
      })}
    </ol>
  );
}

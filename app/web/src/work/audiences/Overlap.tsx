// How audiences overlap: an UpSet diagram of this one and others that are chosen.
import { useNavigate, useSearch } from '@tanstack/react-router';

import { useData } from '../api/hooks';
import { AudienceNamesDocument, OverlapDocument } from '../api/operations';
import { useMay } from '../api/permissions';
import { Button } from '../ui/controls';
import { clipped, count, isolated, percent, plural } from '../ui/format';
import { Empty, Failure, Skeleton, Withheld } from '../ui/pieces';
import { useAudience } from './Audience';
import { AudienceBox } from './Choice';

const OTHERS = 7;
const CELLS = 24;
const LONGEST_NAME = 22;

interface Set {
  id: string;
  name: string;
}

export function AudienceOverlap() {
  const may = useMay();
  const audience = useAudience().data?.audience;
  const search = useSearch({ from: '/audiences/$id/overlap' });
  const navigate = useNavigate({ from: '/audiences/$id/overlap' });
  const ids = [...new Set(search.with?.split(' ').filter((id) => id !== '' && id !== audience?.id))];
  const asked = ids.slice(0, OTHERS);
  const { data, loading, stale, error, again } = useData(AudienceNamesDocument, { ids: asked }, { pause: asked.length === 0 });
  if (!audience) return null;
  if (!may('profiles:read')) return <Withheld needs={['profiles:read']} />;
  if (error) return <Failure error={error} again={again} />;
  const others = asked.length === 0 ? [] : (data?.nodes ?? []).flatMap((node) => (node?.__typename === 'Audience' ? [node] : []));
  const lost = loading || stale ? [] : asked.filter((id) => !others.some((other) => other.id === id));
  const change = (next: string[]) => void navigate({ search: { with: next.join(' ') || undefined }, replace: true });
  return (
    <div className="stack">
      <div className="row">
        <span className="chip">{audience.name}&nbsp;</span>
        {others.map((other) => (
          <span key={other.id} className="chip">
            {other.name}
            <button type="button" aria-label={`Remove ${other.name}`} onClick={() => change(ids.filter((id) => id !== other.id))}>✕</button>
          </span>
        ))}
        {ids.length < OTHERS && <AudienceBox key={ids.length} label="Compare with" without={[audience.id, ...ids]} onChange={({ id }) => change([...ids, id])} />}
      </div>
      {lost.length > 0 && (
        <div className="note warn row" role="status">
          <span className="grow">Left out, since this sandbox has no such audience: {lost.map((id, index) => <span key={id}>{index > 0 && ', '}<code>{clipped(id, LONGEST_NAME)}</code></span>)}.</span>
          <Button small onPress={() => change(ids.filter((id) => !lost.includes(id)))}>Take out of the address</Button>
        </div>
      )}
      {ids.length > OTHERS && <div className="note warn" role="status">The address names {plural(ids.length, 'audience')}: the first {OTHERS} are compared.</div>}
      {loading ? <Skeleton /> : others.length === 0 ? <Empty title="Compare with other audiences">Choose up to seven: the diagram shows how many people are in each combination.</Empty> : <UpSet sets={[audience, ...others]} />}
    </div>
  );
}

function UpSet({ sets }: { sets: Set[] }) {
  const { data, loading, error, again } = useData(OverlapDocument, { people: sets.map((set) => ({ audienceId: set.id })) });
  if (error) return <Failure error={error} again={again} />;
  if (loading || !data) return <Skeleton />;
  const { cells, sizes, union, exact, error: refusal } = data.overlap;
  if (refusal) return <div className="note" role="alert">{refusal.message}</div>;
  const shown = cells.filter((cell) => cell.count > 0).sort((a, b) => b.count - a.count).slice(0, CELLS);
  const largest = Math.max(1, ...shown.map((cell) => cell.count));
  const width = 46;
  const height = 170;
  const row = 28;
  return (
    <section className="card stack">
      <p className="muted">{plural(union, 'person', 'people')} in at least one{exact ? '' : ', estimated from a sample'}.</p>
      <div className="upset" tabIndex={0} role="region" aria-label="Diagram of the overlap">
        <svg className="chart" style={{ minWidth: 200 + shown.length * width }} width={200 + shown.length * width} height={height + 30 + sets.length * row} role="img" aria-label="How many people are in each combination of the audiences; the table below has the numbers">
          {shown.map((cell, index) => {
            const x = 200 + index * width;
            const tall = (height - 24) * (cell.count / largest);
            const rows = cell.in.flatMap((inside, place) => (inside ? [place] : []));
            const y = (place: number) => height + 26 + place * row;
            return (
              <g key={index}>
                <rect className="bar" x={x + 8} width={width - 16} y={height - tall} height={tall} rx={3} />
                <text x={x + width / 2} y={height - tall - 6} textAnchor="middle">{count(cell.count)}</text>
                {sets.map((_, place) => <circle key={place} cx={x + width / 2} cy={y(place)} r={5} className={cell.in[place] ? 'bar' : 'ghost'} />)}
                {rows.length > 1 && <line x1={x + width / 2} x2={x + width / 2} y1={y(rows[0])} y2={y(rows[rows.length - 1])} className="line" />}
              </g>
            );
          })}
          {sets.map((set, place) => (
            <text key={set.id} x={190} y={height + 30 + place * row} textAnchor="end">{isolated(clipped(set.name, LONGEST_NAME))} · {count(sizes[place])}</text>
          ))}
        </svg>
      </div>
      <details>
        <summary className="muted">As a table</summary>
        <div className="tablebox">
          <table>
            <thead><tr><th scope="col">In exactly</th><th scope="col" className="right">People</th><th scope="col" className="right">Share</th></tr></thead>
            <tbody>
              {shown.map((cell, index) => (
                <tr key={index}>
                  <td>{sets.filter((_, place) => cell.in[place]).map((set) => set.name).join(' and ')}</td>
                  <td className="right">{count(cell.count)}</td>
                  <td className="right">{percent(cell.count / Math.max(1, union))}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      </details>
    </section>
  );
}

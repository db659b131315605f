// An audience in numbers: from everybody to who can be reached, each part of its expression, and statistics of fields.
import { useNavigate, useSearch } from '@tanstack/react-router';
import { useEffect, useState } from 'react';
import { useClient } from 'urql';

import { useConnection } from '../api/connection';
import { useData } from '../api/hooks';
import { StatisticsDocument, WaterfallDocument, type StatisticsQuery } from '../api/operations';
import { useMay } from '../api/permissions';
import { Histogram } from '../ui/charts';
import { Button, Field } from '../ui/controls';
import { count, percent, plural, value } from '../ui/format';
import { Bars, Failure, Figure, Skeleton, Withheld } from '../ui/pieces';
import { useAudience } from './Audience';
import { Columns, usePaths } from './Columns';
import { countParts, type Parts } from './parts';

type FieldStatistics = NonNullable<NonNullable<StatisticsQuery['audience']>['statistics']>[number];

const FIRST_FIELDS = 2;
const MOST_FIELDS = 20;
const STEPS: Record<string, string> = { evaluated: 'Everybody', matched: 'Match the expression now', consented: 'Have not opted out' };

export function AudienceNumbers() {
  const may = useMay();
  const audience = useAudience().data?.audience;
  if (!audience) return null;
  const { definition, mergePolicy } = audience;
  return (
    <div className="stack">
      <div className="cards">
        <section className="card stack"><h2>From everybody to who can be reached</h2><Waterfall id={audience.id} /></section>
        {definition === undefined && <section className="card stack"><h2>Each part of the expression</h2><Withheld needs={['definitions:read']} /></section>}
        {definition && <section className="card stack" aria-label="Parts"><h2>Each part of the expression</h2><PartCounts key={definition.expression} expression={definition.expression} mergePolicyId={mergePolicy?.id} /></section>}
      </div>
      {may('profiles:read') ? <Fields id={audience.id} /> : <section className="section stack"><h2>Fields of its members</h2><Withheld needs={['profiles:read']} /></section>}
    </div>
  );
}

function Waterfall({ id }: { id: string }) {
  const { data, loading, error, again } = useData(WaterfallDocument, { id });
  if (error) return <Failure error={error} again={again} />;
  const steps = data?.audience?.waterfall;
  if (loading || !steps) return <Skeleton lines={4} />;
  const everybody = Math.max(1, steps[0]?.count ?? 0);
  return (
    <Bars
      total={everybody}
      items={steps.map((step) => ({
        key: step.name,
        count: step.count,
        name: <>{STEPS[step.name] ?? `Have a ${step.name} identity`} <span className="faint">{percent(step.count / everybody)}</span></>,
      }))}
    />
  );
}

function PartCounts({ expression, mergePolicyId }: { expression: string; mergePolicyId?: string }) {
  const client = useClient();
  const { epoch } = useConnection();
  const [counted, setCounted] = useState<Parts>();
  const [problem, setProblem] = useState<Error>();
  const [attempts, setAttempts] = useState(0);
  useEffect(() => {
    let current = true;
    setProblem(undefined);
    countParts(client, expression, mergePolicyId).then(
      (parts) => current && setCounted(parts),
      (reason: Error) => current && setProblem(reason),
    );
    return () => {
      current = false;
    };
  }, [client, expression, mergePolicyId, epoch, attempts]);
  if (problem) return <Failure error={problem} again={() => setAttempts(attempts + 1)} />;
  if (!counted) return <Skeleton lines={4} />;
  const largest = Math.max(1, ...counted.parts.map((part) => part.count));
  return (
    <>
      <p className="faint">How many people each part holds for by itself, evaluated now{counted.exact ? '' : ' from a sample'}; people who opted out are left out.</p>
      <ul className="bars">
        {counted.parts.map((part, index) => (
          <li key={index} style={{ marginLeft: part.depth * 16 }}>
            <i style={{ width: `${(100 * part.count) / largest}%` }} />
            <span title={part.text}>{part.joined && <span className="faint">{part.joined} </span>}<code>{part.text}</code></span>
            <span className="numeric">{count(part.count)}</span>
          </li>
        ))}
      </ul>
      {counted.omitted > 0 && <p className="faint">Not counted: {plural(counted.omitted, 'more part')}.</p>}
    </>
  );
}

/** Statistics of the fields and expressions that the address names. */
function Fields({ id }: { id: string }) {
  const search = useSearch({ from: '/audiences/$id/numbers' });
  const navigate = useNavigate({ from: '/audiences/$id/numbers' });
  const paths = usePaths();
  const [typed, setTyped] = useState('');
  const chosen = search.of ?? (paths ?? []).slice(0, FIRST_FIELDS);
  const change = (next: string[]) => void navigate({ search: { of: next }, replace: true });
  const add = () => {
    const expression = typed.trim();
    if (expression !== '' && !chosen.includes(expression)) change([...chosen, expression]);
    setTyped('');
  };
  return (
    <section className="section stack">
      <h2>Fields of its members</h2>
      <form className="toolbar" style={{ alignItems: 'flex-end' }} onSubmit={(event) => { event.preventDefault(); add(); }}>
        <Columns label="Fields" paths={paths ?? []} chosen={chosen} onChange={change} />
        <Field label="Any value in PQL" value={typed} onChange={setTyped} placeholder="xEvent.count()" />
        <Button type="submit" isDisabled={typed.trim() === '' || chosen.length >= MOST_FIELDS}>Add</Button>
      </form>
      {chosen.length === 0 ? <p className="muted">Choose a field, or write a value.</p> : chosen.length > MOST_FIELDS ? <p className="muted">At most {MOST_FIELDS} at once: choose fewer.</p> : <Answers id={id} chosen={chosen} remove={(each) => change(chosen.filter((other) => other !== each))} />}
    </section>
  );
}

function Answers({ id, chosen, remove }: { id: string; chosen: string[]; remove: (expression: string) => void }) {
  const { data, loading, error, again } = useData(StatisticsDocument, { id, expressions: chosen });
  if (error) return <Failure error={error} again={again} />;
  const statistics = data?.audience?.statistics;
  if (loading || !statistics) return <Skeleton lines={4} />;
  return <div className="cards">{statistics.map((each) => <Answer key={each.expression} statistics={each} remove={() => remove(each.expression)} />)}</div>;
}

function Answer({ statistics, remove }: { statistics: FieldStatistics; remove: () => void }) {
  const { expression, error, average, quartiles, sum, minimum, maximum, histogram } = statistics;
  const ranges = histogram.some((bucket) => bucket.high !== null);
  return (
    <section className="card stack" aria-label={expression}>
      <div className="row">
        <h2 className="grow"><code>{expression}</code></h2>
        <Button small kind="quiet" icon="close" aria-label={`Remove ${expression}`} onPress={remove} />
      </div>
      {error ? <div className="note">{error.message}</div> : (
        <>
          <div className="figures">
            <Figure name="Have a value" value={count(statistics.count)} />
            <Figure name="Distinct" value={count(statistics.distinct)} />
            {average !== null && <Figure name="Average" value={rounded(average)} />}
            {quartiles.length === 3 && <Figure name="Median" value={rounded(quartiles[1])} />}
          </div>
          <p className="muted">
            From {value(minimum)} to {value(maximum)}
            {quartiles.length === 3 && <>; half of them between {rounded(quartiles[0])} and {rounded(quartiles[2])}</>}
            {sum !== null && <>; {rounded(sum)} together</>}.
          </p>
          {statistics.distinct === statistics.count && statistics.distinct > histogram.length && !ranges ? <p className="muted">Each has a different value.</p> : ranges ? (
            <Histogram name={expression} buckets={histogram.map((bucket) => ({ low: bound(bucket.low), high: bound(bucket.high), count: bucket.count }))} />
          ) : histogram.length > 0 && (
            <Bars total={Math.max(1, statistics.count)} items={histogram.map((bucket) => ({ key: value(bucket.low), name: value(bucket.low), count: bucket.count }))} />
          )}
        </>
      )}
    </section>
  );
}

const rounded = (number: number) => number.toLocaleString('en', { maximumSignificantDigits: Math.max(6, Math.trunc(Math.abs(number)).toString().length) });

/** Of a range that was computed, whose last digits say nothing. */
const bound = (item: unknown) => (typeof item === 'number' ? rounded(item) : value(item));

// How many people an expression would catch: an estimate whose interval closes in while more is read.
import { useEffect, useState } from 'react';
import { Link } from '@tanstack/react-router';
import { useClient } from 'urql';

import { useConnection } from '../api/connection';
import { useData } from '../api/hooks';
import {
  CancelPreviewDocument,
  CreatePreviewDocument,
  EstimateUpdatedDocument,
  PreviewPeopleDocument,
  type EstimateUpdatedSubscription,
} from '../api/operations';
import { needsToDo } from '../api/permissions';
import { count, percent, short, value } from '../ui/format';
import { Bars, Progress, Readable, Withheld } from '../ui/pieces';

type EstimateData = EstimateUpdatedSubscription['estimateUpdated'];

const PAUSE = 600;

interface Input {
  expression: string;
  /** Only what the check found to be right is tried. */
  valid: boolean;
  mergePolicyId?: string;
  excludeOptOut: boolean;
}

function useEstimate({ expression, valid, mergePolicyId, excludeOptOut }: Input) {
  const client = useClient();
  const { epoch } = useConnection();
  const [estimate, setEstimate] = useState<EstimateData & { previewId: string }>();
  const [problem, setProblem] = useState<string>();
  useEffect(() => {
    setProblem(undefined);
    if (!valid || expression.trim() === '') {
      setEstimate(undefined);
      return;
    }
    let previewId: string | undefined;
    let ended = false;
    let stop = () => {};
    const timer = setTimeout(async () => {
      const { data, error } = await client.mutation(CreatePreviewDocument, { input: { expression, mergePolicyId, excludeOptOut } }).toPromise();
      previewId = data?.createPreview.preview?.previewId;
      if (ended) return cancel();
      if (!previewId) return setProblem(data?.createPreview.errors[0]?.message ?? error?.message);
      const id = previewId;
      ({ unsubscribe: stop } = client.subscription(EstimateUpdatedDocument, { id }).subscribe((result) => {
        if (result.data) setEstimate({ ...result.data.estimateUpdated, previewId: id });
      }));
    }, PAUSE);
    const cancel = () => {
      if (previewId) void client.mutation(CancelPreviewDocument, { id: previewId }).toPromise();
    };
    return () => {
      ended = true;
      clearTimeout(timer);
      stop();
      cancel();
    };
  }, [client, expression, valid, mergePolicyId, excludeOptOut, epoch]);
  return { estimate, problem };
}

export function Estimate(input: Input) {
  return (
    <section className="card stack" aria-label="Estimate">
      <h2>How many people</h2>
      <Readable needs={[...needsToDo([CreatePreviewDocument]), 'previews:read']}><Counted {...input} /></Readable>
    </section>
  );
}

function Counted(input: Input) {
  const { estimate, problem } = useEstimate(input);
  const done = estimate?.state === 'RESULT_READY';
  return (
    <div className="stack" aria-busy={Boolean(estimate) && !done}>
      {problem && <div className="note">{problem}</div>}
      {estimate?.state === 'FAILED' && <div className="note">{estimate.error}</div>}
      {!estimate && !problem && <p className="muted">{input.valid ? 'Counting…' : 'The count appears as soon as the expression is valid.'}</p>}
      {estimate && estimate.state !== 'FAILED' && <Size estimate={estimate} done={done} />}
      {estimate && done && <People previewId={estimate.previewId} />}
    </div>
  );
}

function Size({ estimate, done }: { estimate: EstimateData; done: boolean }) {
  const { estimatedSize, confidenceInterval: interval, profilesReadSoFar, numRowsToRead, totalRows } = estimate;
  const exact = done && interval !== null && interval.low === interval.high;
  return (
    <>
      <div className="figure">
        <div className="value" data-testid="estimate">{estimatedSize === null ? '…' : count(estimatedSize)}</div>
        <div className="muted numeric">
          {estimatedSize !== null && totalRows > 0 && <>{percent(estimatedSize / totalRows)} of {short(totalRows)} · </>}
          {exact ? 'exact' : interval ? `95% sure: ${short(interval.low)} to ${short(interval.high)}` : 'reading'}
        </div>
      </div>
      {interval && totalRows > 0 && <Interval low={interval.low} high={interval.high} middle={estimatedSize ?? interval.low} total={totalRows} />}
      {!done && <Progress fraction={numRowsToRead > 0 ? profilesReadSoFar / numRowsToRead : 0} label="People read" />}
      {done && estimate.estimatedNamespaceDistribution.length > 0 && (
        <Bars total={Math.max(1, estimatedSize ?? 1)} items={estimate.estimatedNamespaceDistribution.map((each) => ({ key: each.namespace, name: each.namespace, count: each.count }))} />
      )}
    </>
  );
}

/** Where the size lies, on the scale of all people (its root, so that small audiences are seen). */
function Interval({ low, high, middle, total }: { low: number; high: number; middle: number; total: number }) {
  const place = (size: number) => 100 * Math.sqrt(Math.min(1, Math.max(0, size / total)));
  return (
    <svg viewBox="0 0 100 8" preserveAspectRatio="none" className="interval" role="img" aria-label={`Between ${count(low)} and ${count(high)} of ${count(total)} people`}>
      <rect x="0" y="3" width="100" height="2" className="track" />
      <rect x={place(low)} y="2" width={Math.max(0.6, place(high) - place(low))} height="4" className="range" />
      <rect x={place(middle) - 0.3} y="0" width="0.6" height="8" className="middle-mark" />
    </svg>
  );
}

function People({ previewId }: { previewId: string }) {
  const { data } = useData(PreviewPeopleDocument, { id: previewId });
  if (data?.preview && !data.preview.profiles) return <Withheld needs={['profiles:read']} />;
  const people = data?.preview?.profiles?.nodes ?? [];
  if (people.length === 0) return null;
  return (
    <div>
      <h3 className="label">Some of them</h3>
      <ul className="people">
        {people.map((person) => (
          <li key={person.id}>
            <Link className="mono" to="/people/$id" params={{ id: person.profileId }}>{person.profileId}</Link>
            <span className="faint">{brief(person.attributes)}</span>
          </li>
        ))}
      </ul>
    </div>
  );
}

/** The first few plain values of a person. */
function brief(attributes: unknown): string {
  const values: string[] = [];
  const walk = (item: unknown, depth: number) => {
    if (values.length >= 3 || depth > 2) return;
    if (item && typeof item === 'object' && !Array.isArray(item)) {
      for (const [name, inner] of Object.entries(item)) if (name !== 'identityMap') walk(inner, depth + 1);
    } else if (typeof item === 'string' || typeof item === 'number') values.push(value(item));
  };
  walk(attributes, 0);
  return values.join(' · ');
}

// The batches of a dataset, newest first, with the rows that each left out and why.
import { useEffect, useState } from 'react';

import { useData } from '../api/hooks';
import { BatchRejectedDocument, DatasetBatchesDocument, type DatasetBatchesQuery } from '../api/operations';
import { bytes, count, plural, Time, words } from '../ui/format';
import { Failure, More, Skeleton, Withheld } from '../ui/pieces';

type Batch = NonNullable<DatasetBatchesQuery['dataset']>['batches']['nodes'][number];

const PAGE = 20;

/** `rows` of the dataset: when they change, so have its batches. */
export function Batches({ id, rows }: { id: string; rows: number }) {
  const [after, setAfter] = useState<string>();
  const { data, stale, error, again } = useData(DatasetBatchesDocument, { id, first: PAGE, after });
  const [shown, setShown] = useState(rows);
  useEffect(() => {
    if (rows !== shown) again();
    setShown(rows);
  }, [rows]);
  const page = data?.dataset?.batches;
  if (!page) return error ? <Failure error={error} again={again} /> : <Skeleton lines={3} />;
  return (
    <>
      <ul className="batches">{page.nodes.map((batch) => <Line key={batch.id} batch={batch} />)}</ul>
      <More shown={page.nodes.length} total={page.totalCount} next={page.pageInfo.hasNextPage ? page.pageInfo.endCursor : null} busy={stale} load={setAfter} />
    </>
  );
}

function Line({ batch }: { batch: Batch }) {
  const [open, setOpen] = useState(false);
  return (
    <li className="stack tight">
      <div className="row">
        <span className="grow">
          <strong className="numeric">{plural(batch.rowCount, 'row')}</strong>
          {batch.duplicateRows > 0 && <span className="muted"> · {count(batch.duplicateRows)} known already</span>}
          <br />
          <span className="faint">{bytes(batch.bytes)} · <Time at={batch.createdAt} /></span>
        </span>
        <span className={`badge ${batch.status === 'ACTIVE' ? 'good' : batch.status === 'FAILED' ? 'bad' : 'blue'}`}>{words(batch.status)}</span>
      </div>
      {batch.error && <p className="problem">{batch.error}</p>}
      {batch.status === 'FAILED' && batch.error === undefined && <Withheld needs={['profiles:read']} />}
      {batch.rejectedRows > 0 && (
        <details onToggle={(event) => setOpen(event.currentTarget.open)}>
          <summary className="problem">{plural(batch.rejectedRows, 'row')} left out</summary>
          {open && <LeftOut id={batch.id} total={batch.rejectedRows} />}
        </details>
      )}
    </li>
  );
}

function LeftOut({ id, total }: { id: string; total: number }) {
  const { data, error, again } = useData(BatchRejectedDocument, { id });
  if (error) return <Failure error={error} again={again} />;
  if (!data) return <Skeleton lines={2} />;
  if (!data.batch) return <p className="muted">The batch has been deleted.</p>;
  const { rejected } = data.batch;
  if (!rejected) return <Withheld needs={['profiles:read']} />;
  return (
    <>
      <Rejected rows={rejected} />
      {rejected.length < total && <p className="faint">{rejected.length === 0 ? 'None of them is kept.' : `${count(rejected.length)} of ${count(total)} are kept.`}</p>}
    </>
  );
}

export function Rejected({ rows }: { rows: { row: number; message: string }[] }) {
  if (rows.length === 0) return null;
  return (
    <div className="tablebox" tabIndex={0} role="region" aria-label="Rejected rows">
      <table>
        <thead><tr><th scope="col" className="right fit">Row</th><th scope="col">Why it is left out</th></tr></thead>
        <tbody>{rows.map((row) => <tr key={row.row}><td className="right">{count(row.row)}</td><td>{row.message}</td></tr>)}</tbody>
      </table>
    </div>
  );
}

// One dataset: its fields with seen values, its batches, and a place to drop files on.
import { Link, useNavigate, useParams } from '@tanstack/react-router';
import { useRef, useState } from 'react';
import { DropZone, FileTrigger, isFileDropItem } from 'react-aria-components';

import { useAct, useData } from '../api/hooks';
import { DatasetPageDocument, DeleteDatasetDocument, UploadBatchDocument } from '../api/operations';
import { Button, Confirm, May } from '../ui/controls';
import { bytes, count, namesOf, plural, Time } from '../ui/format';
import { Icon } from '../ui/icons';
import { Empty, Failure, Head, Progress, Skeleton } from '../ui/pieces';
import { say } from '../ui/toasts';
import { KINDS } from './Datasets';
import { Batches, Rejected } from './Batches';
import { Fields } from './Fields';
import { formatOf, upload, type Transfer, type Uploaded } from './upload';

export function DatasetPage() {
  const { id } = useParams({ from: '/data/$id' });
  const act = useAct();
  const navigate = useNavigate();
  const [deleting, setDeleting] = useState(false);
  const { data, loading, error, again } = useData(DatasetPageDocument, { id });
  const dataset = data?.dataset;
  if (loading) return <div className="page"><Skeleton /></div>;
  if (!dataset) return <div className="page">{error ? <Failure error={error} again={again} /> : <Empty title="There is no such dataset"><Link to="/data">To the data</Link></Empty>}</div>;
  const remove = async () => {
    await act(DeleteDatasetDocument, { input: { id: dataset.id } });
    say(`${dataset.name} deleted.`);
    void navigate({ to: '/data' });
  };
  return (
    <div className="page">
      <Head
        title={dataset.name}
        back={{ label: 'Data', to: '/data' }}
        badges={<span className={`badge ${KINDS[dataset.kind].tone}`}>{KINDS[dataset.kind].label}</span>}
        about={<><strong className="numeric">{plural(dataset.rowCount, 'row')}</strong> · changed <Time at={dataset.updatedAt} /></>}
      >
        <Button icon="trash" does={[DeleteDatasetDocument]} onPress={() => setDeleting(true)}>Delete</Button>
      </Head>
      <div className="stack">
        {dataset.kind !== 'EXPORT' && <May act={[UploadBatchDocument]}><Upload datasetId={dataset.id} landed={again} /></May>}
        <div className="split">
          <section className="section stack">
            <h2>Fields</h2>
            {dataset.fields.length === 0 ? <Empty title="No fields yet">They come with the first file.</Empty> : <Fields key={dataset.updatedAt} id={dataset.id} fields={dataset.fields} />}
          </section>
          <section className="section stack">
            <h2>Batches</h2>
            <Batches id={id} rows={dataset.rowCount} />
          </section>
        </div>
      </div>
      <Confirm title={`Delete ${dataset.name}?`} open={deleting} onClose={() => setDeleting(false)} verb="Delete dataset" act={remove}>
        What goes: {plural(dataset.rowCount, 'row')}. Audiences, policies and schedules that rely on it keep it from being deleted.
      </Confirm>
    </div>
  );
}

type State =
  | { file: File; share: number }
  | { file: File; tried: Uploaded }
  | { file: File; result: Uploaded }
  | { file?: File; problem: string };

function Upload({ datasetId, landed }: { datasetId: string; landed: () => void }) {
  const [state, setState] = useState<State>();
  const transfer = useRef<Transfer>(undefined);
  const send = async (file: File, dryRun: boolean) => {
    const format = formatOf(file.name);
    if (!format) return setState({ file, problem: `${file.name} is no CSV, NDJSON or Parquet file by its name.` });
    setState({ file, share: 0 });
    try {
      transfer.current = upload({ datasetId, format, dryRun }, file, (share) => setState({ file, share }));
      const result = await transfer.current.done;
      if (result.errors.length > 0) setState({ file, problem: result.errors.map((error) => error.message).join('\n') });
      else setState(dryRun ? { file, tried: result } : { file, result });
      if (!dryRun) landed();
    } catch (error) {
      setState({ file, problem: (error as Error).message });
    }
  };
  const attempt = (file: File | undefined) => void (file && send(file, true));
  const busy = state && 'share' in state;
  return (
    <div className="stack">
      <DropZone
        className="drop"
        aria-label="Drop a file to upload it"
        isDisabled={busy}
        onDrop={async (event) => {
          const item = event.items.find(isFileDropItem);
          if (item) attempt(await item.getFile());
        }}
      >
        <Icon name="upload" size={20} />
        <span className="grow">Drop a CSV, NDJSON or Parquet file here, gzipped too. It is tried first; you see what would land.</span>
        <FileTrigger acceptedFileTypes={['.csv', '.tsv', '.ndjson', '.jsonl', '.json', '.parquet', '.gz']} onSelect={(files) => attempt(files?.[0])}>
          <Button isDisabled={busy}>Choose a file</Button>
        </FileTrigger>
      </DropZone>
      {state && <Outcome state={state} cancel={() => transfer.current?.cancel()} load={(file) => void send(file, false)} forget={() => setState(undefined)} />}
    </div>
  );
}

interface OutcomeProps {
  state: State;
  cancel: () => void;
  load: (file: File) => void;
  forget: () => void;
}

function Outcome({ state, cancel, load, forget }: OutcomeProps) {
  if ('problem' in state) return <div className="note" role="alert">{state.problem}</div>;
  if ('share' in state) {
    return (
      <div className="card row" role="status">
        <span className="grow stack tight">
          <span>{state.share < 1 ? `Sending ${state.file.name}: ${Math.round(state.share * 100)}% of ${bytes(state.file.size)}` : `${state.file.name} was sent; its rows are being read`}</span>
          <Progress fraction={state.share} label={`Upload of ${state.file.name}`} />
        </span>
        <Button small onPress={cancel}>Cancel</Button>
      </div>
    );
  }
  if ('tried' in state) return <Tried file={state.file} tried={state.tried} load={() => load(state.file)} forget={forget} />;
  const { batch, rejected } = state.result;
  return (
    <div className="card stack" role="status">
      <p>
        <strong>{state.file.name}</strong>: {plural(batch?.rowCount ?? 0, 'row')} landed
        {batch && batch.rejectedRows > 0 && <>, <span className="problem">{plural(batch.rejectedRows, 'row')} left out</span></>}
        {batch && batch.duplicateRows > 0 && <>, {count(batch.duplicateRows)} known already</>}.
      </p>
      <Rejected rows={rejected} />
    </div>
  );
}

/** What a dry run found: nothing has landed yet. */
function Tried({ file, tried, load, forget }: { file: File; tried: Uploaded; load: () => void; forget: () => void }) {
  const { dryRun, rejected, warnings } = tried;
  if (!dryRun) return null;
  const fresh = new Set(dryRun.newFields);
  return (
    <div className="card stack" role="status">
      <div className="row">
        <p className="grow">
          <strong>{file.name}</strong>: {plural(dryRun.rowCount, 'row')} would land
          {dryRun.rejectedRows > 0 && <>, <span className="problem">{plural(dryRun.rejectedRows, 'row')} would be left out</span></>}
          {dryRun.duplicateRows > 0 && <>, {count(dryRun.duplicateRows)} twice in the file</>}.
        </p>
        <Button onPress={forget}>Not now</Button>
        <Button kind="primary" icon="upload" onPress={load} isDisabled={dryRun.rowCount === 0}>Load {plural(dryRun.rowCount, 'row')}</Button>
      </div>
      {warnings.map((warning) => <div key={warning} className="note warn">{warning}</div>)}
      <p className="row tight">
        {dryRun.fields.map((field) => (
          <span key={field.path} className="label-tag">{field.path} <span className="faint">{field.type}</span>{fresh.has(namesOf(field.path)[0]) && <strong className="up"> new</strong>}</span>
        ))}
      </p>
      <Rejected rows={rejected} />
    </div>
  );
}

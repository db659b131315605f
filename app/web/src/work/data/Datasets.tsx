// The datasets of the sandbox.
import { Link, useNavigate } from '@tanstack/react-router';
import { useState } from 'react';

import { useAct, useData } from '../api/hooks';
import { CreateDatasetDocument, DatasetsDocument, type DatasetKind } from '../api/operations';
import { Button, Field, FormDialog, Select } from '../ui/controls';
import { count, Time, words } from '../ui/format';
import { Empty, Failure, Head, Skeleton } from '../ui/pieces';

export const KINDS: Record<DatasetKind, { label: string; tone: string; about: string }> = {
  PROFILE: { label: 'People', tone: 'accent', about: 'A row is what is known of one person.' },
  EVENT: { label: 'Events', tone: 'blue', about: 'A row is what a person did, at a time.' },
  AUDIENCE: { label: 'Members', tone: 'good', about: 'A row is a member of an uploaded audience.' },
  EXPORT: { label: 'Exports', tone: '', about: 'Exports write into it.' },
};

export function Datasets() {
  const { data, loading, error, again } = useData(DatasetsDocument, {});
  const [open, setOpen] = useState(false);
  const create = <Button kind="primary" icon="plus" does={[CreateDatasetDocument]} onPress={() => setOpen(true)}>New dataset</Button>;
  const rows = data?.datasets.nodes ?? [];
  return (
    <div className="page">
      <Head title="Data" about="People, what they did, and who was exported.">{create}</Head>
      {error && <Failure error={error} again={again} />}
      {loading ? <Skeleton /> : rows.length === 0 ? (
        !error && <Empty title="No data yet" actions={create}>Create a dataset, then drop a CSV, NDJSON or Parquet file on it.</Empty>
      ) : (
        <div className="tablebox">
          <table>
            <thead><tr><th scope="col">Dataset</th><th scope="col">Kind</th><th scope="col" className="right">Rows</th><th scope="col" className="right middle">Fields</th><th scope="col" className="fit middle">Changed</th></tr></thead>
            <tbody>
              {rows.map((dataset) => (
                <tr key={dataset.id} className="link">
                  <td className="clip"><Link to="/data/$id" params={{ id: dataset.datasetId }} className="title">{dataset.name}</Link></td>
                  <td><span className={`badge ${KINDS[dataset.kind].tone}`}>{KINDS[dataset.kind].label}</span></td>
                  <td className="right">{count(dataset.rowCount)}</td>
                  <td className="right middle">{dataset.fields.length}</td>
                  <td className="fit middle muted"><Time at={dataset.updatedAt} /></td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {open && <NewDataset onClose={() => setOpen(false)} />}
    </div>
  );
}

function NewDataset({ onClose }: { onClose: () => void }) {
  const act = useAct();
  const navigate = useNavigate();
  const [kind, setKind] = useState<DatasetKind>('PROFILE');
  const [name, setName] = useState('');
  const [column, setColumn] = useState('');
  const [namespace, setNamespace] = useState('');
  const [time, setTime] = useState('timestamp');
  const identified = kind !== 'EXPORT';
  const create = async () => {
    const { createDataset } = await act(CreateDatasetDocument, {
      input: {
        name: name.trim(),
        kind,
        primaryIdentity: identified ? { column: column.trim(), namespace: namespace.trim() } : undefined,
        timestampColumn: kind === 'EVENT' ? time.trim() : undefined,
      },
    });
    void navigate({ to: '/data/$id', params: { id: createDataset.dataset!.datasetId } });
  };
  const filled = [name, ...(identified ? [column, namespace] : []), ...(kind === 'EVENT' ? [time] : [])];
  return (
    <FormDialog title="New dataset" open onClose={onClose} verb="Create dataset" act={create} ready={filled.every((text) => text.trim() !== '')}>
        <Field label="Name" value={name} onChange={setName} required autoFocus />
        <Select shown label="Kind" hint={KINDS[kind].about} options={(Object.keys(KINDS) as DatasetKind[]).map((id) => ({ id, label: KINDS[id].label, detail: words(id) }))} value={kind} onChange={(next) => setKind(next as DatasetKind)} />
        {identified && (
          <>
            <Field label="Identity column" hint="The column that says whose a row is, such as customerId" value={column} onChange={setColumn} required />
            <Field label="Identity namespace" hint="What such ids are, such as crm or email" value={namespace} onChange={setNamespace} required />
          </>
        )}
        {kind === 'EVENT' && <Field label="Time column" hint="When it happened; becomes `timestamp`" value={time} onChange={setTime} required />}
    </FormDialog>
  );
}

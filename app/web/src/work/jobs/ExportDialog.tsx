// Start an export: whose, which attributes, into which dataset.
import { useNavigate } from '@tanstack/react-router';
import { useState } from 'react';

import { useAct, useData } from '../api/hooks';
import { AudienceChoicesDocument, CreateDatasetDocument, CreateExportDocument, ExportTargetsDocument } from '../api/operations';
import { Button, Checkbox, Dialog, Field, Select } from '../ui/controls';

const SCHEMA = '_xdm.context.profile';

export function ExportDialog({ audiences, onClose }: { audiences: string[]; onClose: () => void }) {
  const act = useAct();
  const navigate = useNavigate();
  const choices = useData(AudienceChoicesDocument, {}).data?.audiences.nodes ?? [];
  const targets = useData(ExportTargetsDocument, {}).data?.datasets.nodes ?? [];
  const [chosen, setChosen] = useState(audiences);
  const [target, setTarget] = useState('new');
  const [name, setName] = useState('');
  const [fields, setFields] = useState('');
  const [each, setEach] = useState(false);
  const [first, setFirst] = useState(false);
  const [problem, setProblem] = useState<string>();
  const start = async () => {
    try {
      const datasetId = target === 'new'
        ? (await act(CreateDatasetDocument, { input: { name: name.trim(), kind: 'EXPORT' } })).createDataset.dataset!.id
        : target;
      setTarget(datasetId);
      const paths = fields.split(/[\s,]+/).filter(Boolean);
      const { createExportJob } = await act(CreateExportDocument, {
        input: {
          destination: { datasetId, segmentPerBatch: each },
          schemaName: SCHEMA,
          fields: paths.length ? paths : undefined,
          filter: chosen.length ? { segments: chosen.map((segmentId) => ({ segmentId })) } : undefined,
          evaluateFirst: first,
        },
      });
      void navigate({ to: '/exports/$id', params: { id: createExportJob.job!.jobId } });
    } catch (error) {
      setProblem((error as Error).message);
    }
  };
  return (
    <Dialog title="New export" open onClose={onClose}>
      <div className="stack">
        {problem && <div className="note" role="alert">{problem}</div>}
        <div>
          <span className="label">Members of (everybody when none is chosen)</span>
          <div className="choices" role="group" aria-label="Audiences">
            {choices.map((audience) => (
              <Checkbox key={audience.id} isSelected={chosen.includes(audience.id)} onChange={(on) => setChosen(on ? [...chosen, audience.id] : chosen.filter((id) => id !== audience.id))}>{audience.name}</Checkbox>
            ))}
          </div>
        </div>
        <Select shown label="Into" options={[{ id: 'new', label: 'A new dataset' }, ...targets.map((dataset) => ({ id: dataset.id, label: dataset.name }))]} value={target} onChange={setTarget} />
        {target === 'new' && <Field label="Name of the dataset" value={name} onChange={setName} required />}
        <Field label="Attributes" hint="Paths separated by spaces, such as homeAddress.city; all when empty" value={fields} onChange={setFields} />
        <Checkbox isSelected={each} onChange={setEach}>One batch for each audience</Checkbox>
        <Checkbox isSelected={first} onChange={setFirst}>Evaluate the audiences first</Checkbox>
      </div>
      <div className="foot">
        <Button onPress={onClose}>Cancel</Button>
        <Button kind="primary" onPress={start} isDisabled={target === 'new' && !name.trim()}>Export</Button>
      </div>
    </Dialog>
  );
}

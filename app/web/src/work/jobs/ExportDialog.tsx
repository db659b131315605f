// Start an export: whose, which attributes, into which dataset.
import { useNavigate } from '@tanstack/react-router';
import { useState } from 'react';

import { useAct } from '../api/hooks';
import { CreateExportDocument } from '../api/operations';
import { Button, Dialog } from '../ui/controls';
import { emptyExport, ExportFields, isComplete, useExportInput } from './ExportFields';

export function ExportDialog({ audiences, onClose }: { audiences: string[]; onClose: () => void }) {
  const act = useAct();
  const navigate = useNavigate();
  const inputOf = useExportInput();
  const [form, setForm] = useState(() => emptyExport(audiences));
  const [problem, setProblem] = useState<string>();
  const start = async () => {
    try {
      const { createExportJob } = await act(CreateExportDocument, { input: await inputOf(form, setForm) });
      void navigate({ to: '/exports/$id', params: { id: createExportJob.job!.jobId } });
    } catch (error) {
      setProblem((error as Error).message);
    }
  };
  return (
    <Dialog title="New export" open onClose={onClose}>
      <div className="stack">
        {problem && <div className="note" role="alert">{problem}</div>}
        <ExportFields form={form} onChange={setForm} />
      </div>
      <div className="foot">
        <Button onPress={onClose}>Cancel</Button>
        <Button kind="primary" onPress={start} isDisabled={!isComplete(form)}>Export</Button>
      </div>
    </Dialog>
  );
}

// Start an export: whose, which attributes, into which dataset.
import { useNavigate } from '@tanstack/react-router';
import { useState } from 'react';

import { useAct } from '../api/hooks';
import { CreateExportDocument } from '../api/operations';
import { FormDialog } from '../ui/controls';
import { emptyExport, ExportFields, isComplete, useExportInput } from './ExportFields';

export function ExportDialog({ audiences, onClose }: { audiences: string[]; onClose: () => void }) {
  const act = useAct();
  const navigate = useNavigate();
  const inputOf = useExportInput();
  const [form, setForm] = useState(() => emptyExport(audiences));
  const start = async () => {
    const { createExportJob } = await act(CreateExportDocument, { input: await inputOf(form, setForm) });
    void navigate({ to: '/exports/$id', params: { id: createExportJob.job!.jobId } });
  };
  return (
    <FormDialog title="New export" open onClose={onClose} verb="Export" act={start} ready={isComplete(form)}>
      <ExportFields form={form} onChange={setForm} />
    </FormDialog>
  );
}

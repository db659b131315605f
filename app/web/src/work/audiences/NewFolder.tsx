// A folder for audiences, at the root or in the one that is open.
import { useState } from 'react';

import { useAct, useData } from '../api/hooks';
import { CreateFolderDocument, FolderPathDocument } from '../api/operations';
import { Button, Field, FormDialog } from '../ui/controls';
import { say } from '../ui/toasts';

export function NewFolder({ parent }: { parent?: string }) {
  const act = useAct();
  const [open, setOpen] = useState(false);
  const [name, setName] = useState('');
  const { data } = useData(FolderPathDocument, { id: parent ?? '' }, { pause: !parent });
  const create = async () => {
    const namespace = data?.folder?.namespace ?? 'AEPSegments';
    await act(CreateFolderDocument, { input: { name: name.trim(), namespace, parentId: parent } });
    say(`Folder ${name.trim()} created.`);
    setOpen(false);
    setName('');
  };
  return (
    <>
      <Button icon="folder" does={[CreateFolderDocument]} onPress={() => setOpen(true)}>New folder</Button>
      <FormDialog title="New folder" open={open} onClose={() => setOpen(false)} verb="Create folder" act={create} ready={name.trim() !== ''}>
        <Field label="Name" value={name} onChange={setName} hint={data?.folder ? `In ${data.folder.path}` : 'At the root'} autoFocus />
      </FormDialog>
    </>
  );
}

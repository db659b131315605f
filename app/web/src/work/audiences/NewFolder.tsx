// A folder for audiences, at the root or in the one that is open.
import { useState } from 'react';

import { useAct, useData } from '../api/hooks';
import { CreateFolderDocument, FolderPathDocument } from '../api/operations';
import { Button, Dialog, Field } from '../ui/controls';
import { say } from '../ui/toasts';

export function NewFolder({ parent }: { parent?: string }) {
  const act = useAct();
  const [open, setOpen] = useState(false);
  const [name, setName] = useState('');
  const [problem, setProblem] = useState<string>();
  const { data } = useData(FolderPathDocument, { id: parent ?? '' }, { pause: !parent });
  const create = async () => {
    try {
      const namespace = data?.folder?.namespace ?? 'AEPSegments';
      await act(CreateFolderDocument, { input: { name: name.trim(), namespace, parentId: parent } });
      say(`Folder ${name.trim()} created.`);
      setOpen(false);
      setName('');
      setProblem(undefined);
    } catch (error) {
      setProblem((error as Error).message);
    }
  };
  return (
    <>
      <Button icon="folder" does={[CreateFolderDocument]} onPress={() => setOpen(true)}>New folder</Button>
      <Dialog title="New folder" open={open} onClose={() => setOpen(false)}>
        <Field label="Name" value={name} onChange={setName} problem={problem} hint={data?.folder ? `In ${data.folder.path}` : 'At the root'} autoFocus />
        <div className="foot">
          <Button onPress={() => setOpen(false)}>Cancel</Button>
          <Button kind="primary" onPress={create} isDisabled={!name.trim()}>Create folder</Button>
        </div>
      </Dialog>
    </>
  );
}

// Erasing a person: asks by name, and goes to the job that does it.
import { useNavigate } from '@tanstack/react-router';
import { useState } from 'react';

import { useAct } from '../api/hooks';
import { EraseProfileDocument } from '../api/operations';
import type { IdentityOf } from '../insight/Why';
import { Button, Confirm } from '../ui/controls';

export function Erase({ name, profileId, identity }: { name?: string; profileId: string; identity: IdentityOf }) {
  const [open, setOpen] = useState(false);
  const act = useAct();
  const navigate = useNavigate();
  const erase = async () => {
    const { eraseProfile } = await act(EraseProfileDocument, { input: { identity: { namespace: identity.namespace, id: identity.id } } });
    void navigate({ to: '/erasures/$id', params: { id: eraseProfile.job!.jobId } });
  };
  return (
    <>
      <Button kind="danger" icon="trash" does={[EraseProfileDocument]} onPress={() => setOpen(true)}>Erase…</Button>
      <Confirm title={`Erase ${name ?? profileId}?`} open={open} onClose={() => setOpen(false)} verb={`Erase ${name ?? profileId}`} act={erase}>
        Everything that is kept about <strong>{name && `${name}, `}<span className="mono">{profileId}</span></strong> goes for good, with all identities that belong to the same person: attributes, events, memberships, what was exported, and older versions of all of it.
      </Confirm>
    </>
  );
}

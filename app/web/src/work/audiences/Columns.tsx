// The attributes that people have, and a choice of them.
import { useMemo, useState } from 'react';
import { Dialog as AriaDialog, DialogTrigger, Popover } from 'react-aria-components';

import { useData } from '../api/hooks';
import { ProfileFieldsDocument } from '../api/operations';
import { useMay } from '../api/permissions';
import { Button, Checkbox, Search } from '../ui/controls';
import { Withheld } from '../ui/pieces';

/** Paths of attributes; undefined until they are known, none for who may not read datasets. */
export function usePaths(): string[] | undefined {
  const { data } = useData(ProfileFieldsDocument, {});
  return useMemo(
    () => data && [...new Set((data.datasets?.nodes ?? []).flatMap((dataset) => dataset.fields.map((field) => field.path)))],
    [data],
  );
}

export function Columns({ label = 'Columns', paths, chosen, onChange }: { label?: string; paths: string[]; chosen: string[]; onChange: (next: string[]) => void }) {
  const [term, setTerm] = useState('');
  const may = useMay();
  const shown = paths.filter((path) => path.toLowerCase().includes(term.toLowerCase()));
  return (
    <DialogTrigger>
      <Button>{label} · {chosen.length}</Button>
      <Popover className="popover" placement="bottom start">
        <AriaDialog aria-label={label} style={{ outline: 'none', padding: 8, display: 'grid', gap: 8, maxHeight: 380, overflow: 'auto' }}>
          <Search label="Find a field" value={term} onChange={setTerm} />
          {!may('datasets:read') && <Withheld needs={['datasets:read']} />}
          {shown.map((path) => (
            <Checkbox key={path} isSelected={chosen.includes(path)} onChange={(on) => onChange(on ? [...chosen, path] : chosen.filter((each) => each !== path))}>
              <code>{path}</code>
            </Checkbox>
          ))}
        </AriaDialog>
      </Popover>
    </DialogTrigger>
  );
}

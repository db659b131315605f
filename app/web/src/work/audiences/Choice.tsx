// A choice of audiences. There may be thousands: the server searches, and the list shows the first that match.
import { useEffect, useRef, useState } from 'react';
import { Button as AriaButton, ComboBox, Input, ListBox, ListBoxItem, Popover } from 'react-aria-components';

import { useData } from '../api/hooks';
import { AudienceChoicesDocument, type AudienceChoicesQuery, type AudienceFilter } from '../api/operations';
import { Checkbox, Search } from '../ui/controls';
import { count, isolated } from '../ui/format';
import { Icon } from '../ui/icons';
import { Withheld } from '../ui/pieces';

const SHOWN = 50;
/** More than one sees at once. */
const MANY = 8;
const PAUSE = 150;

export type Choice = NonNullable<AudienceChoicesQuery['audiences']>['nodes'][number];

/** As `value`, once it has not changed for a moment. */
function useSettled(value: string): string {
  const [settled, setSettled] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(value), PAUSE);
    return () => clearTimeout(timer);
  }, [value]);
  return settled;
}

/** The audiences with `term` in their names; while a search is under way, what the one before found. */
function useFound(term: string, computed: boolean) {
  const name = useSettled(term.trim());
  const filter: AudienceFilter = { name: name ? { contains: name } : undefined, type: computed ? ['SEGMENT_DEFINITION'] : undefined };
  const { data } = useData(AudienceChoicesDocument, { first: SHOWN, filter });
  const last = useRef(data);
  if (data) last.current = data;
  const found = last.current?.audiences;
  return { rows: found?.nodes ?? [], total: found?.totalCount ?? 0, known: last.current !== undefined, withheld: last.current !== undefined && !found };
}

const empty = (term: string) => (term.trim() ? `No audience has “${isolated(term.trim())}” in its name.` : 'There are none.');

function Rest({ shown, total }: { shown: number; total: number }) {
  return total > shown ? <div className="hint rest">The first {count(shown)} of {count(total)}: type a part of the name to find others.</div> : null;
}

interface AudienceBoxProps {
  label: string;
  placeholder?: string;
  /** `audienceId` of the chosen one. */
  value?: string;
  onChange: (choice: Choice) => void;
  /** Only those with an expression. */
  computed?: boolean;
  /** Ids of those that cannot be chosen. */
  without?: string[];
}

export function AudienceBox({ label, placeholder, value, onChange, computed = false, without = [] }: AudienceBoxProps) {
  const [typed, setTyped] = useState<string>();
  const { rows, total, known } = useFound(typed ?? '', computed);
  const { data } = useData(AudienceChoicesDocument, { first: 1, filter: { audienceId: { eq: value } } }, { pause: !value });
  const items = rows.filter(({ id }) => !without.includes(id));
  const chosen = value ? (data?.audiences?.nodes[0]?.name ?? value) : '';
  const choose = (id: string) => {
    const choice = rows.find((row) => row.id === id);
    if (choice) onChange(choice);
  };
  return (
    <ComboBox
      aria-label={label}
      className="combo"
      items={items}
      inputValue={typed ?? chosen}
      onInputChange={setTyped}
      onSelectionChange={(key) => key !== null && choose(String(key))}
      onBlur={() => setTyped(undefined)}
      allowsEmptyCollection={known}
      menuTrigger="focus"
    >
      <Input placeholder={placeholder ?? label} onFocus={(event) => event.currentTarget.select()} />
      <AriaButton><Icon name="down" size={13} /></AriaButton>
      <Popover className="popover">
        <ListBox<Choice> renderEmptyState={() => <div className="hint rest">{empty(typed ?? '')}</div>}>
          {(row) => <ListBoxItem id={row.id} textValue={row.name} className="option"><bdi>{row.name}</bdi></ListBoxItem>}
        </ListBox>
        <Rest shown={items.length} total={total - rows.length + items.length} />
      </Popover>
    </ComboBox>
  );
}

interface AudienceChecksProps {
  /** Ids. */
  chosen: string[];
  onChange: (chosen: string[]) => void;
  computed?: boolean;
}

/** Any number of audiences; those that are chosen but not in the list stand above it. */
export function AudienceChecks({ chosen, onChange, computed = false }: AudienceChecksProps) {
  const [term, setTerm] = useState('');
  const { rows, total, known, withheld } = useFound(term, computed);
  const beyond = chosen.filter((id) => !rows.some((row) => row.id === id));
  const { data } = useData(AudienceChoicesDocument, { first: beyond.length, filter: { id: beyond } }, { pause: beyond.length === 0 });
  const names = useRef(new Map<string, string>());
  for (const { id, name } of [...rows, ...(data?.audiences?.nodes ?? [])]) names.current.set(id, name);
  if (withheld) return <Withheld needs={['audiences:read']} />;
  const without = (id: string) => chosen.filter((other) => other !== id);
  return (
    <div className="stack tight">
      {(total > MANY || term !== '') && <Search label="Find an audience" value={term} onChange={setTerm} />}
      {known && beyond.length > 0 && (
        <div className="row tight">
          {beyond.map((id) => {
            const name = names.current.get(id) ?? id;
            return <span key={id} className="chip">{name}<button type="button" aria-label={`Remove ${name}`} onClick={() => onChange(without(id))}>✕</button></span>;
          })}
        </div>
      )}
      <div className="choices" role="group" aria-label="Audiences">
        {rows.map(({ id, name }) => (
          <Checkbox key={id} isSelected={chosen.includes(id)} onChange={(on) => onChange(on ? [...chosen, id] : without(id))}>{name}</Checkbox>
        ))}
        {known && rows.length === 0 && <span className="muted">{empty(term)}</span>}
      </div>
      <Rest shown={rows.length} total={total} />
    </div>
  );
}

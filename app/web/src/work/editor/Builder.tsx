// Conditions by clicking: reads and writes the same PQL as the text editor beside it.
import { useEffect, useRef, useState } from 'react';
import { useClient } from 'urql';

import { ConvertExpressionDocument } from '../api/operations';
import { useMay } from '../api/permissions';
import { ActionMenu, Button, Select } from '../ui/controls';
import { Icon } from '../ui/icons';
import type { Catalogue } from './catalogue';
import { isWhole, write, type Condition, type Group } from './conditions';
import { Beyond, read } from './read';
import { EventsRow, SegmentRow, SequenceRow, TestRow, newTest, type Choices } from './rows';

const PAUSE = 250;
/** Between two attempts to read an expression while the server is away. */
const AWAY = 2_000;
const EMPTY: Group = { kind: 'group', not: false, all: true, items: [] };

interface BuilderProps {
  expression: string;
  onChange: (expression: string) => void;
  catalogue: Catalogue;
  /** Id of the audience that is edited. */
  self?: string;
}

export function Builder({ expression, onChange, catalogue, self }: BuilderProps) {
  const client = useClient();
  const [root, setRoot] = useState<Group>(EMPTY);
  const [beyond, setBeyond] = useState<string>();
  /** The expression that is shown. Until another one has been read, nothing can be changed: it would be lost. */
  const [shown, setShown] = useState<string>();
  const begun = useRef(false);
  useEffect(() => {
    if (expression === shown) return;
    let old = false;
    let timer: ReturnType<typeof setTimeout>;
    const show = (group: Group, problem?: string) => {
      setRoot(group);
      setBeyond(problem);
      setShown(expression);
    };
    const convert = async () => {
      if (expression.trim() === '') return show(EMPTY);
      const { data } = await client.query(ConvertExpressionDocument, { expression }).toPromise();
      if (old) return;
      if (!data) {
        timer = setTimeout(convert, AWAY);
        return;
      }
      const json = data.pql.convert.expression;
      if (json === null) return show(EMPTY, 'it does not parse yet');
      try {
        show(read(json));
      } catch (error) {
        if (!(error instanceof Beyond)) throw error;
        show(EMPTY, error.message);
      }
    };
    // Not at each key that is typed beside it.
    timer = setTimeout(convert, begun.current ? PAUSE : 0);
    begun.current = true;
    return () => {
      old = true;
      clearTimeout(timer);
    };
  }, [client, expression, shown]);
  const change = (next: Group) => {
    setRoot(next);
    if (!isWhole(next) && next.items.length > 0) return;
    const written = next.items.length > 0 ? write(next) : '';
    setShown(written);
    onChange(written);
  };
  if (beyond) {
    return (
      <div className="note info row">
        <span className="grow">The builder cannot show this expression: {beyond}. It stays as it is; go on in the text.</span>
        <Button small onPress={() => { setBeyond(undefined); change(EMPTY); }}>Start over</Button>
      </div>
    );
  }
  return <div inert={shown !== expression}><GroupBox group={root} onChange={change} choices={{ catalogue, self }} /></div>;
}

interface Part<C> {
  value: C;
  onChange: (next: C) => void;
  choices: Choices;
}

function Row({ value, onChange, choices }: Part<Condition>) {
  switch (value.kind) {
    case 'test':
      return <TestRow test={value} onChange={onChange} fields={choices.catalogue.person} />;
    case 'events':
      return <EventsRow events={value} onChange={onChange} choices={choices} />;
    case 'sequence':
      return <SequenceRow sequence={value} onChange={onChange} choices={choices} />;
    case 'segment':
      return <SegmentRow segment={value} onChange={onChange} choices={choices} />;
    case 'group':
      return <GroupBox group={value} onChange={onChange} choices={choices} inner />;
  }
}

interface GroupBoxProps {
  group: Group;
  onChange: (next: Group) => void;
  choices: Choices;
  inner?: boolean;
}

function GroupBox({ group, onChange, choices, inner }: GroupBoxProps) {
  const may = useMay();
  const box = useRef<HTMLDivElement>(null);
  const added = useRef(false);
  // Who adds a condition goes on in it.
  useEffect(() => {
    if (!added.current) return;
    added.current = false;
    const last = [...(box.current?.children ?? [])].at(-2);
    last?.querySelector('button')?.focus();
  }, [group.items.length]);
  const put = (index: number, item: Condition) => onChange({ ...group, items: group.items.map((old, place) => (place === index ? item : old)) });
  const remove = (index: number) => onChange({ ...group, items: group.items.filter((_, place) => place !== index) });
  const add = (item: Condition) => {
    added.current = true;
    onChange({ ...group, items: [...group.items, item] });
  };
  const event = choices.catalogue.event[0];
  const firstTest = () => newTest(choices.catalogue.event.find((field) => field.path === 'eventType') ?? event);
  const actions = [
    { id: 'test', label: 'An attribute', icon: 'person' as const, act: () => add(newTest(undefined)) },
    { id: 'events', label: 'Events: how many, how much', icon: 'data' as const, disabled: !event, act: () => add({ kind: 'events', not: false, where: [firstTest()], measure: 'count', operator: '>=', value: '1' }) },
    { id: 'sequence', label: 'A sequence of events', icon: 'right' as const, disabled: !event, act: () => add({ kind: 'sequence', not: false, steps: [{ where: [firstTest()] }, { where: [firstTest()], within: { count: '7', unit: 'day' } }] }) },
    { id: 'segment', label: 'Another audience', icon: 'audience' as const, disabled: !may('audiences:read'), act: () => add({ kind: 'segment', not: false, id: '' }) },
    { id: 'group', label: 'A group', icon: 'folder' as const, act: () => add({ kind: 'group', not: false, all: !group.all, items: [newTest(undefined)] }) },
  ];
  return (
    <div ref={box} className="group" role="group" aria-label={group.all ? 'All of these' : 'Any of these'}>
      <div className="row tight">
        <Select
          label="How the conditions are joined"
          options={[{ id: 'all', label: 'All of these' }, { id: 'any', label: 'Any of these' }]}
          value={group.all ? 'all' : 'any'}
          onChange={(next) => onChange({ ...group, all: next === 'all' })}
        />
        {inner && <Not value={group.not} onChange={(not) => onChange({ ...group, not })} />}
      </div>
      {group.items.map((item, index) => (
        <div key={index} className={item.kind === 'group' ? 'row' : 'condition'} style={item.kind === 'group' ? { alignItems: 'flex-start', flexWrap: 'nowrap' } : undefined}>
          {item.kind === 'group' ? <div className="grow"><Row value={item} onChange={(next) => put(index, next)} choices={choices} /></div> : (
            <>
              <Not value={item.not} onChange={(not) => put(index, { ...item, not })} />
              <Row value={item} onChange={(next) => put(index, next)} choices={choices} />
            </>
          )}
          <span className="remove"><Button kind="quiet" small icon="close" aria-label="Remove the condition" onPress={() => remove(index)} /></span>
        </div>
      ))}
      <div>
        <ActionMenu label="Add a condition" actions={actions} button={<Button small><Icon name="plus" size={14} /> Add a condition</Button>} />
      </div>
    </div>
  );
}

function Not({ value, onChange }: { value: boolean; onChange: (not: boolean) => void }) {
  return (
    <Select
      label="Whether it must hold or must not"
      options={[{ id: 'is', label: 'where' }, { id: 'not', label: 'not where' }]}
      value={value ? 'not' : 'is'}
      onChange={(next) => onChange(next === 'not')}
    />
  );
}

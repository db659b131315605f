// The rows of the builder: a test, events, a sequence, another audience.
import { useState, type ReactNode } from 'react';
import { Button as AriaButton, ComboBox, Input, ListBox, ListBoxItem, Popover } from 'react-aria-components';

import { AudienceBox } from '../audiences/Choice';
import { Button, Select } from '../ui/controls';
import { plural } from '../ui/format';
import { Icon } from '../ui/icons';
import { useSeenValues, type Catalogue, type CatalogueField } from './catalogue';
import {
  NUMERIC,
  OPERATORS,
  takesList,
  takesNothing,
  takesSpan,
  UNITS,
  type Condition,
  type Events,
  type Measure,
  type Operator,
  type Segment,
  type Sequence,
  type Span,
  type Test,
  type Type,
  type Unit,
} from './conditions';

export interface Choices {
  catalogue: Catalogue;
  /** Id of the audience that is edited: it cannot refer to itself. */
  self?: string;
}

export function newTest(field: CatalogueField | undefined): Test {
  const type = field?.type ?? 'text';
  const operator = OPERATORS[type][0].id;
  return {
    kind: 'test', not: false, path: field?.path ?? '', operator,
    values: type === 'boolean' ? [{ type, raw: 'true' }] : [],
    span: takesSpan(operator) ? { count: '30', unit: 'day' } : undefined,
  };
}

interface ComboProps {
  label: string;
  value: string;
  options: { id: string; detail?: string }[];
  onChange: (value: string) => void;
  custom?: boolean;
  className?: string;
  placeholder?: string;
}

/** A text field with suggestions; with `custom`, anything may be typed. */
function Combo({ label, value, options, onChange, custom, className = '', placeholder }: ComboProps) {
  const [typed, setTyped] = useState<string>();
  const shown = options.filter((option) => typed === undefined || option.id.toLowerCase().includes(typed.toLowerCase())).slice(0, 200);
  const take = (next: string) => {
    setTyped(undefined);
    if (next !== value) onChange(next);
  };
  return (
    <ComboBox
      aria-label={label}
      className={`combo ${className}`}
      items={shown}
      inputValue={typed ?? value}
      onInputChange={setTyped}
      onSelectionChange={(key) => key !== null && take(String(key))}
      onBlur={() => (custom && typed !== undefined ? take(typed) : setTyped(undefined))}
      allowsCustomValue={custom}
      allowsEmptyCollection={false}
      menuTrigger="focus"
    >
      <Input placeholder={placeholder ?? label} onKeyDown={(event) => event.key === 'Enter' && custom && typed !== undefined && take(typed)} />
      <AriaButton><Icon name="down" size={13} /></AriaButton>
      <Popover className="popover">
        <ListBox<{ id: string; detail?: string }>>
          {(option) => <ListBoxItem id={option.id} textValue={option.id} className="option"><code>{option.id}</code>{option.detail && <small>{option.detail}</small>}</ListBoxItem>}
        </ListBox>
      </Popover>
    </ComboBox>
  );
}

function NumberInput({ label, value, onChange }: { label: string; value: string; onChange: (value: string) => void }) {
  return <input className="short" aria-label={label} inputMode="decimal" value={value} onChange={(event) => onChange(event.target.value)} />;
}

function SpanInput({ label, span, onChange }: { label: string; span: Span; onChange: (span: Span) => void }) {
  return (
    <>
      <NumberInput label={label} value={span.count} onChange={(count) => onChange({ ...span, count })} />
      <Select label="Unit of time" options={UNITS.map((unit) => ({ id: unit, label: `${unit}s` }))} value={span.unit} onChange={(unit) => onChange({ ...span, unit: unit as Unit })} />
    </>
  );
}

interface TestRowProps {
  test: Test;
  onChange: (next: Test) => void;
  fields: CatalogueField[];
  ofEvent?: boolean;
}

export function TestRow({ test, onChange, fields, ofEvent = false }: TestRowProps) {
  const known = fields.find((field) => field.path === test.path);
  const type: Type = known?.type ?? test.values[0]?.type ?? (test.span ? 'date' : 'text');
  const operators = OPERATORS[type].some(({ id }) => id === test.operator) ? OPERATORS[type] : [...OPERATORS[type], { id: test.operator, label: test.operator }];
  const choose = (path: string) => {
    const field = fields.find((each) => each.path === path);
    onChange(field ? { ...newTest(field), not: test.not } : { ...test, path });
  };
  const operate = (operator: Operator) =>
    onChange({
      ...test,
      operator,
      values: takesNothing(operator) || takesSpan(operator) ? [] : takesList(operator) ? test.values : test.values.slice(0, 1),
      span: takesSpan(operator) ? (test.span ?? { count: '30', unit: 'day' }) : undefined,
    });
  return (
    <>
      <Combo label="Field" value={test.path} options={fields.map((field) => ({ id: field.path, detail: field.type }))} onChange={choose} />
      <Select label="Test" options={operators} value={test.operator} onChange={(next) => operate(next as Operator)} />
      {takesSpan(test.operator) && <SpanInput label="How long" span={test.span ?? { count: '30', unit: 'day' }} onChange={(span) => onChange({ ...test, span })} />}
      {!takesSpan(test.operator) && !takesNothing(test.operator) && <Values test={test} type={type} field={known} onChange={onChange} ofEvent={ofEvent} />}
    </>
  );
}

interface ValuesProps {
  test: Test;
  type: Type;
  field: CatalogueField | undefined;
  onChange: (next: Test) => void;
  ofEvent: boolean;
}

function Values({ test, type, field, onChange, ofEvent }: ValuesProps) {
  const seen = useSeenValues(field, ofEvent).map(({ value, count }) => ({ id: value, detail: count === undefined ? undefined : plural(count, 'time') }));
  const raw = test.values[0]?.raw ?? '';
  const set = (value: string) => onChange({ ...test, values: [{ type, raw: value }] });
  if (takesList(test.operator)) {
    const add = (value: string) => value !== '' && onChange({ ...test, values: [...test.values.filter((each) => each.raw !== value), { type, raw: value }] });
    return (
      <>
        {test.values.map((each) => (
          <span key={each.raw} className="chip">
            {each.raw}
            <button type="button" aria-label={`Remove ${each.raw}`} onClick={() => onChange({ ...test, values: test.values.filter((other) => other.raw !== each.raw) })}>✕</button>
          </span>
        ))}
        <Combo key={test.values.length} label="Add a value" className="value" value="" options={seen.filter(({ id }) => !test.values.some((each) => each.raw === id))} onChange={add} custom />
      </>
    );
  }
  if (type === 'boolean') {
    return <Select label="Value" options={[{ id: 'true', label: 'true' }, { id: 'false', label: 'false' }]} value={raw || 'true'} onChange={set} />;
  }
  if (type === 'number') return <NumberInput label="Value" value={raw} onChange={set} />;
  if (type === 'date') return <input type="date" aria-label="Date" value={raw} onChange={(event) => set(event.target.value)} />;
  return <Combo label="Value" className="value" value={raw} options={seen} onChange={set} custom />;
}

function Where({ tests, onChange, choices, children }: { tests: Test[]; onChange: (next: Test[]) => void; choices: Choices; children?: ReactNode }) {
  const fields = choices.catalogue.event;
  return (
    <div className="where">
      {tests.map((test, index) => (
        <div key={index} className="row tight">
          <span className="faint">{index === 0 ? 'with' : 'and'}{test.not && ' not'}</span>
          <TestRow test={test} ofEvent fields={fields} onChange={(next) => onChange(tests.map((old, place) => (place === index ? next : old)))} />
          <Button kind="quiet" small icon="close" aria-label="Remove the test" onPress={() => onChange(tests.filter((_, place) => place !== index))} />
        </div>
      ))}
      <div className="row tight">
        <Button small kind="quiet" icon="plus" onPress={() => onChange([...tests, newTest(undefined)])}>Test of the event</Button>
        {children}
      </div>
    </div>
  );
}

const MEASURES: { id: Measure; label: string }[] = [
  { id: 'count', label: 'number of events' },
  { id: 'sum', label: 'sum of' },
  { id: 'average', label: 'average of' },
  { id: 'min', label: 'smallest' },
  { id: 'max', label: 'largest' },
];

export function EventsRow({ events, onChange, choices }: { events: Events; onChange: (next: Condition) => void; choices: Choices }) {
  const numbers = choices.catalogue.event.filter((field) => field.type === 'number');
  const timed = events.where.some((test) => test.path === 'timestamp');
  const recently: Test = { kind: 'test', not: false, path: 'timestamp', operator: 'within', values: [], span: { count: '30', unit: 'day' } };
  return (
    <>
      <Select label="Measure" options={MEASURES} value={events.measure} onChange={(measure) => onChange({ ...events, measure: measure as Measure, of: measure === 'count' ? undefined : (events.of ?? numbers[0]?.path) })} />
      {events.measure !== 'count' && <Combo label="Field of the event" value={events.of ?? ''} options={numbers.map((field) => ({ id: field.path }))} onChange={(of) => onChange({ ...events, of })} />}
      <Select label="Comparison" options={OPERATORS.number.filter(({ id }) => NUMERIC.includes(id))} value={events.operator} onChange={(operator) => onChange({ ...events, operator: operator as Operator })} />
      <NumberInput label="Number" value={events.value} onChange={(value) => onChange({ ...events, value })} />
      <Where tests={events.where} onChange={(where) => onChange({ ...events, where })} choices={choices}>
        {!timed && <Button small kind="quiet" icon="schedule" onPress={() => onChange({ ...events, where: [...events.where, recently] })}>Within a time</Button>}
      </Where>
    </>
  );
}

export function SequenceRow({ sequence, onChange, choices }: { sequence: Sequence; onChange: (next: Condition) => void; choices: Choices }) {
  const put = (index: number, step: Sequence['steps'][number]) => onChange({ ...sequence, steps: sequence.steps.map((old, place) => (place === index ? step : old)) });
  return (
    <>
      <span>a sequence of {plural(sequence.steps.length, 'event')}</span>
      {sequence.steps.map((step, index) => (
        <div key={index} className="where">
          <div className="row tight">
            <strong>{index === 0 ? 'First' : 'Then'}</strong>
            {index > 0 && (step.within ? (
              <>
                <span className="muted">within</span>
                <SpanInput label="How long after the step before" span={step.within} onChange={(within) => put(index, { ...step, within })} />
                <Button small kind="quiet" onPress={() => put(index, { where: step.where })}>at any time</Button>
              </>
            ) : (
              <Button small kind="quiet" icon="schedule" onPress={() => put(index, { ...step, within: { count: '7', unit: 'day' } })}>Within a time</Button>
            ))}
            {sequence.steps.length > 1 && <Button kind="quiet" small icon="close" aria-label="Remove the step" onPress={() => onChange({ ...sequence, steps: sequence.steps.filter((_, place) => place !== index) })} />}
          </div>
          <Where tests={step.where} onChange={(where) => put(index, { ...step, where })} choices={choices} />
        </div>
      ))}
      <div className="where"><div><Button small kind="quiet" icon="plus" onPress={() => onChange({ ...sequence, steps: [...sequence.steps, { where: [newTest(choices.catalogue.event.find((field) => field.path === 'eventType') ?? choices.catalogue.event[0])], within: { count: '7', unit: 'day' } }] })}>Step</Button></div></div>
    </>
  );
}

export function SegmentRow({ segment, onChange, choices }: { segment: Segment; onChange: (next: Condition) => void; choices: Choices }) {
  return (
    <>
      <span>in the audience</span>
      <AudienceBox label="Audience" value={segment.id} without={choices.self ? [choices.self] : []} onChange={({ audienceId }) => onChange({ ...segment, id: audienceId })} />
    </>
  );
}

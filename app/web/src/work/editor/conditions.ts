// What the builder can say: conditions as data, and the PQL that they are.

export type Type = 'text' | 'number' | 'boolean' | 'date';

export interface Literal {
  type: Type;
  raw: string;
}

export type Operator =
  | '=' | '!=' | '<' | '<=' | '>' | '>=' | 'in' | 'notIn'
  | 'contains' | 'doesNotContain' | 'startsWith' | 'endsWith'
  | 'isNull' | 'isNotNull' | 'within' | 'beyond';

export const UNITS = ['minute', 'hour', 'day', 'week', 'month', 'year'] as const;
export type Unit = (typeof UNITS)[number];

export interface Span {
  count: string;
  unit: Unit;
}

/** A test of one field of a person or of an event. */
export interface Test {
  kind: 'test';
  not: boolean;
  path: string;
  operator: Operator;
  values: Literal[];
  /** For `within` and `beyond`: how far before `reference`. */
  span?: Span;
  reference?: 'now' | 'today';
}

export type Measure = 'count' | 'sum' | 'average' | 'min' | 'max';

/** A measure over the events that pass all tests. */
export interface Events {
  kind: 'events';
  not: boolean;
  where: Test[];
  measure: Measure;
  of?: string;
  operator: Operator;
  value: string;
}

/** Events that follow one another, each within a time after the one before. */
export interface Sequence {
  kind: 'sequence';
  not: boolean;
  steps: { where: Test[]; within?: Span }[];
}

/** Membership in another audience. */
export interface Segment {
  kind: 'segment';
  not: boolean;
  id: string;
}

export interface Group {
  kind: 'group';
  not: boolean;
  all: boolean;
  items: Condition[];
}

export type Condition = Test | Events | Sequence | Segment | Group;

export const OPERATORS: Record<Type, { id: Operator; label: string }[]> = {
  text: [
    { id: '=', label: 'is' },
    { id: '!=', label: 'is not' },
    { id: 'in', label: 'is one of' },
    { id: 'notIn', label: 'is none of' },
    { id: 'contains', label: 'contains' },
    { id: 'doesNotContain', label: 'does not contain' },
    { id: 'startsWith', label: 'starts with' },
    { id: 'endsWith', label: 'ends with' },
    { id: 'isNotNull', label: 'is known' },
    { id: 'isNull', label: 'is not known' },
  ],
  number: [
    { id: '=', label: 'is' },
    { id: '!=', label: 'is not' },
    { id: '>', label: 'is more than' },
    { id: '>=', label: 'is at least' },
    { id: '<', label: 'is less than' },
    { id: '<=', label: 'is at most' },
    { id: 'in', label: 'is one of' },
    { id: 'isNotNull', label: 'is known' },
    { id: 'isNull', label: 'is not known' },
  ],
  boolean: [
    { id: '=', label: 'is' },
    { id: 'isNotNull', label: 'is known' },
    { id: 'isNull', label: 'is not known' },
  ],
  date: [
    { id: 'within', label: 'is in the last' },
    { id: 'beyond', label: 'is at least … ago' },
    { id: '>=', label: 'is on or after' },
    { id: '<', label: 'is before' },
    { id: 'isNotNull', label: 'is known' },
    { id: 'isNull', label: 'is not known' },
  ],
};

export const NUMERIC: Operator[] = ['=', '!=', '>', '>=', '<', '<='];

export const takesNothing = (operator: Operator) => operator === 'isNull' || operator === 'isNotNull';
export const takesList = (operator: Operator) => operator === 'in' || operator === 'notIn';
export const takesSpan = (operator: Operator) => operator === 'within' || operator === 'beyond';

export const quote = (text: string) => `"${text.replaceAll('\\', '\\\\').replaceAll('"', '\\"')}"`;

function literal({ type, raw }: Literal): string {
  if (type === 'text') return quote(raw);
  if (type === 'boolean') return raw === 'false' ? 'false' : 'true';
  if (type === 'date') {
    const [year, month, day] = raw.split('-').map(Number);
    return `date(${year || 2000}, ${month || 1}, ${day || 1})`;
  }
  return number(raw);
}

const number = (raw: string) => (Number.isFinite(Number(raw)) && raw.trim() !== '' ? String(Number(raw)) : '0');

const span = ({ count, unit }: Span) => `${number(count)} ${unit}${count === '1' ? '' : 's'}`;

function writeTest(test: Test): string {
  const first = test.values[0] ?? { type: 'text', raw: '' };
  switch (test.operator) {
    case 'isNull':
    case 'isNotNull':
      return `${test.path}.${test.operator}()`;
    case 'contains':
    case 'doesNotContain':
    case 'startsWith':
    case 'endsWith':
      return `${test.path}.${test.operator}(${literal(first)})`;
    case 'in':
    case 'notIn':
      return `${test.path} ${test.operator} [${test.values.map(literal).join(', ')}]`;
    case 'within':
    case 'beyond':
      return `${test.path} occurs ${test.operator === 'within' ? '<=' : '>='} ${span(test.span ?? { count: '30', unit: 'day' })} before ${test.reference ?? 'now'}`;
    default:
      return `${test.path} ${test.operator} ${literal(first)}`;
  }
}

const all = (tests: Test[]) => tests.map((test) => negated(writeTest(test), test.not)).join(' and ');

const negated = (text: string, not: boolean) => (not ? `not (${text})` : text);

function writeBare(condition: Condition, depth: number): string {
  switch (condition.kind) {
    case 'test':
      return writeTest(condition);
    case 'events': {
      const events = condition.where.length ? `xEvent[${all(condition.where)}]` : 'xEvent';
      const argument = condition.measure === 'count' ? '' : (condition.of ?? '');
      return `${events}.${condition.measure}(${argument}) ${condition.operator} ${number(condition.value)}`;
    }
    case 'sequence': {
      const steps = condition.steps.map(({ where, within }, index) => {
        const when = within && index > 0 ? ` WHEN(<= ${span(within)} after S${index})` : '';
        return `S${index + 1}: WHAT(${all(where) || 'true'})${when}`;
      });
      return `CHAIN(xEvent, timestamp, [${steps.join(', ')}])`;
    }
    case 'segment':
      return `inSegment(${quote(condition.id)})`;
    case 'group': {
      const joint = `\n${'  '.repeat(depth)}${condition.all ? 'and' : 'or'} `;
      return condition.items.map((item) => write(item, depth + 1)).join(joint);
    }
  }
}

/** The PQL of a condition; groups inside of others stand in parentheses. */
export function write(condition: Condition, depth = 0): string {
  const text = writeBare(condition, depth);
  if (condition.not) return `not (${text})`;
  return condition.kind === 'group' && depth > 0 && condition.items.length > 1 ? `(${text})` : text;
}

/** Whether a condition lacks something that the language needs; then there is nothing to write yet. */
export function isWhole(condition: Condition): boolean {
  switch (condition.kind) {
    case 'test':
      return condition.path !== '' && (takesNothing(condition.operator) || takesSpan(condition.operator) || (condition.values.length > 0 && condition.values.every(({ type, raw }) => type === 'text' || raw !== '')));
    case 'events':
      return condition.where.every(isWhole) && condition.value !== '' && (condition.measure === 'count' || Boolean(condition.of));
    case 'sequence':
      return condition.steps.length > 0 && condition.steps.every((step) => step.where.length > 0 && step.where.every(isWhole));
    case 'segment':
      return condition.id !== '';
    case 'group':
      return condition.items.length > 0 && condition.items.every(isWhole);
  }
}

// From pql/json, as the server writes it, to the conditions of the builder; or why the builder cannot show a text.
import {
  NUMERIC,
  UNITS,
  type Condition,
  type Events,
  type Literal,
  type Measure,
  type Operator,
  type Segment,
  type Sequence,
  type Span,
  type Test,
  type Unit,
} from './conditions';
import { count, written } from '../ui/format';

type Node = { nodeType: string } & Record<string, unknown>;

/** What is written goes beyond the builder; the message names the construct. */
export class Beyond extends Error {}

const MEASURES = ['count', 'sum', 'average', 'min', 'max'];
const TEXT_TESTS = ['contains', 'doesNotContain', 'startsWith', 'endsWith'];

const params = (node: Node) => node.params as Node[];
const isCall = (node: Node, ...names: string[]) => node.nodeType === 'fnApply' && names.includes(node.fnName as string);

/** The path of a field of the person, or inside of events of the event; undefined when it is none. */
function path(node: Node): string | undefined {
  if (node.nodeType === 'nameReference') return written(node.name as string);
  if (node.nodeType !== 'fieldLookup') return undefined;
  const object = node.object as Node;
  const name = written(node.fieldName as string);
  if (object.nodeType === 'parameterReference') return name;
  const outer = path(object);
  return outer === undefined ? undefined : `${outer}.${name}`;
}

function mustPath(node: Node): string {
  const read = path(node);
  if (read === undefined) throw new Beyond('it computes a value before testing it');
  return read;
}

function literals(node: Node): Literal[] {
  if (isCall(node, 'date')) {
    const parts = params(node).map((part) => part.value);
    if (parts.length === 3 && parts.every(Number.isInteger)) {
      const [year, month, day] = parts as number[];
      const two = (part: number) => String(part).padStart(2, '0');
      return [{ type: 'date', raw: `${String(year).padStart(4, '0')}-${two(month)}-${two(day)}` }];
    }
  }
  if (node.nodeType !== 'literal') throw new Beyond('it compares fields with one another');
  const values = Array.isArray(node.value) ? (node.value as unknown[]) : [node.value];
  return values.map((value) => {
    if (typeof value === 'string') return { type: 'text', raw: value };
    if (typeof value === 'number') return { type: 'number', raw: String(value) };
    if (typeof value === 'boolean') return { type: 'boolean', raw: String(value) };
    throw new Beyond('it has a list of mixed values');
  });
}

function span(node: Node): Span {
  const count = node.count as Node;
  if (typeof count.value !== 'number' || !UNITS.includes(node.unit as Unit)) throw new Beyond('it computes a distance in time');
  return { count: String(count.value), unit: node.unit as Unit };
}

function test(node: Node): Test {
  const base = { kind: 'test', not: false, values: [] as Literal[] } as const;
  if (isCall(node, 'not')) {
    const inner = test(params(node)[0]);
    return { ...inner, not: !inner.not };
  }
  if (node.nodeType === 'occursWithin') {
    const reference = (node.reference as Node).word;
    if (node.direction !== 'before' || (reference !== 'now' && reference !== 'today')) throw new Beyond('it measures time from something else than now');
    const operator: Operator | undefined = node.operator === '<=' ? 'within' : node.operator === '>=' ? 'beyond' : undefined;
    if (!operator) throw new Beyond(`it has \`occurs ${String(node.operator)}\``);
    return { ...base, path: mustPath(node.time as Node), operator, span: span(node), reference };
  }
  if (isCall(node, 'isNull', 'isNotNull')) return { ...base, path: mustPath(params(node)[0]), operator: node.fnName as Operator };
  if (isCall(node, 'in', 'notIn', ...NUMERIC)) {
    const [left, right] = params(node);
    return { ...base, path: mustPath(left), operator: node.fnName as Operator, values: literals(right) };
  }
  if (isCall(node, ...TEXT_TESTS)) {
    if (params(node).length > 2) throw new Beyond('it tests text without regard to case');
    const [left, right] = params(node);
    return { ...base, path: mustPath(left), operator: node.fnName as Operator, values: literals(right) };
  }
  if (node.nodeType === 'fnApply') throw new Beyond(`it uses \`${String(node.fnName)}\``);
  if (path(node) !== undefined) throw new Beyond(`\`${path(node)}\` alone is not a comparison`);
  throw new Beyond(`it uses \`${node.nodeType}\``);
}

const tests = (node: Node): Test[] => (isCall(node, 'and') ? params(node).map(test) : [test(node)]);

function isEvents(node: Node): boolean {
  return path(node) === 'xEvent';
}

function events(node: Node): Events | undefined {
  if (!isCall(node, ...NUMERIC)) return undefined;
  const [left, right] = params(node);
  if (!isCall(left, ...MEASURES)) return undefined;
  const [array, of] = params(left);
  const filtered = array.nodeType === 'index';
  if (!isEvents(filtered ? (array.array as Node) : array)) return undefined;
  if (right.nodeType !== 'literal' || typeof right.value !== 'number') throw new Beyond('it compares what it counts with a field');
  return {
    kind: 'events',
    not: false,
    where: filtered ? tests(array.condition as Node) : [],
    measure: left.fnName as Measure,
    of: of && mustPath(of),
    operator: node.fnName as Operator,
    value: String(right.value),
  };
}

function sequence(node: Node): Sequence {
  if (!isEvents(node.array as Node) || path(node.time as Node) !== 'timestamp') throw new Beyond('its sequence is not one of events by their time');
  const steps = (node.steps as { label: string; what: Node; when?: Node }[]).map((step, index, every) => {
    const always = step.what.nodeType === 'literal' && step.what.value === true;
    if (always) throw new Beyond('it has a step without a condition');
    if (!step.when) return { where: tests(step.what) };
    const when = step.when;
    const previous = every[index - 1]?.label;
    if (when.nodeType !== 'occursWithin' || when.operator !== '<=' || when.direction !== 'after' || (when.reference as Node).varName !== previous) {
      throw new Beyond('a step of its sequence measures time from something else than the step before');
    }
    return { where: tests(step.what), within: span(when) };
  });
  return { kind: 'sequence', not: false, steps };
}

function segment(node: Node): Segment {
  const id = params(node)[0].value;
  if (typeof id !== 'string') throw new Beyond('it computes the id of an audience');
  return { kind: 'segment', not: false, id };
}

function condition(node: Node): Condition {
  if (isCall(node, 'not')) {
    const inner = condition(params(node)[0]);
    return { ...inner, not: !inner.not };
  }
  if (isCall(node, 'and', 'or')) return { kind: 'group', not: false, all: node.fnName === 'and', items: params(node).map(condition) };
  if (isCall(node, 'inSegment')) return segment(node);
  if (node.nodeType === 'chain') return sequence(node);
  return events(node) ?? test(node);
}

/** Each condition is a row of fields; with thousands of rows the page no longer answers. */
const MOST = 200;

const total = (sizes: number[]) => sizes.reduce((sum, each) => sum + each, 0);

function size(whole: Condition): number {
  if (whole.kind === 'group') return total(whole.items.map(size));
  if (whole.kind === 'events') return 1 + whole.where.length;
  return whole.kind === 'sequence' ? total(whole.steps.map((step) => step.where.length)) : 1;
}

/** Conditions of a pql/json text, always as a group at the top. Raises `Beyond`. */
export function read(json: string): Extract<Condition, { kind: 'group' }> {
  const whole = condition(JSON.parse(json) as Node);
  const conditions = size(whole);
  if (conditions > MOST) throw new Beyond(`it has ${count(conditions)} conditions, and the builder shows up to ${MOST}`);
  return whole.kind === 'group' && !whole.not ? whole : { kind: 'group', not: false, all: true, items: [whole] };
}

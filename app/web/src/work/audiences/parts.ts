// The parts of an expression, from pql/json, and how many people each of them holds for.
import type { Client } from '@urql/core';

import { ConvertExpressionDocument, ExpressionTextDocument, SizesDocument, type PeopleInput } from '../api/operations';

type Node = { nodeType: string; fnName?: string; params?: Node[] };

export interface Part {
  text: string;
  /** How many `and`, `or` and `not` are around it. */
  depth: number;
  /** The word between it and the part before it of the same depth. */
  joined?: string;
  count: number;
}

export interface Parts {
  parts: Part[];
  /** False when computed from a sample. */
  exact: boolean;
  /** How many parts have no count, since there are too many of them or they are too long. */
  omitted: number;
}

const CONNECTIVES = ['and', 'or', 'not'];
const MOST_PARTS = 24;
/** As many as one overlap takes. */
const AT_ONCE = 8;
/** Characters of a text that the API takes. */
const LONGEST = 100_000;

interface Placed {
  node: Node;
  depth: number;
  joined?: string;
}

/** The node, then the parts that `and`, `or` and `not` put together, from left to right. */
function placed(node: Node, depth = 0, joined?: string): Placed[] {
  const connective = node.nodeType === 'fnApply' && CONNECTIVES.includes(node.fnName ?? '') ? node.fnName : undefined;
  const inner = connective ? (node.params ?? []) : [];
  return [{ node, depth, joined }, ...inner.flatMap((each, index) => placed(each, depth + 1, index > 0 ? connective : undefined))];
}

/** Evaluates every part of a PQL text now, for people of a merge policy. Raises `Error` with what speaks against it. */
export async function countParts(client: Client, expression: string, mergePolicyId?: string): Promise<Parts> {
  const converted = (await read(client.query(ConvertExpressionDocument, { expression }).toPromise())).pql.convert;
  if (converted.expression === null) throw new Error(converted.diagnostics.map((each) => each.message).join('\n'));
  const every = placed(JSON.parse(converted.expression) as Node);
  const short = (each: Placed) => JSON.stringify(each.node).length <= LONGEST;
  // The whole has a text already.
  const shown = every.slice(0, MOST_PARTS).filter((each, index) => index === 0 || short(each));
  const texts = await Promise.all(shown.map((each) => (short(each) ? textOf(client, each.node) : expression)));
  const counts: number[] = [];
  let exact = true;
  for (let from = 0; from < texts.length; from += AT_ONCE) {
    const chunk = texts.slice(from, from + AT_ONCE);
    const people: PeopleInput[] = chunk.map((text) => ({ expression: text }));
    // An overlap is one of two at least.
    if (people.length === 1) people.push(people[0]);
    const { overlap } = await read(client.query(SizesDocument, { people, mergePolicyId }, { requestPolicy: 'network-only' }).toPromise());
    if (overlap.error) throw new Error(overlap.error.message);
    counts.push(...overlap.sizes.slice(0, chunk.length));
    exact &&= overlap.exact;
  }
  const parts = shown.map(({ depth, joined }, index) => ({ text: texts[index], depth, joined, count: counts[index] }));
  return { parts, exact, omitted: every.length - shown.length };
}

async function textOf(client: Client, node: Node): Promise<string> {
  const { expression, diagnostics } = (await read(client.query(ExpressionTextDocument, { expression: JSON.stringify(node) }).toPromise())).pql.convert;
  if (expression === null) throw new Error(diagnostics.map((each) => each.message).join('\n'));
  return expression;
}

async function read<Data>(answer: Promise<{ data?: Data; error?: Error }>): Promise<Data> {
  const { data, error } = await answer;
  if (data === undefined || data === null) throw error ?? new Error('No answer.');
  return data;
}

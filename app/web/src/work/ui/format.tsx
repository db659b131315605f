// Times, values and names as people read them.
import { useEffect, useState } from 'react';

import { ago, exactly } from './numbers';

export * from './numbers';

const moment = new Intl.DateTimeFormat('en-GB', { dateStyle: 'medium', timeStyle: 'short' });
const exact = new Intl.DateTimeFormat('en-GB', { dateStyle: 'full', timeStyle: 'long' });

export const momentOf = (at: string) => moment.format(new Date(at));

/** The time that passes, once a `period` of milliseconds. */
export function useNow(period: number): number {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), period);
    return () => clearInterval(timer);
  }, [period]);
  return now;
}

export function Time({ at, full }: { at: string; full?: boolean }) {
  const now = useNow(10_000);
  const date = new Date(at);
  return (
    <time dateTime={at} title={exact.format(date)} className="nowrap">
      {full ? moment.format(date) : ago(date, now)}
    </time>
  );
}

/** `SEGMENT_DEFINITION` as `Segment definition`. */
export function words(constant: string): string {
  const text = constant.toLowerCase().replaceAll('_', ' ');
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** A value of a profile or an event, on one line. */
export function value(item: unknown): string {
  if (item === null || item === undefined) return '–';
  if (typeof item === 'number') return exactly(item);
  if (typeof item === 'string') return item;
  if (typeof item === 'boolean') return item ? 'yes' : 'no';
  return JSON.stringify(item);
}

/** The names of a path as the server writes it, such as `home.city`; those in backquotes may contain dots. */
export const namesOf = (path: string) => [...path.matchAll(/`((?:[^`]|``)+)`|([^.`][^.]*)/g)].map(([, quoted, plain]) => quoted?.replaceAll('``', '`') ?? plain);

/** A path where people read it, without backquotes. */
export const plainPath = (path: string) => namesOf(path).join('.');

/** The value at a path. */
export const at = (item: unknown, path: string): unknown =>
  namesOf(path).reduce<unknown>((above, name) => (above && typeof above === 'object' && Object.hasOwn(above, name) ? (above as Record<string, unknown>)[name] : undefined), item);

const WORDS = new Set('and exists false forall from in let like not notin now null occurs or over select today tomorrow true what when where yesterday'.split(' '));

/** A name in a path, as the server writes it. */
export const written = (name: string) => (/^[\p{L}_][\p{L}\p{N}_]*$/u.test(name) && !WORDS.has(name.toLowerCase()) ? name : `\`${name.replaceAll('`', '``')}\``);

/** The beginning of a long text, by characters: none is cut in half. */
export function clipped(text: string, most: number): string {
  const characters = [...text];
  return characters.length > most ? `${characters.slice(0, most - 1).join('')}…` : text;
}

/** A name in a line with other text, where no element can hold it: a script from right to left does not turn the rest around. */
export const isolated = (name: string) => `\u2068${name}\u2069`;

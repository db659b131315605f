// Numbers, times and sizes as people read them.
import { useEffect, useState } from 'react';

const whole = new Intl.NumberFormat('en');
const compact = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 });
const moment = new Intl.DateTimeFormat('en-GB', { dateStyle: 'medium', timeStyle: 'short' });
const exact = new Intl.DateTimeFormat('en-GB', { dateStyle: 'full', timeStyle: 'long' });
const relative = new Intl.RelativeTimeFormat('en', { numeric: 'auto', style: 'short' });

export const momentOf = (at: string) => moment.format(new Date(at));
export const count = (value: number) => whole.format(value);
export const short = (value: number) => (Math.abs(value) < 10_000 ? whole.format(value) : compact.format(value));
export const percent = (value: number) =>
  `${(value * 100).toLocaleString('en', { maximumFractionDigits: value !== 0 && Math.abs(value) < 0.1 ? 1 : 0 })}%`;
export const plural = (value: number, one: string, many = `${one}s`) => `${count(value)} ${value === 1 ? one : many}`;

export function bytes(value: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let rank = 0;
  while (value >= 1_000 && rank < units.length - 1) {
    value /= 1_000;
    rank += 1;
  }
  return `${value < 10 && rank > 0 ? value.toFixed(1) : Math.round(value)} ${units[rank]}`;
}

export function duration(ms: number): string {
  if (ms < 1_000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1_000).toFixed(ms < 10_000 ? 1 : 0)} s`;
  if (ms < 3_600_000) return `${Math.floor(ms / 60_000)} min ${Math.round((ms % 60_000) / 1_000)} s`;
  return `${Math.floor(ms / 3_600_000)} h ${Math.round((ms % 3_600_000) / 60_000)} min`;
}

const STEPS: [Intl.RelativeTimeFormatUnit, number][] = [
  ['year', 31_557_600], ['month', 2_629_800], ['day', 86_400], ['hour', 3_600], ['minute', 60], ['second', 1],
];

export function ago(date: Date, now: number): string {
  const seconds = (date.getTime() - now) / 1_000;
  if (Math.abs(seconds) < 5) return 'just now';
  const [unit, size] = STEPS.find(([, size]) => Math.abs(seconds) >= size) ?? STEPS[STEPS.length - 1];
  return relative.format(Math.round(seconds / size), unit);
}

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
  if (typeof item === 'number') return whole.format(item);
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

// Numbers, shares, sizes and spans of time as people read them. What is small or nearly all is not rounded to none or all.
const whole = new Intl.NumberFormat('en');
const precise = new Intl.NumberFormat('en', { maximumFractionDigits: 15 });
const compact = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 });
const relative = new Intl.RelativeTimeFormat('en', { numeric: 'auto', style: 'short' });

export const count = (value: number) => whole.format(value);
/** With all of its digits. */
export const exactly = (value: number) => precise.format(value);
export const short = (value: number) => (Math.abs(value) < 10_000 ? whole.format(value) : compact.format(value));
export const plural = (value: number, one: string, many = `${one}s`) => `${count(value)} ${value === 1 ? one : many}`;

export function percent(value: number): string {
  const size = Math.abs(value * 100);
  if (size > 0 && size < 0.05) return `${value < 0 ? '−' : ''}<0.1%`;
  if (size >= 99.5 && size < 100) return `${value < 0 ? '−' : ''}>99%`;
  return `${(value * 100).toLocaleString('en', { maximumFractionDigits: size < 10 ? 1 : 0 })}%`;
}

export function bytes(value: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let rank = 0;
  while (value >= 999.5 && rank < units.length - 1) {
    value /= 1_000;
    rank += 1;
  }
  return `${value < 9.95 && rank > 0 ? value.toFixed(1) : Math.round(value)} ${units[rank]}`;
}

export function duration(ms: number): string {
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  if (ms < 59_500) return `${(ms / 1_000).toFixed(ms < 9_950 ? 1 : 0)} s`;
  const seconds = Math.round(ms / 1_000);
  if (seconds < 3_600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  const minutes = Math.round(ms / 60_000);
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

const STEPS: [Intl.RelativeTimeFormatUnit, number][] = [
  ['year', 31_557_600], ['month', 2_629_800], ['day', 86_400], ['hour', 3_600], ['minute', 60], ['second', 1],
];

export function ago(date: Date, now: number): string {
  const seconds = (date.getTime() - now) / 1_000;
  if (Math.abs(seconds) < 5) return 'just now';
  // As the largest unit of which there is one, rounded: an hour rather than 60 minutes.
  const [unit, size] = STEPS.find(([, size], place) => {
    const smaller = STEPS[place + 1]?.[1] ?? size;
    return Math.round(Math.abs(seconds) / smaller) * smaller >= size;
  }) ?? STEPS[STEPS.length - 1];
  return relative.format(Math.sign(seconds) * Math.max(1, Math.round(Math.abs(seconds) / size)), unit);
}

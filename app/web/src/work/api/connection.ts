// Whether the server answers. Everything that asks it reports here; while it is lost, one probe looks for it.
import { useSyncExternalStore } from 'react';

import { HEALTH } from '../../shared/address';

export interface Connection {
  state: 'online' | 'lost' | 'unauthorized';
  /** Since when the server has been lost. */
  since: number;
  /** How many times it came back: a change means that what is on the page may be old. */
  epoch: number;
}

const PAUSES = [500, 1_000, 2_000, 3_000, 5_000];

let current: Connection = { state: 'online', since: 0, epoch: 0 };
let probing = false;
const listeners = new Set<() => void>();
/** Within so many milliseconds of each other, the server's and the socket's return are one. */
const AT_ONCE = 2_000;
let renewed = -Infinity;

function become(next: Connection): void {
  if (next.epoch !== current.epoch) renewed = performance.now();
  current = next;
  listeners.forEach((listener) => listener());
}

export function reportLost(): void {
  if (current.state !== 'lost') become({ ...current, state: 'lost', since: Date.now() });
  if (!probing) void probe();
}

export function reportAnswer(): void {
  if (current.state === 'lost') become({ state: 'online', since: 0, epoch: current.epoch + 1 });
}

/** The socket was away for a while: what the streams would have said meanwhile is unknown. */
export function reportGap(): void {
  if (current.state === 'lost') reportAnswer();
  else if (performance.now() - renewed > AT_ONCE) become({ ...current, epoch: current.epoch + 1 });
}

/** Waits for some milliseconds, or until the server is back. */
export function pause(milliseconds: number): Promise<void> {
  const { epoch } = current;
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      listeners.delete(look);
      resolve();
    };
    const look = () => {
      if (current.epoch !== epoch) end();
    };
    const timer = setTimeout(end, milliseconds);
    listeners.add(look);
  });
}

export function reportUnauthorized(): void {
  if (current.state !== 'unauthorized') become({ ...current, state: 'unauthorized', since: Date.now() });
}

export function reportAuthorized(): void {
  if (current.state === 'unauthorized') become({ state: 'online', since: 0, epoch: current.epoch + 1 });
}

/** The socket closed, or a request broke off: perhaps only that. */
export async function lookAgain(): Promise<void> {
  if (!(await alive())) reportLost();
}

async function probe(): Promise<void> {
  probing = true;
  for (let turn = 0; current.state === 'lost'; turn += 1) {
    await new Promise((resolve) => setTimeout(resolve, PAUSES[Math.min(turn, PAUSES.length - 1)]));
    if (await alive()) reportAnswer();
  }
  probing = false;
}

async function alive(): Promise<boolean> {
  try {
    return (await fetch(HEALTH, { cache: 'no-store', signal: AbortSignal.timeout(5_000) })).ok;
  } catch {
    return false;
  }
}

export function useConnection(): Connection {
  return useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => current,
  );
}

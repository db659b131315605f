// Short messages of what was done, at the bottom right; read out by screen readers.
import { Link, type LinkProps } from '@tanstack/react-router';
import { useSyncExternalStore } from 'react';

interface Toast {
  id: number;
  text: string;
  tone?: 'bad';
  link?: { label: string; to: string };
}

const SECONDS = 7;
let toasts: Toast[] = [];
let last = 0;
const listeners = new Set<() => void>();

function become(next: Toast[]): void {
  toasts = next;
  listeners.forEach((listener) => listener());
}

const dismiss = (id: number) => become(toasts.filter((toast) => toast.id !== id));

export function say(text: string, options: Omit<Toast, 'id' | 'text'> = {}): void {
  const id = (last += 1);
  become([...toasts.slice(-3), { id, text, ...options }]);
  if (options.tone !== 'bad') setTimeout(() => dismiss(id), SECONDS * 1_000);
}

/** Runs `act` and says what went wrong. */
export async function attempt(act: () => Promise<void>): Promise<void> {
  try {
    await act();
  } catch (error) {
    say((error as Error).message, { tone: 'bad' });
  }
}

export function Toasts() {
  const shown = useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => toasts,
  );
  return (
    <div className="toasts" role="status" aria-live="polite">
      {shown.map((toast) => (
        <div key={toast.id} className={toast.tone ? `toast ${toast.tone}` : 'toast'}>
          <span>{toast.text}</span>
          {toast.link && <Link to={toast.link.to as LinkProps['to']}>{toast.link.label}</Link>}
          <button type="button" aria-label="Dismiss" onClick={() => dismiss(toast.id)}>✕</button>
        </div>
      ))}
    </div>
  );
}

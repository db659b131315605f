// What views are put together from: heads, states of loading and failing, badges, progress.
import { Link, type LinkProps } from '@tanstack/react-router';
import type { CombinedError } from '@urql/core';
import { type ReactNode, useEffect } from 'react';

import type { JobStatus, LifecycleState } from '../api/operations';
import { useMay } from '../api/permissions';
import { lackOf, problemOf } from '../api/problem';
import { Button } from './controls';
import { count, percent, short, words } from './format';

interface HeadProps {
  title: string;
  about?: ReactNode;
  back?: { label: string; to: string };
  badges?: ReactNode;
  children?: ReactNode;
}

export function Head({ title, about, back, badges, children }: HeadProps) {
  useEffect(() => {
    document.title = `${title} · Segmentation Gateway`;
  }, [title]);
  return (
    <header className="head">
      <div className="grow">
        {back && <Link to={back.to as LinkProps['to']} className="crumb">← {back.label}</Link>}
        <div className="row">
          <h1>{title}</h1>
          {badges}
        </div>
        {about && <div className="about">{about}</div>}
      </div>
      {children && <div className="actions">{children}</div>}
    </header>
  );
}

export function Skeleton({ lines = 6 }: { lines?: number }) {
  return (
    <div className="stack" role="status" aria-label="Loading">
      {Array.from({ length: lines }, (_, line) => (
        <div key={line} className="skeleton" style={{ width: `${95 - ((line * 37) % 50)}%` }} />
      ))}
    </div>
  );
}

export function Failure({ error, again }: { error: CombinedError | Error; again?: () => void }) {
  return (
    <div className="note row" role="alert">
      <span className="grow lines">{problemOf(error)}</span>
      {again && <Button small onPress={again}>Try again</Button>}
    </div>
  );
}

/** In the place of what needs permissions that the caller lacks; `brief` where there is no room for a sentence. */
export function Withheld({ needs, brief = false }: { needs: string[]; brief?: boolean }) {
  const may = useMay();
  const lacking = needs.filter((permission) => !may(permission));
  const sentence = lackOf(...(lacking.length > 0 ? lacking : needs));
  return brief ? <span className="faint" title={sentence}>no permission</span> : <p className="muted">{sentence}</p>;
}

/** What it takes permissions to see; in its place, which of them are missing. */
export function Readable({ needs, children }: { needs: string[]; children: ReactNode }) {
  return needs.every(useMay()) ? children : <Withheld needs={needs} />;
}

export function Empty({ title, children, actions }: { title: string; children?: ReactNode; actions?: ReactNode }) {
  return (
    <div className="empty">
      <h2>{title}</h2>
      {children && <p>{children}</p>}
      {actions && <div className="row">{actions}</div>}
    </div>
  );
}

const JOB_TONES: Record<JobStatus, string> = {
  NEW: 'blue', QUEUED: 'blue', PROCESSING: 'accent', SUCCEEDED: 'good', FAILED: 'bad', CANCELLING: 'warn', CANCELLED: '',
};

export const isLive = (status: JobStatus) => ['NEW', 'QUEUED', 'PROCESSING', 'CANCELLING'].includes(status);

export function JobBadge({ status }: { status: JobStatus }) {
  return (
    <span className={`badge ${JOB_TONES[status]}`}>
      <span className={status === 'PROCESSING' || status === 'CANCELLING' ? 'dot live' : 'dot'} />
      {words(status)}
    </span>
  );
}

const STATE_TONES: Record<LifecycleState, string> = { DRAFT: 'warn', PUBLISHED: 'good', INACTIVE: '' };

export function StateBadge({ state }: { state: LifecycleState }) {
  return <span className={`badge ${STATE_TONES[state]}`}><span className="dot" />{words(state)}</span>;
}

export function Progress({ fraction, label, tone = '' }: { fraction: number; label: string; tone?: string }) {
  const whole = Math.round(fraction * 100);
  return (
    <div className={`progress ${tone}`} role="progressbar" aria-label={label} aria-valuenow={whole} aria-valuemin={0} aria-valuemax={100}>
      <span style={{ width: `${fraction * 100}%` }} />
    </div>
  );
}

export function Figure({ name, value, children }: { name: string; value: ReactNode; children?: ReactNode }) {
  return (
    <div className="figure">
      <div className="name">{name}</div>
      <div className="value">{value}</div>
      {children && <div className="muted">{children}</div>}
    </div>
  );
}

/** A change of a size: absolute, with its share of what there was. */
export function Delta({ from, to }: { from: number; to: number }) {
  const change = to - from;
  if (change === 0) return <span className="faint">±0</span>;
  return (
    <span className={change > 0 ? 'up' : 'down'} title={from > 0 ? percent(change / from) : undefined}>
      {change > 0 ? '+' : '−'}{short(Math.abs(change))}
    </span>
  );
}

export function Bars({ items, total, text = count }: { items: { name: ReactNode; count: number; key: string }[]; total?: number; text?: (value: number) => string }) {
  const largest = total ?? Math.max(1, ...items.map((item) => item.count));
  return (
    <ul className="bars">
      {items.map((item) => (
        <li key={item.key}>
          <i style={{ width: `${(100 * item.count) / largest}%` }} />
          <span>{item.name}</span>
          <span className="numeric">{text(item.count)}</span>
        </li>
      ))}
    </ul>
  );
}

interface MoreProps {
  shown: number;
  total?: number;
  next?: string | null;
  busy: boolean;
  load: (after: string) => void;
}

/** The foot of a list that is read in pages. */
export function More({ shown, total, next, busy, load }: MoreProps) {
  return (
    <div className="more">
      <span className="numeric" role="status">{total === undefined ? count(shown) : `${count(shown)} of ${count(total)}`}</span>
      {next && <Button small onPress={() => load(next)} isDisabled={busy}>Load more</Button>}
    </div>
  );
}

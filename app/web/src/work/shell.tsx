// The frame of every view: navigation, tenant, theme, and what the connection is like.
import { Link, Outlet, useNavigate, useRouterState } from '@tanstack/react-router';
import { type RefObject, useEffect, useRef, useState, useSyncExternalStore } from 'react';
import { RouterProvider } from 'react-aria-components';
import { useClient, useSubscription } from 'urql';

import { ROOT } from '../shared/address';
import { readIdentity, writeIdentity } from '../shared/identity';
import { onThemeChange, readTheme, setTheme, type Theme } from '../shared/theme';
import { socket } from './api/client';
import { reportAuthorized, useConnection } from './api/connection';
import { useData } from './api/hooks';
import { ExportJobsUpdatedDocument, JobsUpdatedDocument, SegmentJobsUpdatedDocument, ViewerDocument, type JobStatus, type ViewerQuery } from './api/operations';
import { useMay, usePermissions } from './api/permissions';
import { problemOf } from './api/problem';
import { ActionMenu, Button, Field, FormDialog } from './ui/controls';
import { ago, useNow } from './ui/format';
import { Icon, Logo, type IconName } from './ui/icons';
import { isLive } from './ui/pieces';
import { Toasts } from './ui/toasts';

const SECTIONS: { to: string; label: string; icon: IconName }[] = [
  { to: '/audiences', label: 'Audiences', icon: 'audience' },
  { to: '/jobs', label: 'Jobs', icon: 'job' },
  { to: '/schedules', label: 'Schedules', icon: 'schedule' },
  { to: '/exports', label: 'Exports', icon: 'export' },
  { to: '/data', label: 'Data', icon: 'data' },
  { to: '/people', label: 'People', icon: 'person' },
];

export function Shell() {
  const [open, setOpen] = useState(false);
  const navigate = useNavigate();
  const pathname = useRouterState({ select: (state) => state.location.pathname });
  const main = useRef<HTMLElement>(null);
  useFocusOfView(main, pathname);
  useEffect(() => {
    setOpen(false);
    main.current?.scrollTo(0, 0);
  }, [pathname]);
  return (
    <RouterProvider navigate={(to) => void navigate({ to })} useHref={(to) => ROOT.replace(/\/$/, '') + to}>
      <div className="shell">
        <a className="skip" href="#main" onClick={(event) => { event.preventDefault(); main.current?.focus(); }}>Skip to content</a>
        <div className="topbar">
          <Button icon="menu" kind="quiet" aria-label="Navigation" aria-expanded={open} onPress={() => setOpen(!open)} />
          <span className="brand"><Logo /> Segmentation</span>
        </div>
        {open && <button type="button" className="veil" aria-label="Close navigation" onClick={() => setOpen(false)} />}
        <Side open={open} />
        <main id="main" ref={main} tabIndex={-1}>
          <ConnectionBanner />
          <Outlet />
        </main>
      </div>
      <Toasts />
    </RouterProvider>
  );
}

/** A new view is where the keyboard goes on, if the one before or the navigation had it. */
function useFocusOfView(main: RefObject<HTMLElement | null>, pathname: string) {
  const before = useRef<string>(undefined);
  useEffect(() => {
    const first = before.current === undefined || before.current === '/';
    before.current = pathname;
    if (first) return;
    // A dialog that closes gives the focus back to the button that opened it, or to nothing if that is gone.
    const timer = setTimeout(() => {
      if (!main.current?.contains(document.activeElement)) main.current?.focus({ preventScroll: true });
    }, 60);
    return () => clearTimeout(timer);
  }, [main, pathname]);
}

function Side({ open }: { open: boolean }) {
  const running = useRunning();
  return (
    <nav className="side" aria-label="Sections" data-open={open || undefined}>
      <span className="brand"><Logo /> Segmentation</span>
      {SECTIONS.map(({ to, label, icon }) => (
        <Link key={to} to={to} className="nav">
          <Icon name={icon} />
          {label}
          {to === '/jobs' && running > 0 && <span className="badge accent count"><span className="dot live" />{running}</span>}
        </Link>
      ))}
      <div className="bottom">
        <a className="nav" href={`${ROOT}graphql`}><Icon name="code" /> GraphiQL</a>
        <Tenant />
        <ThemeMenu />
      </div>
    </nav>
  );
}

/** The stream of all jobs that the caller may read; none until that is known. */
function useJobStream() {
  const permissions = usePermissions();
  const may = useMay();
  if (!permissions) return undefined;
  if (may('jobs:read')) return may('exports:read') ? JobsUpdatedDocument : SegmentJobsUpdatedDocument;
  return may('exports:read') ? ExportJobsUpdatedDocument : undefined;
}

/** How many jobs are under way, from the stream since it last came back: what ended meanwhile is not heard of. */
function useRunning(): number {
  const stream = useJobStream();
  const { epoch } = useConnection();
  const [{ data }] = useSubscription<Record<string, { id: string; status: JobStatus }>, Map<string, [JobStatus, number]>>(
    { query: stream ?? JobsUpdatedDocument, pause: !stream } as never,
    (known = new Map(), heard) => Object.values(heard).reduce((all, { id, status }) => new Map(all).set(id, [status, epoch]), known),
  );
  return data ? [...data.values()].filter(([status, since]) => isLive(status) && since === epoch).length : 0;
}

const THEMES: { id: Theme; label: string; icon: IconName }[] = [
  { id: 'system', label: 'Like the system', icon: 'screen' },
  { id: 'light', label: 'Light', icon: 'sun' },
  { id: 'dark', label: 'Dark', icon: 'moon' },
];

function ThemeMenu() {
  const theme = useSyncExternalStore(onThemeChange, readTheme);
  const current = THEMES.find(({ id }) => id === theme) ?? THEMES[0];
  return (
    <ActionMenu
      label="Theme"
      actions={THEMES.map((each) => ({ ...each, act: () => setTheme(each.id) }))}
      button={<Button kind="quiet" icon={current.icon} aria-label={`Theme: ${current.label}`}><span className="grow" style={{ textAlign: 'left' }}>Theme</span></Button>}
    />
  );
}

function Tenant() {
  const { data } = useData(ViewerDocument, {});
  const [open, setOpen] = useState(false);
  return (
    <>
      <Button kind="quiet" icon="person" onPress={() => setOpen(true)} aria-label={data ? `${data.viewer.organisation} / ${data.viewer.sandbox}: change` : 'Organisation and sandbox'}>
        <span className="grow nowrap" style={{ textAlign: 'left', overflow: 'hidden', textOverflow: 'ellipsis' }}>
          {data ? `${data.viewer.organisation} / ${data.viewer.sandbox}` : '…'}
        </span>
      </Button>
      <IdentityDialog open={open} onClose={() => setOpen(false)} />
    </>
  );
}

type Viewer = ViewerQuery['viewer'];

/** Whether what is on the page is as good for one as for the other. */
const seesTheSame = (one: Viewer, other: Viewer) =>
  one.organisation === other.organisation && one.sandbox === other.sandbox && one.permissions.join() === other.permissions.join();

function IdentityDialog({ open, onClose }: { open: boolean; onClose: () => void }) {
  const client = useClient();
  const before = useData(ViewerDocument, {}).data?.viewer;
  const [identity, setIdentity] = useState(readIdentity);
  const field = (name: keyof typeof identity) => ({
    value: identity[name] ?? '',
    onChange: (value: string) => setIdentity({ ...identity, [name]: value.trim() || undefined }),
  });
  // Another token for the same place leaves the page as it is, with what is being written there.
  const apply = async () => {
    const previous = readIdentity();
    writeIdentity(identity);
    const { data, error } = await client.query(ViewerDocument, {}, { requestPolicy: 'network-only' }).toPromise();
    if (!before || (data && !seesTheSame(before, data.viewer))) return location.reload();
    if (error) {
      writeIdentity(previous);
      throw new Error(problemOf(error));
    }
    reportAuthorized();
    socket.terminate();
    onClose();
  };
  return (
    <FormDialog title="Where you work" open={open} onClose={onClose} verb="Use these" act={apply}>
      <p className="muted">Kept in this tab only.</p>
      <Field label="Organisation" placeholder="default" {...field('organisation')} />
      <Field label="Sandbox" placeholder="prod" {...field('sandbox')} />
      <Field label="Token" hint="Sent as `authorization: Bearer …`, when the server asks who you are." type="password" {...field('token')} />
      <Field label="API key" hint="Sent as `x-api-key`." type="password" {...field('apiKey')} />
    </FormDialog>
  );
}

function ConnectionBanner() {
  const connection = useConnection();
  const now = useNow(1_000);
  const [open, setOpen] = useState(false);
  if (connection.state === 'online') return null;
  if (connection.state === 'unauthorized') {
    return (
      <div className="banner bad" role="alert">
        <span className="grow">The server does not know who you are. Give a token or an API key.</span>
        <Button small onPress={() => setOpen(true)}>Sign in</Button>
        <IdentityDialog open={open} onClose={() => setOpen(false)} />
      </div>
    );
  }
  return (
    <div className="banner" role="alert">
      <span className="dot live" />
      The server does not answer, lost {ago(new Date(connection.since), now)}. This page goes on by itself when it is back.
    </div>
  );
}

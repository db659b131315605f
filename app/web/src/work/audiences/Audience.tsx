// One audience: its head, what can be done with it, and tabs of views.
import { Link, Outlet, useNavigate, useParams, useRouterState } from '@tanstack/react-router';
import { useEffect, useRef, useState } from 'react';
import { useSubscription } from 'urql';

import { useAct, useData } from '../api/hooks';
import {
  AudiencePageDocument,
  AudienceUpdatedDocument,
  DeleteAudienceDocument,
  RunDefinitionsDocument,
  UpdateAudienceDocument,
  type AudiencePageQuery,
  type LifecycleState,
} from '../api/operations';
import { ActionMenu, Button, Confirm, May, type Action } from '../ui/controls';
import { plural, Time } from '../ui/format';
import { Icon } from '../ui/icons';
import { Empty, Failure, Head, Skeleton, StateBadge } from '../ui/pieces';
import { attempt, say } from '../ui/toasts';

export type AudienceData = NonNullable<AudiencePageQuery['audience']>;

const TABS = [
  { to: '/audiences/$id', label: 'Overview' },
  { to: '/audiences/$id/members', label: 'Members' },
  { to: '/audiences/$id/numbers', label: 'Numbers' },
  { to: '/audiences/$id/history', label: 'History' },
  { to: '/audiences/$id/overlap', label: 'Overlap' },
  { to: '/audiences/$id/use', label: 'Runs and use' },
] as const;

/** The audience that the address names; views below the frame share its answer through the cache. */
export function useAudience() {
  const { id } = useParams({ strict: false }) as { id: string };
  return { id, ...useData(AudiencePageDocument, { id }) };
}

export function AudienceFrame() {
  const { id, data, loading, error, again } = useAudience();
  const audience = data?.audience;
  useSubscription({ query: AudienceUpdatedDocument, variables: { id: audience?.id ?? '' }, pause: !audience });
  if (loading) return <div className="page"><Skeleton /></div>;
  if (!audience) {
    return (
      <div className="page">
        {error ? <Failure error={error} again={again} /> : <Empty title="There is no such audience"><Link to="/audiences">To the audiences</Link></Empty>}
      </div>
    );
  }
  return (
    <div className="page">
      <AudienceHead audience={audience} />
      <Tabs id={id} />
      <Outlet />
    </div>
  );
}

function Tabs({ id }: { id: string }) {
  const nav = useRef<HTMLElement>(null);
  const pathname = useRouterState({ select: (state) => state.location.pathname });
  // Where not all have room, the one that is open is seen.
  useEffect(() => {
    void nav.current?.querySelector('[data-status=active]')?.scrollIntoView({ block: 'nearest', inline: 'center' });
  }, [pathname]);
  return (
    <nav ref={nav} className="tabs" aria-label="Views of the audience">
      {TABS.map(({ to, label }) => (
        <Link key={to} to={to} params={{ id }} activeOptions={{ exact: true, includeSearch: false }}>{label}</Link>
      ))}
    </nav>
  );
}

function AudienceHead({ audience }: { audience: AudienceData }) {
  const act = useAct();
  const navigate = useNavigate();
  const [deleting, setDeleting] = useState(false);
  const move = (state: LifecycleState, done: string) =>
    attempt(async () => {
      await act(UpdateAudienceDocument, { input: { id: audience.id, etag: audience.etag, lifecycleState: state } });
      say(done);
    });
  const run = () =>
    attempt(async () => {
      const { createSegmentJob } = await act(RunDefinitionsDocument, { input: { definitionIds: [audience.definition!.id] } });
      say('The job has started.', { link: { label: 'Watch', to: `/jobs/${createSegmentJob.job!.jobId}` } });
    });
  const actions: Action[] = [
    audience.lifecycleState === 'PUBLISHED'
      ? { id: 'off', label: 'Deactivate', does: [UpdateAudienceDocument], act: () => move('INACTIVE', 'Deactivated: it is no longer evaluated.') }
      : { id: 'on', label: 'Publish', icon: 'check', does: [UpdateAudienceDocument], act: () => move('PUBLISHED', 'Published.') },
    { id: 'copy', label: 'Copy its id', icon: 'copy', act: () => void navigator.clipboard.writeText(audience.audienceId) },
    { id: 'delete', label: 'Delete…', icon: 'trash', danger: true, does: [DeleteAudienceDocument], act: () => setDeleting(true) },
  ];
  const remove = async () => {
    await act(DeleteAudienceDocument, { input: { id: audience.id, etag: audience.etag } });
    say(`${audience.name} deleted.`);
    void navigate({ to: '/audiences' });
  };
  const metrics = audience.metrics;
  return (
    <Head
      title={audience.name}
      back={{ label: 'Audiences', to: '/audiences' }}
      badges={
        <>
          <StateBadge state={audience.lifecycleState} />
          {audience.labels.map((label) => <span key={label} className="label-tag">{label}</span>)}
        </>
      }
      about={
        <>
          {audience.description && <>{audience.description} · </>}
          {metrics ? <><strong className="numeric">{plural(metrics.totalProfiles, 'person', 'people')}</strong>, counted <Time at={metrics.updatedAt} /></> : 'Not evaluated yet'}
        </>
      }
    >
      {audience.definition && <May act={[UpdateAudienceDocument]}><Link to="/audiences/$id/edit" params={{ id: audience.audienceId }} className="button"><Icon name="edit" /> Edit</Link></May>}
      {audience.definition && (
        <Button kind="primary" icon="job" does={[RunDefinitionsDocument]} onPress={run} isDisabled={audience.lifecycleState !== 'PUBLISHED'}>Run now</Button>
      )}
      <ActionMenu label="More actions" actions={actions} button={<Button icon="more" aria-label="More actions" />} />
      <Confirm title={`Delete ${audience.name}?`} open={deleting} onClose={() => setDeleting(false)} verb="Delete audience" act={remove}>
        The audience, its definition and its memberships go. Audiences and schedules that rely on it keep it from being deleted.
      </Confirm>
    </Head>
  );
}

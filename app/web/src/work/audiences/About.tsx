// The overview of an audience: its size, its expression and its settings.
import { Link } from '@tanstack/react-router';

import { useData } from '../api/hooks';
import { AudienceChoicesDocument } from '../api/operations';
import { count, percent, Time, words } from '../ui/format';
import { Bars, Figure, Withheld } from '../ui/pieces';
import { audiencePath } from './address';
import { useAudience } from './Audience';

export function AudienceAbout() {
  const audience = useAudience().data?.audience;
  if (!audience) return null;
  const { metrics, definition } = audience;
  return (
    <div className="split">
      <div className="stack">
        <section className="card">
          <div className="figures">
            <Figure name="People" value={metrics ? count(metrics.totalProfiles) : '–'}>
              {metrics ? <>counted <Time at={metrics.updatedAt} /></> : 'after the first run'}
            </Figure>
          </div>
        </section>
        {definition === undefined && <section className="card"><h2>Who is in it</h2><Withheld needs={['definitions:read']} /></section>}
        {definition && (
          <section className="card">
            <div className="row" style={{ marginBottom: 10 }}>
              <h2 className="grow">Who is in it</h2>
              <span className="badge">version {definition.version}</span>
            </div>
            <pre className="code" tabIndex={0}>{definition.expression}</pre>
            <Referred expression={definition.expression} />
            {definition.streamingEligibility && !definition.streamingEligibility.eligible && (
              <p className="faint" style={{ marginTop: 8 }}>Evaluated by jobs only: {definition.streamingEligibility.reasons.join('; ')}.</p>
            )}
          </section>
        )}
        {metrics && metrics.byNamespace && metrics.byNamespace.length > 0 && (
          <section className="card">
            <h2>Reachable by</h2>
            <Bars
              total={Math.max(1, metrics.totalProfiles)}
              items={metrics.byNamespace.map((each) => ({
                key: each.namespace,
                count: each.count,
                name: <>{each.namespace} <span className="faint">{percent(each.count / Math.max(1, metrics.totalProfiles))}</span></>,
              }))}
            />
          </section>
        )}
      </div>
      <aside className="card" aria-label="Settings">
        <dl className="facts">
          <dt>Kind</dt><dd>{audience.type === 'EXTERNAL_SEGMENT' ? 'Uploaded' : 'Computed'}</dd>
          <dt>Evaluated</dt><dd>{audience.evaluationMethods.map(words).join(', ') || '–'}</dd>
          <dt>Id</dt><dd className="mono">{audience.audienceId}</dd>
          <dt>Namespace</dt><dd>{audience.namespace}</dd>
          <dt>Origin</dt><dd>{words(audience.origin)}</dd>
          {audience.mergePolicy === undefined && <><dt>Merge policy</dt><dd><Withheld needs={['mergePolicies:read']} /></dd></>}
          {audience.mergePolicy && <><dt>Merge policy</dt><dd>{audience.mergePolicy.name}</dd></>}
          {audience.dataset === undefined && <><dt>Dataset</dt><dd><Withheld needs={['datasets:read']} /></dd></>}
          {audience.dataset && <><dt>Dataset</dt><dd><Link to="/data/$id" params={{ id: audience.dataset.datasetId }}>{audience.dataset.name}</Link></dd></>}
          {audience.expiresAt && <><dt>Expires</dt><dd><Time at={audience.expiresAt} full /></dd></>}
          <dt>Opt-outs</dt><dd>{audience.excludeOptOut ? 'never members' : 'not looked at'}</dd>
          {audience.folder === undefined && <><dt>Folder</dt><dd><Withheld needs={['folders:read']} /></dd></>}
          {audience.folder && <><dt>Folder</dt><dd><Link to="/audiences" search={{ folder: audience.folder.id }}>{audience.folder.name}</Link></dd></>}
          <dt>Created</dt><dd><Time at={audience.createdAt} full /> by {audience.createdBy}</dd>
          <dt>Changed</dt><dd><Time at={audience.updatedAt} full /> by {audience.lastModifiedBy}</dd>
        </dl>
      </aside>
    </div>
  );
}

/** The names of the audiences to which an expression refers by their ids. */
function Referred({ expression }: { expression: string }) {
  const ids = [...new Set([...expression.matchAll(/\binSegment\("([^"\\]+)"\)/g)].map(([, id]) => id))];
  const { data } = useData(AudienceChoicesDocument, { first: ids.length, filter: { audienceId: { in: ids } } }, { pause: ids.length === 0 });
  const referred = data?.audiences?.nodes ?? [];
  if (referred.length === 0) return null;
  return (
    <p className="muted" style={{ marginTop: 8 }}>
      Refers to {referred.map((audience, index) => <span key={audience.id}>{index > 0 && ', '}<Link to={audiencePath(audience) as never} title={audience.audienceId}><bdi>{audience.name}</bdi></Link></span>)}.
    </p>
  );
}

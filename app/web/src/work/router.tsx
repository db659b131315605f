// Every view and its address.
import {
  createRootRoute,
  createRoute,
  createRouter,
  Link,
  redirect,
  type ErrorComponentProps,
} from '@tanstack/react-router';

import { ROOT } from '../shared/address';
import { AudienceAbout } from './audiences/About';
import { AudienceFrame } from './audiences/Audience';
import { AudienceMembers } from './audiences/Members';
import { Audiences, type AudiencesSearch } from './audiences/Audiences';
import { AudienceUse } from './audiences/Use';
import { EditAudience, NewAudience } from './editor/EditorPage';
import { ExportPage } from './jobs/Export';
import { JobPage } from './jobs/Job';
import { Exports, Jobs } from './jobs/Jobs';
import { Shell } from './shell';
import { Empty, Failure, Head } from './ui/pieces';

const root = createRootRoute({
  component: Shell,
  notFoundComponent: () => (
    <div className="page">
      <Empty title="There is nothing at this address">
        <Link to="/audiences">To the audiences</Link>
      </Empty>
    </div>
  ),
});

const text = (value: unknown) => (typeof value === 'string' && value !== '' ? value : undefined);

const home = createRoute({
  getParentRoute: () => root,
  path: '/',
  beforeLoad: () => {
    throw redirect({ to: '/audiences', replace: true });
  },
});

const audiences = createRoute({
  getParentRoute: () => root,
  path: '/audiences',
  component: Audiences,
  validateSearch: (search): AudiencesSearch => ({
    q: text(search.q),
    folder: text(search.folder),
    state: text(search.state),
    sort: text(search.sort),
  }),
});

const newAudience = createRoute({ getParentRoute: () => root, path: '/audiences/new', component: NewAudience });
const editAudience = createRoute({ getParentRoute: () => root, path: '/audiences/$id/edit', component: EditAudience });
const audience = createRoute({ getParentRoute: () => root, path: '/audiences/$id', component: AudienceFrame });
const audienceAbout = createRoute({ getParentRoute: () => audience, path: '/', component: AudienceAbout });
const audienceMembers = createRoute({
  getParentRoute: () => audience,
  path: 'members',
  component: AudienceMembers,
  validateSearch: (search): { columns?: string; status?: string } => ({
    columns: text(search.columns),
    status: text(search.status),
  }),
});
const audienceUse = createRoute({ getParentRoute: () => audience, path: 'use', component: AudienceUse });

const jobs = createRoute({
  getParentRoute: () => root,
  path: '/jobs',
  component: Jobs,
  validateSearch: (search): { status?: string } => ({ status: text(search.status) }),
});
const job = createRoute({ getParentRoute: () => root, path: '/jobs/$id', component: JobPage });
const exports_ = createRoute({
  getParentRoute: () => root,
  path: '/exports',
  component: Exports,
  validateSearch: (search): { status?: string } => ({ status: text(search.status) }),
});
const export_ = createRoute({ getParentRoute: () => root, path: '/exports/$id', component: ExportPage });

function Broken({ error, reset }: ErrorComponentProps) {
  return (
    <div className="page">
      <Head title="This view failed" />
      <Failure error={error as Error} again={reset} />
    </div>
  );
}

export const router = createRouter({
  routeTree: root.addChildren([
    home,
    audiences,
    newAudience,
    editAudience,
    audience.addChildren([audienceAbout, audienceMembers, audienceUse]),
    jobs,
    job,
    exports_,
    export_,
  ]),
  basepath: ROOT,
  defaultErrorComponent: Broken,
  defaultPreload: false,
  scrollRestoration: true,
  scrollToTopSelectors: ['main'],
});

declare module '@tanstack/react-router' {
  interface Register {
    router: typeof router;
  }
}


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
import { AudienceMembers, STATUSES, type MembersSearch } from './audiences/Members';
import { AudienceNumbers } from './audiences/Numbers';
import { Audiences, STATES, type AudiencesSearch } from './audiences/Audiences';
import { AudienceHistory } from './audiences/History';
import { AudienceOverlap } from './audiences/Overlap';
import { AudienceUse } from './audiences/Use';
import { DatasetPage } from './data/Dataset';
import { Datasets } from './data/Datasets';
import { EditAudience, NewAudience } from './editor/EditorPage';
import { ExportPage } from './jobs/Export';
import { JobPage } from './jobs/Job';
import { Exports, JOB_KINDS, JOB_STATES, Jobs } from './jobs/Jobs';
import { SchedulePage, Schedules } from './jobs/Schedules';
import { ErasurePage } from './people/Erasure';
import { People } from './people/People';
import { PersonPage } from './people/Person';
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
/** What an address names that does not exist is as if it named nothing. */
const among = (value: unknown, choices: { id: string }[]) => choices.find(({ id }) => id === value && id !== 'all')?.id;
const texts = (value: unknown) => (Array.isArray(value) ? value.flatMap((each) => text(each) ?? []) : text(value)?.split(' '));
const moment = (value: unknown) => (Number.isNaN(Date.parse(String(value))) ? undefined : text(value));

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
    state: among(search.state, STATES),
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
  validateSearch: (search): MembersSearch => ({
    columns: texts(search.columns),
    status: among(search.status, STATUSES),
    where: text(search.where),
    sort: text(search.sort),
    at: moment(search.at),
  }),
});
const audienceOverlap = createRoute({
  getParentRoute: () => audience,
  path: 'overlap',
  component: AudienceOverlap,
  validateSearch: (search): { with?: string } => ({ with: text(search.with) }),
});
const audienceNumbers = createRoute({
  getParentRoute: () => audience,
  path: 'numbers',
  component: AudienceNumbers,
  validateSearch: (search): { of?: string[] } => ({
    of: Array.isArray(search.of) ? texts(search.of) : undefined,
  }),
});
const audienceHistory = createRoute({ getParentRoute: () => audience, path: 'history', component: AudienceHistory });
const audienceUse = createRoute({ getParentRoute: () => audience, path: 'use', component: AudienceUse });

const jobs = createRoute({
  getParentRoute: () => root,
  path: '/jobs',
  component: Jobs,
  validateSearch: (search): { status?: string; kind?: string } => ({ status: among(search.status, JOB_STATES), kind: among(search.kind, JOB_KINDS) }),
});
const job = createRoute({ getParentRoute: () => root, path: '/jobs/$id', component: JobPage });
const exports_ = createRoute({
  getParentRoute: () => root,
  path: '/exports',
  component: Exports,
  validateSearch: (search): { status?: string; audiences?: string } => ({
    status: among(search.status, JOB_STATES),
    audiences: text(search.audiences),
  }),
});
const export_ = createRoute({ getParentRoute: () => root, path: '/exports/$id', component: ExportPage });

const schedules = createRoute({ getParentRoute: () => root, path: '/schedules', component: Schedules });
const schedule = createRoute({ getParentRoute: () => root, path: '/schedules/$id', component: SchedulePage });
const data = createRoute({ getParentRoute: () => root, path: '/data', component: Datasets });
const dataset = createRoute({ getParentRoute: () => root, path: '/data/$id', component: DatasetPage });
const people = createRoute({
  getParentRoute: () => root,
  path: '/people',
  component: People,
  validateSearch: (search): { where?: string } => ({ where: text(search.where) }),
});
const person = createRoute({ getParentRoute: () => root, path: '/people/$id', component: PersonPage, validateSearch: (search): { why?: string } => ({ why: text(search.why) }) });
const erasure = createRoute({ getParentRoute: () => root, path: '/erasures/$id', component: ErasurePage });

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
    audience.addChildren([audienceAbout, audienceHistory, audienceMembers, audienceNumbers, audienceOverlap, audienceUse]),
    jobs,
    job,
    exports_,
    export_,
    schedules,
    schedule,
    data,
    dataset,
    people,
    person,
    erasure,
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


// The table of audiences: search, filters, order, and what can be done with several at once.
import { Link, useNavigate, useSearch } from '@tanstack/react-router';
import { useDeferredValue, useEffect, useState } from 'react';
import { Cell, Column, Row, Table, TableBody, TableHeader, type Key, type Selection } from 'react-aria-components';

import { useAct, useData } from '../api/hooks';
import {
  AudiencesDocument,
  CreateAudienceDocument,
  CreateExportDocument,
  FolderPathDocument,
  FoldersDocument,
  RunDefinitionsDocument,
  SearchAudiencesDocument,
  UpdateAudienceDocument,
  type AudienceOrder,
  type AudienceRowFragment,
  type AudienceTrendFragment,
  type LifecycleState,
} from '../api/operations';
import { useMayDo } from '../api/permissions';
import { Button, Checkbox, May, Search, Select } from '../ui/controls';
import { count, plural, Time } from '../ui/format';
import { Sparkline } from '../ui/charts';
import { Icon } from '../ui/icons';
import { Delta, Empty, Failure, Head, More, Skeleton, StateBadge, Withheld } from '../ui/pieces';
import { attempt, say } from '../ui/toasts';
import { audiencePath } from './address';
import { NewFolder } from './NewFolder';

export interface AudiencesSearch {
  q?: string;
  folder?: string;
  state?: string;
  sort?: string;
}

type ListedAudience = AudienceRowFragment & AudienceTrendFragment;

const PAGE = 50;
const ORDERS: Record<string, AudienceOrder['field']> = {
  name: 'NAME', size: 'TOTAL_PROFILES', updated: 'UPDATED_AT', created: 'CREATED_AT',
};
export const STATES = [
  { id: 'all', label: 'Any state' },
  { id: 'PUBLISHED', label: 'Published' },
  { id: 'DRAFT', label: 'Draft' },
  { id: 'INACTIVE', label: 'Inactive' },
];

interface Page {
  rows: ListedAudience[];
  folders: { id: string; name: string }[];
  /** Not to be read. */
  unfolded: boolean;
  total: number | undefined;
  next: string | null;
  loading: boolean;
  busy: boolean;
  error?: Error;
  problem?: string;
  again: () => void;
}

/** The list as it is, or what the search finds: one or the other is asked for. */
function useAudiences({ q, folder, state, sort }: AudiencesSearch, after: string | undefined): Page {
  const searching = Boolean(q);
  const [column, direction] = (sort ?? 'updated.desc').split('.');
  const list = useData(
    AudiencesDocument,
    {
      first: PAGE,
      after,
      filter: { folderId: folder, lifecycleState: state ? [state as LifecycleState] : undefined },
      orderBy: { field: ORDERS[column] ?? 'UPDATED_AT', direction: direction === 'asc' ? 'ASC' : 'DESC' },
    },
    { pause: searching },
  );
  const found = useData(SearchAudiencesDocument, { term: q ?? '', first: PAGE, after, folderId: folder }, { pause: !searching });
  const within = useData(FoldersDocument, { parentId: folder ?? null }, { pause: searching });
  const folders = (searching ? found.data?.search.nodes.filter((hit) => hit.isFolder) : within.data?.folders?.nodes) ?? [];
  const used = searching ? found : list;
  const page = searching ? found.data?.search : list.data?.audiences;
  return {
    rows: searching
      ? (found.data?.search.nodes.flatMap((hit) => (hit.node?.__typename === 'Audience' ? [hit.node] : [])) ?? [])
          .filter((row) => !state || row.lifecycleState === state)
      : (list.data?.audiences.nodes ?? []),
    folders,
    unfolded: !searching && within.data !== undefined && within.data.folders === undefined,
    // A search knows no states: how many of its hits have one is not known before all are read.
    total: searching && state ? undefined : page?.totalCount,
    next: page?.pageInfo.hasNextPage ? (page.pageInfo.endCursor ?? null) : null,
    loading: used.loading,
    busy: used.stale,
    error: used.error,
    problem: searching ? found.data?.search.error?.message : undefined,
    again: used.again,
  };
}

export function Audiences() {
  const search = useSearch({ from: '/audiences' });
  const navigate = useNavigate({ from: '/audiences' });
  const [typed, setTyped] = useState(search.q ?? '');
  const deferred = useDeferredValue(typed);
  const [after, setAfter] = useState<string>();
  const [selected, setSelected] = useState<Selection>(new Set());
  const change = (part: Partial<AudiencesSearch>) =>
    void navigate({ search: (old) => ({ ...old, ...part }), replace: true });
  useEffect(() => {
    const timer = setTimeout(() => {
      if ((search.q ?? '') !== deferred.trim()) change({ q: deferred.trim() || undefined });
    }, 180);
    return () => clearTimeout(timer);
  });
  useEffect(() => setAfter(undefined), [search.q, search.folder, search.state, search.sort]);
  const page = useAudiences(search, after);
  const chosen = page.rows.filter((row) => selected === 'all' || selected.has(row.id));
  return (
    <div className="page">
      <Head title="Audiences" about="Sets of people, computed from expressions or uploaded.">
        <NewFolder parent={search.folder} />
        <May act={[CreateAudienceDocument]}><Link to="/audiences/new" className="button primary"><Icon name="plus" /> New audience</Link></May>
      </Head>
      <div className="toolbar">
        <Search label="Search audiences" placeholder="Search: name, carts~1, segmentName:big*" value={typed} onChange={setTyped} />
        <Select label="State" options={STATES} value={search.state ?? 'all'} onChange={(state) => change({ state: state === 'all' ? undefined : state })} />
        {search.folder && <InFolder id={search.folder} leave={(parent) => change({ folder: parent })} />}
      </div>
      {page.problem && <div className="note warn" role="status">{page.problem}</div>}
      {page.error && <Failure error={page.error} again={page.again} />}
      {chosen.length > 0 && <Bulk rows={chosen} clear={() => setSelected(new Set())} />}
      {page.unfolded && <Withheld needs={['folders:read']} />}
      {page.folders.length > 0 && (
        <div className="row" style={{ marginBottom: 12 }}>
          {page.folders.map((folder) => (
            <Button key={folder.id} small icon="folder" onPress={() => change({ folder: folder.id, q: undefined })}>{folder.name}</Button>
          ))}
        </div>
      )}
      {page.loading ? <Skeleton lines={10} /> : !page.error && <AudienceTable page={page} sort={search.q ? undefined : (search.sort ?? 'updated.desc')} onSort={(sort) => change({ sort })} selected={selected} onSelect={setSelected} searching={Boolean(search.q)} />}
      {(page.rows.length > 0 || page.next) && <More shown={page.rows.length} total={page.total} next={page.next} busy={page.busy} load={setAfter} />}
    </div>
  );
}

function InFolder({ id, leave }: { id: string; leave: (parent: string | undefined) => void }) {
  const { data } = useData(FolderPathDocument, { id });
  return (
    <span className="badge">
      <Icon name="folder" size={13} /> {data?.folder === undefined ? '…' : (data.folder?.path ?? 'There is no such folder')}
      <button type="button" aria-label="Leave the folder" style={{ all: 'unset', cursor: 'pointer' }} onClick={() => leave(data?.folder?.parent?.id)}>✕</button>
    </span>
  );
}

interface TableProps {
  page: Page;
  sort?: string;
  onSort: (sort: string) => void;
  selected: Selection;
  onSelect: (selection: Selection) => void;
  searching: boolean;
}

function AudienceTable({ page, sort, onSort, selected, onSelect, searching }: TableProps) {
  const mayDo = useMayDo();
  // Several at once are chosen to do something with them.
  const selectable = [RunDefinitionsDocument, UpdateAudienceDocument, CreateExportDocument].some((each) => mayDo(each));
  const [column, direction] = (sort ?? '').split('.');
  if (page.rows.length === 0) {
    return (
      <Empty title={searching ? 'Nothing matches' : 'No audiences here yet'}>
        {searching ? 'Search knows AND, OR, NOT, "phrases", wild*cards and near~1 words.' : 'An audience is a name and an expression that says who is in it.'}
      </Empty>
    );
  }
  return (
    <div className="tablebox">
      <Table
        aria-label="Audiences"
        selectionMode={selectable ? 'multiple' : 'none'}
        selectedKeys={selected}
        onSelectionChange={onSelect}
        sortDescriptor={column ? { column, direction: direction === 'asc' ? 'ascending' : 'descending' } : undefined}
        onSortChange={(next) => onSort(`${String(next.column)}.${next.direction === 'ascending' ? 'asc' : 'desc'}`)}
      >
        <TableHeader>
          {selectable && <Column className="fit"><Checkbox slot="selection" /></Column>}
          <Column id="name" isRowHeader allowsSorting={!searching}>{(state) => <Sorted name="Name" {...state} />}</Column>
          <Column id="size" className="right" allowsSorting={!searching}>{(state) => <Sorted name="People" {...state} />}</Column>
          <Column className="middle right">Change</Column>
          <Column className="wide">History</Column>
          <Column className="middle">State</Column>
          <Column className="widest">Evaluated</Column>
          <Column className="wide">Schedule</Column>
          <Column className="wide">Labels</Column>
          <Column id="updated" className="middle fit" allowsSorting={!searching}>{(state) => <Sorted name="Updated" {...state} />}</Column>
        </TableHeader>
        <TableBody items={page.rows}>
          {(row) => (
            <Row id={row.id as Key} href={audiencePath(row)}>
              {selectable && <Cell className="fit"><Checkbox slot="selection" /></Cell>}
              <Cell className="clip">
                <span className="title">{row.name}</span>
                {row.description && <span className="sub">{row.description}</span>}
              </Cell>
              <Cell className="right">{row.metrics ? count(row.metrics.totalProfiles) : <span className="faint">not yet</span>}</Cell>
              <Cell className="middle right"><LastChange points={row.history.nodes} /></Cell>
              <Cell className="wide"><Sparkline points={row.history.nodes.map((point) => ({ at: point.at, size: point.totalProfiles }))} /></Cell>
              <Cell className="middle"><StateBadge state={row.lifecycleState} /></Cell>
              <Cell className="widest muted nowrap">{row.type === 'EXTERNAL_SEGMENT' ? 'Uploaded' : row.evaluationMethods.map((method) => method.toLowerCase()).join(', ')}</Cell>
              <Cell className="wide muted">{scheduled(row)}</Cell>
              <Cell className="wide"><span className="row tight">{row.labels.map((label) => <span key={label} className="label-tag">{label}</span>)}</span></Cell>
              <Cell className="middle fit muted"><Time at={row.updatedAt} /></Cell>
            </Row>
          )}
        </TableBody>
      </Table>
    </div>
  );
}

/** From the run before the last to the last. */
function LastChange({ points }: { points: { totalProfiles: number }[] }) {
  const [before, now] = points.slice(-2);
  return now ? <Delta from={before.totalProfiles} to={now.totalProfiles} /> : <span className="faint">–</span>;
}

function Sorted({ name, sortDirection }: { name: string; sortDirection?: string }) {
  return <>{name}{sortDirection ? (sortDirection === 'ascending' ? ' ↑' : ' ↓') : ''}</>;
}

function scheduled(row: AudienceRowFragment) {
  if (!row.schedules) return <Withheld brief needs={['schedules:read']} />;
  const active = row.schedules.nodes.find((schedule) => schedule.state === 'ACTIVE');
  if (!active) return <span className="faint">–</span>;
  return <span title={active.frequency}>{active.name}{row.schedules.totalCount > 1 && ` +${row.schedules.totalCount - 1}`}</span>;
}

/** What can be done with all of the chosen audiences. */
function Bulk({ rows, clear }: { rows: AudienceRowFragment[]; clear: () => void }) {
  const act = useAct();
  const navigate = useNavigate();
  const computed = rows.filter((row) => row.definition && row.lifecycleState === 'PUBLISHED');
  const run = () =>
    attempt(async () => {
      const done = await act(RunDefinitionsDocument, { input: { definitionIds: computed.map((row) => row.definition!.id) } });
      clear();
      const id = done.createSegmentJob.job!.jobId;
      say(`Running ${plural(computed.length, 'audience')}.`, { link: { label: 'Watch', to: `/jobs/${id}` } });
    });
  const move = (state: LifecycleState) =>
    attempt(async () => {
      for (const row of rows) {
        if (row.lifecycleState !== state) await act(UpdateAudienceDocument, { input: { id: row.id, etag: row.etag, lifecycleState: state } });
      }
      clear();
      say(`${plural(rows.length, 'audience')} ${state === 'PUBLISHED' ? 'published' : 'deactivated'}.`);
    });
  return (
    <div className="selectbar">
      <strong className="grow">{plural(rows.length, 'audience')} selected</strong>
      <Button small icon="job" does={[RunDefinitionsDocument]} onPress={run} isDisabled={computed.length === 0}>Run</Button>
      <Button small icon="check" does={[UpdateAudienceDocument]} onPress={() => move('PUBLISHED')}>Publish</Button>
      <Button small does={[UpdateAudienceDocument]} onPress={() => move('INACTIVE')}>Deactivate</Button>
      <Button small icon="export" does={[CreateExportDocument]} onPress={() => void navigate({ to: '/exports', search: { audiences: rows.map((row) => row.id).join(' ') } })}>Export…</Button>
      <Button small kind="quiet" icon="close" aria-label="Clear the selection" onPress={clear} />
    </div>
  );
}

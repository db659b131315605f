// The members of an audience, with the attributes that one chooses as columns.
import { Link, useNavigate, useSearch } from '@tanstack/react-router';
import { useEffect, useState } from 'react';

import { downloadMembers } from '../api/download';
import { useData } from '../api/hooks';
import { AudienceMembersDocument, AudienceMomentsDocument, type MembershipStatus, type ProfileOrder } from '../api/operations';
import { ActionMenu, Button, Field, Select } from '../ui/controls';
import { at, count, momentOf, plainPath, Time, value, words } from '../ui/format';
import { Empty, Failure, More, Skeleton, Withheld } from '../ui/pieces';
import { attempt, say } from '../ui/toasts';
import { useAudience } from './Audience';
import { Columns, usePaths } from './Columns';

const PAGE = 50;
const FIRST_COLUMNS = 4;
const FORMATS = [
  { id: 'csv', label: 'CSV' },
  { id: 'ndjson', label: 'NDJSON' },
  { id: 'parquet', label: 'Parquet' },
];
export const STATUSES = [
  { id: 'in', label: 'In it now' },
  { id: 'REALIZED', label: 'Entered in the last run' },
  { id: 'EXISTING', label: 'Stayed in the last run' },
  { id: 'EXITED', label: 'Left' },
];

export interface MembersSearch {
  columns?: string[];
  status?: string;
  /** PQL that holds for those who are shown. */
  where?: string;
  /** A value in PQL, after `-` from the largest. */
  sort?: string;
  /** The moment as of which they were members; now unless given. */
  at?: string;
}

const orderOf = (sort: string | undefined): ProfileOrder | undefined =>
  sort === undefined ? undefined : sort.startsWith('-') ? { expression: sort.slice(1), direction: 'DESC' } : { expression: sort, direction: 'ASC' };

export function AudienceMembers() {
  const { id } = useAudience();
  const search = useSearch({ from: '/audiences/$id/members' });
  const navigate = useNavigate({ from: '/audiences/$id/members' });
  const paths = usePaths();
  const columns = search.columns ?? (paths ?? []).slice(0, FIRST_COLUMNS);
  const order = orderOf(search.sort);
  const [after, setAfter] = useState<string>();
  useEffect(() => setAfter(undefined), [id, search.status, search.columns, search.where, search.sort, search.at]);
  const { data, loading, stale, error, again } = useData(
    AudienceMembersDocument,
    { id, first: PAGE, after, status: search.status ? [search.status as MembershipStatus] : undefined, where: search.where, orderBy: order, asOf: search.at, paths: columns },
    { pause: paths === undefined && !search.columns },
  );
  const members = data?.audience?.members;
  const change = (part: Partial<typeof search>) => void navigate({ search: (old) => ({ ...old, ...part }), replace: true });
  if (data?.audience && !members) return <Withheld needs={['profiles:read']} />;
  const download = (format: string) =>
    attempt(async () => {
      say('The file is being made…');
      await downloadMembers(id, format, { columns, status: search.status, where: search.where, orderBy: order, asOf: search.at });
    });
  return (
    <>
      <div className="toolbar">
        <Select label="Which members" options={STATUSES} value={search.status ?? 'in'} onChange={(status) => change({ status: status === 'in' ? undefined : status })} />
        <Moment id={id} at={search.at} onChange={(moment) => change({ at: moment })} />
        <Columns paths={paths ?? []} chosen={columns} onChange={(next) => change({ columns: next.length > 0 ? next : undefined })} />
        <ActionMenu label="Download as" actions={FORMATS.map((format) => ({ ...format, act: () => void download(format.id) }))} button={<Button>Download</Button>} />
      </div>
      <Narrow key={`${search.where} ${search.sort}`} where={search.where} sort={search.sort} apply={change} />
      {error ? (
        <Failure error={error} again={again} />
      ) : loading || !members ? (
        <Skeleton lines={8} />
      ) : members.nodes.length === 0 ? (
        <Empty title="Nobody">{search.where ? 'No member fulfils the condition.' : search.status === 'EXITED' ? 'Nobody left in the last run.' : 'The audience is empty, or was not evaluated yet.'}</Empty>
      ) : (
        <>
          <div className="tablebox">
            <table>
              <thead>
                <tr>
                  <th scope="col">Person</th>
                  {columns.map((path) => (
                    <th key={path} scope="col" title={path} aria-sort={order?.expression === path ? (order.direction === 'DESC' ? 'descending' : 'ascending') : undefined}>
                      <button type="button" className="sort" onClick={() => change({ sort: nextSort(search.sort, path) })}>{plainPath(path)}{order?.expression === path && (order.direction === 'DESC' ? ' ↓' : ' ↑')}</button>
                    </th>
                  ))}
                  <th scope="col">Status</th>
                  <th scope="col" className="fit">Qualified</th>
                </tr>
              </thead>
              <tbody>
                {members.nodes.map((member) => (
                  <tr key={member.profile.id}>
                    <td className="mono clip"><Link to="/people/$id" params={{ id: member.profile.profileId }}>{member.profile.profileId}</Link></td>
                    {columns.map((path) => <td key={path} className="clip">{value(at(member.profile.attributes, path))}</td>)}
                    <td className="muted">{words(member.status)}</td>
                    <td className="fit muted"><Time at={member.lastQualificationTime} /></td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
          <More shown={members.nodes.length} total={members.totalCount} next={members.pageInfo.hasNextPage ? members.pageInfo.endCursor : null} busy={stale} load={setAfter} />
        </>
      )}
    </>
  );
}

/** As of which of the runs that history still has. */
function Moment({ id, at, onChange }: { id: string; at: string | undefined; onChange: (at: string | undefined) => void }) {
  const { data } = useData(AudienceMomentsDocument, { id });
  const runs = (data?.audience?.history.nodes ?? []).toReversed().map((point) => ({ id: point.at, label: `As of ${momentOf(point.at)} · ${count(point.totalProfiles)}` }));
  const options = [{ id: 'now', label: 'As of now' }, ...runs];
  if (at && !runs.some((run) => run.id === at)) options.push({ id: at, label: `As of ${momentOf(at)}` });
  return <Select label="As of" options={options} value={at ?? 'now'} onChange={(next) => onChange(next === 'now' ? undefined : next)} />;
}

/** A column's heading goes from ascending to descending to no order. */
function nextSort(sort: string | undefined, path: string): string | undefined {
  if (sort === path) return `-${path}`;
  return sort === `-${path}` ? undefined : path;
}

/** Which members, by PQL, and in which order: evaluated with the data of now. */
function Narrow({ where, sort, apply }: Pick<MembersSearch, 'where' | 'sort'> & { apply: (next: Pick<MembersSearch, 'where' | 'sort'>) => void }) {
  const [condition, setCondition] = useState(where ?? '');
  const [value, setValue] = useState(sort?.replace(/^-/, '') ?? '');
  const [descending, setDescending] = useState(sort?.startsWith('-') ?? false);
  const submit = () => apply({ where: condition.trim() || undefined, sort: value.trim() ? `${descending ? '-' : ''}${value.trim()}` : undefined });
  return (
    <form className="toolbar" style={{ alignItems: 'flex-end' }} onSubmit={(event) => { event.preventDefault(); submit(); }}>
      <div className="grow"><Field label="For whom (PQL)" value={condition} onChange={setCondition} placeholder={'home.city = "Reno"'} /></div>
      <div className="grow"><Field label="In the order of (PQL)" value={value} onChange={setValue} placeholder="xEvent.sum(dollars)" /></div>
      <Select label="Direction" options={[{ id: 'ASC', label: 'Smallest first' }, { id: 'DESC', label: 'Largest first' }]} value={descending ? 'DESC' : 'ASC'} onChange={(next) => setDescending(next === 'DESC')} />
      <Button type="submit">Apply</Button>
    </form>
  );
}

// The members of an audience, with the attributes that one chooses as columns.
import { Link, useNavigate, useSearch } from '@tanstack/react-router';
import { useEffect, useMemo, useState } from 'react';
import { DialogTrigger, Popover, Dialog as AriaDialog } from 'react-aria-components';

import { useData } from '../api/hooks';
import { AudienceMembersDocument, ProfileFieldsDocument, type MembershipStatus } from '../api/operations';
import { Button, Checkbox, Search, Select } from '../ui/controls';
import { at, Time, value, words } from '../ui/format';
import { Empty, Failure, More, Skeleton } from '../ui/pieces';
import { useAudience } from './Audience';

const PAGE = 50;
const FIRST_COLUMNS = 4;
const STATUSES = [
  { id: 'in', label: 'In it now' },
  { id: 'REALIZED', label: 'Entered in the last run' },
  { id: 'EXISTING', label: 'Stayed in the last run' },
  { id: 'EXITED', label: 'Left' },
];

/** Paths of attributes; undefined until they are known. */
function usePaths(): string[] | undefined {
  const { data } = useData(ProfileFieldsDocument, {});
  return useMemo(
    () => data && [...new Set(data.datasets.nodes.flatMap((dataset) => dataset.fields.map((field) => field.path)))],
    [data],
  );
}

export function AudienceMembers() {
  const { id } = useAudience();
  const search = useSearch({ from: '/audiences/$id/members' });
  const navigate = useNavigate({ from: '/audiences/$id/members' });
  const paths = usePaths();
  const columns = search.columns ? search.columns.split(' ') : (paths ?? []).slice(0, FIRST_COLUMNS);
  const [after, setAfter] = useState<string>();
  useEffect(() => setAfter(undefined), [id, search.status, search.columns]);
  const { data, loading, stale, error, again } = useData(
    AudienceMembersDocument,
    { id, first: PAGE, after, status: search.status ? [search.status as MembershipStatus] : undefined, paths: columns },
    { pause: paths === undefined && !search.columns },
  );
  const members = data?.audience?.members;
  const change = (part: Partial<typeof search>) => void navigate({ search: (old) => ({ ...old, ...part }), replace: true });
  if (error) return <Failure error={error} again={again} />;
  return (
    <>
      <div className="toolbar">
        <Select label="Which members" options={STATUSES} value={search.status ?? 'in'} onChange={(status) => change({ status: status === 'in' ? undefined : status })} />
        <Columns paths={paths ?? []} chosen={columns} onChange={(next) => change({ columns: next.join(' ') || undefined })} />
      </div>
      {loading || !members ? (
        <Skeleton lines={8} />
      ) : members.nodes.length === 0 ? (
        <Empty title="Nobody">{search.status === 'EXITED' ? 'Nobody left in the last run.' : 'The audience is empty, or was not evaluated yet.'}</Empty>
      ) : (
        <>
          <div className="tablebox">
            <table>
              <thead>
                <tr>
                  <th scope="col">Person</th>
                  {columns.map((path) => <th key={path} scope="col" title={path}>{path}</th>)}
                  <th scope="col">Status</th>
                  <th scope="col" className="fit">Qualified</th>
                </tr>
              </thead>
              <tbody>
                {members.nodes.map((member) => (
                  <tr key={member.profile.id}>
                    <td className="mono"><Link to="/people/$id" params={{ id: member.profile.profileId }}>{member.profile.profileId}</Link></td>
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

function Columns({ paths, chosen, onChange }: { paths: string[]; chosen: string[]; onChange: (next: string[]) => void }) {
  const [term, setTerm] = useState('');
  const shown = paths.filter((path) => path.toLowerCase().includes(term.toLowerCase()));
  return (
    <DialogTrigger>
      <Button>Columns · {chosen.length}</Button>
      <Popover className="popover" placement="bottom start">
        <AriaDialog aria-label="Columns" style={{ outline: 'none', padding: 8, display: 'grid', gap: 8, maxHeight: 380, overflow: 'auto' }}>
          <Search label="Find a field" value={term} onChange={setTerm} />
          {shown.map((path) => (
            <Checkbox key={path} isSelected={chosen.includes(path)} onChange={(on) => onChange(on ? [...chosen, path] : chosen.filter((each) => each !== path))}>
              <code>{path}</code>
            </Checkbox>
          ))}
        </AriaDialog>
      </Popover>
    </DialogTrigger>
  );
}

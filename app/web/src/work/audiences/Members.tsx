// The members of an audience, with the attributes that one chooses as columns.
import { Link, useNavigate, useSearch } from '@tanstack/react-router';
import { useEffect, useState } from 'react';

import { downloadMembers } from '../api/download';
import { useData } from '../api/hooks';
import { AudienceMembersDocument, type MembershipStatus } from '../api/operations';
import { ActionMenu, Button, Select } from '../ui/controls';
import { at, Time, value, words } from '../ui/format';
import { Empty, Failure, More, Skeleton } from '../ui/pieces';
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
const STATUSES = [
  { id: 'in', label: 'In it now' },
  { id: 'REALIZED', label: 'Entered in the last run' },
  { id: 'EXISTING', label: 'Stayed in the last run' },
  { id: 'EXITED', label: 'Left' },
];

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
  const download = (format: string) =>
    attempt(async () => {
      say('The file is being made…');
      await downloadMembers(id, format, { columns, status: search.status });
    });
  if (error) return <Failure error={error} again={again} />;
  return (
    <>
      <div className="toolbar">
        <Select label="Which members" options={STATUSES} value={search.status ?? 'in'} onChange={(status) => change({ status: status === 'in' ? undefined : status })} />
        <Columns paths={paths ?? []} chosen={columns} onChange={(next) => change({ columns: next.join(' ') || undefined })} />
        <ActionMenu label="Download as" actions={FORMATS.map((format) => ({ ...format, act: () => void download(format.id) }))} button={<Button>Download</Button>} />
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

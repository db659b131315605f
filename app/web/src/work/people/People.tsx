// People: by an identity, or all for whom an expression holds.
import { Link, useNavigate, useSearch } from '@tanstack/react-router';
import { useEffect, useState } from 'react';
import { useClient } from 'urql';

import { useData } from '../api/hooks';
import { PeopleDocument, PersonByIdentityDocument } from '../api/operations';
import { problemOf } from '../api/problem';
import { Button, Field } from '../ui/controls';
import { at, plainPath, value, written } from '../ui/format';
import { Empty, Failure, Head, More, Skeleton } from '../ui/pieces';

const PAGE = 30;
const COLUMNS = 5;

export function People() {
  const { where } = useSearch({ from: '/people' });
  const navigate = useNavigate({ from: '/people' });
  const [typed, setTyped] = useState(where ?? '');
  const [after, setAfter] = useState<string>();
  useEffect(() => setAfter(undefined), [where]);
  const { data, loading, stale, error, again } = useData(PeopleDocument, { where, first: PAGE, after });
  const people = data?.profiles.nodes ?? [];
  const columns = leaves(people.slice(0, 10).map((person) => person.attributes)).slice(0, COLUMNS);
  const apply = () => void navigate({ search: { where: typed.trim() || undefined } });
  return (
    <div className="page">
      <Head title="People" about="Look one up by an identity, or list those for whom an expression holds.">
        <Link to="/jobs" search={{ kind: 'ERASURE' }} className="button">Erasures</Link>
      </Head>
      <div className="stack">
        <Lookup />
        <form className="row" style={{ alignItems: 'flex-end' }} onSubmit={(event) => { event.preventDefault(); apply(); }}>
          <div className="grow"><Field label="For whom (PQL)" value={typed} onChange={setTyped} placeholder='loyalty.tier = "gold" and xEvent.count() > 10' /></div>
          <Button type="submit">List</Button>
        </form>
        {error ? <Failure error={error} again={again} /> : loading ? <Skeleton lines={8} /> : people.length === 0 ? <Empty title="Nobody">There are no such people.</Empty> : (
          <>
            <div className="tablebox">
              <table>
                <thead><tr><th scope="col">Person</th>{columns.map((path) => <th key={path} scope="col">{plainPath(path)}</th>)}</tr></thead>
                <tbody>
                  {people.map((person) => (
                    <tr key={person.id}>
                      <td className="mono clip"><Link to="/people/$id" params={{ id: person.profileId }}>{person.profileId}</Link></td>
                      {columns.map((path) => <td key={path} className="clip">{value(at(person.attributes, path))}</td>)}
                    </tr>
                  ))}
                </tbody>
              </table>
            </div>
            <More shown={people.length} next={data?.profiles.pageInfo.hasNextPage ? data.profiles.pageInfo.endCursor : null} busy={stale} load={setAfter} />
          </>
        )}
      </div>
    </div>
  );
}

/** Paths of the plain values in some records, in their order, identities left out. */
export function leaves(records: unknown[]): string[] {
  const paths = new Set<string>();
  const walk = (item: unknown, path: string) => {
    if (item && typeof item === 'object' && !Array.isArray(item)) {
      for (const [name, inner] of Object.entries(item)) if (name !== 'identityMap' && name !== 'segmentMembership') walk(inner, path ? `${path}.${written(name)}` : written(name));
    } else if (path && !Array.isArray(item)) paths.add(path);
  };
  records.forEach((record) => walk(record, ''));
  return [...paths];
}

function Lookup() {
  const client = useClient();
  const navigate = useNavigate();
  const [namespace, setNamespace] = useState('');
  const [id, setId] = useState('');
  const [problem, setProblem] = useState<string>();
  const find = async () => {
    setProblem(undefined);
    const identity = { namespace: namespace.trim(), id: id.trim() };
    const { data, error } = await client.query(PersonByIdentityDocument, { identity }, { requestPolicy: 'network-only' }).toPromise();
    if (error) setProblem(problemOf(error));
    else if (!data?.profile) setProblem(`Nobody has the ${identity.namespace} identity ${identity.id}.`);
    else void navigate({ to: '/people/$id', params: { id: data.profile.profileId } });
  };
  return (
    <form className="stack tight" onSubmit={(event) => { event.preventDefault(); void find(); }}>
      <div className="row" style={{ alignItems: 'flex-end' }}>
        <div style={{ width: 160 }}><Field label="Namespace" value={namespace} onChange={setNamespace} placeholder="email" /></div>
        <div className="grow" style={{ maxWidth: 360 }}><Field label="Identity" value={id} onChange={setId} placeholder="ann@example.com" /></div>
        <Button type="submit" icon="search" isDisabled={!namespace.trim() || !id.trim()}>Look up</Button>
      </div>
      {problem && <span className="problem" role="alert">{problem}</span>}
    </form>
  );
}

// Why a person is in an audience or not: its expression as a tree, with what each part came to.
import { useState } from 'react';

import { useData } from '../api/hooks';
import { ExplainDocument, type ExplanationPartFragment, type PeopleInput } from '../api/operations';
import { Button, Field } from '../ui/controls';
import { clipped, count, value } from '../ui/format';
import { Failure, Readable, Skeleton } from '../ui/pieces';

export interface IdentityOf {
  namespace: string;
  id: string;
}

type Part = ExplanationPartFragment & { children?: Part[] };

export function Why({ identity, people }: { identity: IdentityOf; people: PeopleInput }) {
  const { data, loading, error, again } = useData(ExplainDocument, { identity, people });
  if (error) return <Failure error={error} again={again} />;
  if (loading || !data) return <Skeleton lines={3} />;
  const { member, root, error: refusal } = data.explain;
  if (refusal) return <div className="note">{refusal.message}</div>;
  return (
    <div className="stack tight">
      <p>{member ? <span className="badge good">In it</span> : <span className="badge bad">Not in it</span>}</p>
      <ul className="why"><Line part={root as Part} /></ul>
    </div>
  );
}

function Line({ part }: { part: Part }) {
  return (
    <li>
      <div className="row tight">
        {part.holds === null ? <span className="faint" aria-hidden="true">·</span> : part.holds ? <span className="up" role="img" aria-label="holds">✓</span> : <span className="down" role="img" aria-label="does not hold">✗</span>}
        <code className="grow">{part.text}</code>
        <span className="muted numeric">
          {part.elements !== null ? `${count(part.passed ?? 0)} of ${count(part.elements)}` : part.holds === null ? short(part.value) : ''}
        </span>
      </div>
      {part.children && part.children.length > 0 && <ul>{part.children.map((child, index) => <Line key={index} part={child} />)}</ul>}
    </li>
  );
}

const LONGEST = 40;

const short = (item: unknown) => clipped(value(item), LONGEST);

/** Asks for a person, then says why the expression holds for them or not. */
export function WhyPerson({ expression }: { expression: string }) {
  const [typed, setTyped] = useState('');
  const [identity, setIdentity] = useState<IdentityOf>();
  const look = () => {
    const colon = typed.indexOf(':');
    setIdentity(colon > 0 ? { namespace: typed.slice(0, colon).trim(), id: typed.slice(colon + 1).trim() } : undefined);
  };
  return (
    <section className="card stack" aria-label="One person">
      <h2>Why one person is in or out</h2>
      <Readable needs={['profiles:read']}>
        <form className="row" style={{ alignItems: 'flex-end' }} onSubmit={(event) => { event.preventDefault(); look(); }}>
          <div className="grow"><Field label="Person" value={typed} onChange={setTyped} placeholder="namespace:id" hint="A namespace and an id, such as email:ann@example.com" /></div>
          <Button type="submit" isDisabled={!typed.includes(':') || expression.trim() === ''}>Explain</Button>
        </form>
        {identity && <Why identity={identity} people={{ expression }} />}
      </Readable>
    </section>
  );
}

// Who would enter and who would leave if an audience had another expression.
import { Link } from '@tanstack/react-router';
import { useState } from 'react';

import { useData } from '../api/hooks';
import { CompareDocument } from '../api/operations';
import { Button } from '../ui/controls';
import { count } from '../ui/format';
import { Failure, Figure, Readable, Skeleton } from '../ui/pieces';

interface CompareProps {
  audienceId: string;
  expression: string;
  valid: boolean;
}

export function Compare({ audienceId, expression, valid }: CompareProps) {
  const [asked, setAsked] = useState<string>();
  return (
    <section className="card stack" aria-label="Change">
      <div className="row">
        <h2 className="grow">Who would enter and leave</h2>
        <Button small onPress={() => setAsked(expression)} isDisabled={!valid || asked === expression}>Compare</Button>
      </div>
      <Readable needs={['profiles:read']}>{asked === undefined ? <p className="muted">Compares what is written here with the members there are now.</p> : asked !== expression ? <p className="muted">The expression has changed since: compare again.</p> : <Outcome audienceId={audienceId} expression={asked} />}</Readable>
    </section>
  );
}

function Outcome({ audienceId, expression }: { audienceId: string; expression: string }) {
  const { data, loading, error, again } = useData(CompareDocument, { audienceId, expression });
  if (error) return <Failure error={error} again={again} />;
  if (loading || !data) return <Skeleton lines={3} />;
  const { before, after, stay, enter, leave, exact, entering, leaving, error: refusal } = data.compare;
  if (refusal) return <div className="note">{refusal.message}</div>;
  return (
    <div className="stack">
      <div className="figures">
        <Figure name="Now" value={count(before)} />
        <Figure name="Enter" value={<span className="up">+{count(enter)}</span>} />
        <Figure name="Leave" value={<span className="down">−{count(leave)}</span>} />
        <Figure name="Then" value={count(after)} />
      </div>
      <p className="faint">Stay: {count(stay)}{exact ? '' : ', estimated from a sample'}.</p>
      <Few title="Entering" people={entering.nodes} />
      <Few title="Leaving" people={leaving.nodes} />
    </div>
  );
}

function Few({ title, people }: { title: string; people: { id: string; profileId: string }[] }) {
  if (people.length === 0) return null;
  return (
    <p>
      <span className="label">{title}: </span>
      {people.map((person) => <span key={person.id}><Link className="mono" to="/people/$id" params={{ id: person.profileId }}>{person.profileId}</Link> </span>)}
    </p>
  );
}

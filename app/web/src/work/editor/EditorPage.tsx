// Create an audience, or change one: builder and text side by side, checked and counted as one types.
import { Link, useBlocker, useNavigate, useParams } from '@tanstack/react-router';
import { useEffect, useState } from 'react';
import { useClient, type CombinedError } from 'urql';

import { useConnection } from '../api/connection';
import { Refused, useAct, useData, type Refusal } from '../api/hooks';
import {
  AudiencePageDocument,
  CheckExpressionDocument,
  CreateAudienceDocument,
  EditorChoicesDocument,
  RunDefinitionsDocument,
  UpdateAudienceDocument,
  type AudiencePageQuery,
  type CheckExpressionQuery,
  type EvaluationMethod,
} from '../api/operations';
import { needsToDo, useMayDo } from '../api/permissions';
import { Compare } from '../insight/Compare';
import { WhyPerson } from '../insight/Why';
import { Button, Checkbox, Dialog, Field, May, Select } from '../ui/controls';
import { Empty, Failure, Head, Skeleton, Withheld } from '../ui/pieces';
import { attempt, say } from '../ui/toasts';
import { Builder } from './Builder';
import { useCatalogue } from './catalogue';
import { Estimate } from './Estimate';
import { PqlEditor, type Diagnostic } from './PqlEditor';

const PAUSE = 200;

type Check = CheckExpressionQuery['pql']['check'] & { expression: string };

/** What the server says of an expression, a moment after the last key and when it is back, or why it says nothing. */
function useCheck(expression: string): { check?: Check; error?: CombinedError } {
  const client = useClient();
  const { epoch } = useConnection();
  const [answer, setAnswer] = useState<{ check?: Check; error?: CombinedError }>({});
  useEffect(() => {
    let old = false;
    const timer = setTimeout(async () => {
      if (expression.trim() === '') return setAnswer({});
      const { data, error } = await client.query(CheckExpressionDocument, { expression }, { requestPolicy: 'network-only' }).toPromise();
      if (!old) setAnswer({ check: data && { ...data.pql.check, expression }, error });
    }, PAUSE);
    return () => {
      old = true;
      clearTimeout(timer);
    };
  }, [client, expression, epoch]);
  return answer;
}

export function NewAudience() {
  return <Editor />;
}

export function EditAudience() {
  const { id } = useParams({ from: '/audiences/$id/edit' });
  const { data, loading, error, again } = useData(AudiencePageDocument, { id });
  // Once open, the editor stays with its draft, even if the audience is deleted.
  const [opened, setOpened] = useState<{ id: string; audience: Stored }>();
  if (data?.audience?.definition && opened?.audience !== data.audience) setOpened({ id, audience: data.audience });
  if (opened?.id === id) return <Editor key={opened.audience.id} audience={opened.audience} />;
  if (loading) return <div className="page"><Skeleton /></div>;
  if (data?.audience && data.audience.definition === undefined) return <div className="page"><Head title={`Edit ${data.audience.name}`} back={{ label: data.audience.name, to: `/audiences/${id}` }} /><Withheld needs={['definitions:read']} /></div>;
  return <div className="page">{error ? <Failure error={error} again={again} /> : <Empty title="There is no such computed audience"><Link to="/audiences">To the audiences</Link></Empty>}</div>;
}

interface Draft {
  name: string;
  description: string;
  expression: string;
  labels: string;
  methods: EvaluationMethod[];
  mergePolicyId?: string;
  excludeOptOut: boolean;
}

function draftOf(audience?: Stored): Draft {
  return {
    name: audience?.name ?? '',
    description: audience?.description ?? '',
    expression: audience?.definition?.expression ?? '',
    labels: audience?.labels.join(' ') ?? '',
    methods: audience?.evaluationMethods ?? ['BATCH'],
    mergePolicyId: audience?.mergePolicy?.id,
    excludeOptOut: audience?.excludeOptOut ?? true,
  };
}

type Stored = NonNullable<AudiencePageQuery['audience']>;

function Editor({ audience }: { audience?: Stored }) {
  const [draft, setDraft] = useState(() => draftOf(audience));
  // As it was read: a change that somebody else makes meanwhile is then refused, not overwritten.
  const [read, setRead] = useState(audience);
  const change = (part: Partial<Draft>) => setDraft((old) => ({ ...old, ...part }));
  const { check, error } = useCheck(draft.expression);
  const current = check?.expression === draft.expression ? check : undefined;
  // An audience says the same as itself: no news.
  const news = (each: Diagnostic) => !(audience && each.kind === 'DUPLICATE' && each.message.includes(audience.audienceId));
  const choices = useData(EditorChoicesDocument, {}).data;
  const catalogue = useCatalogue();
  const saving = audience ? UpdateAudienceDocument : CreateAudienceDocument;
  const mayDo = useMayDo();
  const { save, problems, clash, busy, done } = useSave(draft, read);
  const leaving = useUnsaved(!done && JSON.stringify(draft) !== JSON.stringify(draftOf(read)));
  const ready = draft.name.trim() !== '' && Boolean(current?.ok) && !busy;
  return (
    <div className="page">
      <Head
        title={audience ? `Edit ${audience.name}` : 'New audience'}
        back={audience ? { label: audience.name, to: `/audiences/${audience.audienceId}` } : { label: 'Audiences', to: '/audiences' }}
      >
        <Button does={[saving]} onPress={() => void save(false)} isDisabled={!ready}>{audience ? 'Save' : 'Create'}</Button>
        <Button kind="primary" icon="job" does={[saving, RunDefinitionsDocument]} onPress={() => void save(true)} isDisabled={!ready}>{audience ? 'Save and run' : 'Create and run'}</Button>
      </Head>
      <May act={[saving]} otherwise={<Withheld needs={needsToDo([saving])} />}>{null}</May>
      {problems.map((problem) => <div key={problem} className="note" role="alert" style={{ marginBottom: 10 }}>{problem}</div>)}
      {clash === 'deleted' && (
        <div className="note warn row" role="status" style={{ marginBottom: 10 }}>
          <span className="grow">Somebody else has deleted this audience. What is written here is still yours.</span>
          <Button small does={[CreateAudienceDocument]} onPress={() => void save(false, null)}>Create it anew</Button>
        </div>
      )}
      {clash === 'changed' && read && <Stale id={read.id} take={(newest) => { setRead(newest); setDraft(draftOf(newest)); }} keep={(newest) => { setRead(newest); void save(false, newest); }} />}
      <Dialog title="Leave without saving?" open={leaving.status === 'blocked'} onClose={() => leaving.reset?.()}>
        <p className="muted">What you have changed here is lost.</p>
        <div className="foot">
          <Button onPress={() => leaving.reset?.()}>Stay</Button>
          <Button kind="danger" onPress={() => leaving.proceed?.()}>Leave</Button>
        </div>
      </Dialog>
      <div className="split">
        <div className="stack">
          <section className="card stack">
            <Field label="Name" value={draft.name} onChange={(name) => change({ name })} required autoFocus={!audience} />
            <Field label="Description" value={draft.description} onChange={(description) => change({ description })} />
          </section>
          <section className="card stack" aria-label="Builder">
            <h2>Who is in it</h2>
            <Builder expression={draft.expression} onChange={(expression) => change({ expression })} catalogue={catalogue} self={audience?.id} />
          </section>
          <section className="card stack" aria-label="Expression">
            <div className="row">
              <h2 className="grow">The same in PQL</h2>
              <Verdict expression={draft.expression} check={current} failed={error !== undefined} />
            </div>
            <PqlEditor value={draft.expression} onChange={(expression) => change({ expression })} diagnostics={check?.diagnostics.filter(news) ?? []} onSave={() => ready && mayDo(saving) && save(mayDo(RunDefinitionsDocument))} />
            {error && <Failure error={error} />}
            <Problems diagnostics={current?.diagnostics.filter(news) ?? []} mend={(diagnostic, suggestion) => change({ expression: replaced(draft.expression, diagnostic, suggestion) })} />
          </section>
        </div>
        <aside className="stack">
          <Estimate expression={draft.expression} valid={Boolean(current?.ok)} mergePolicyId={draft.mergePolicyId} excludeOptOut={draft.excludeOptOut} />
          {audience && <Compare audienceId={audience.id} expression={draft.expression} valid={Boolean(current?.ok)} />}
          <WhyPerson expression={current?.ok ? draft.expression : ''} />
          <section className="card stack" aria-label="Settings">
            <h2>Settings</h2>
            <Methods methods={draft.methods} eligibility={current?.streamingEligibility ?? undefined} onChange={(methods) => change({ methods })} />
            <Field label="Labels" hint="Separated by spaces, such as core/C1" value={draft.labels} onChange={(labels) => change({ labels })} />
            {choices && !choices.mergePolicies && <Withheld needs={['mergePolicies:read']} />}
            {choices?.mergePolicies && choices.mergePolicies.nodes.length > 0 && (
              <Select
                shown
                label="Merge policy"
                options={choices.mergePolicies.nodes.map((policy) => ({ id: policy.id, label: policy.name }))}
                value={draft.mergePolicyId ?? choices.mergePolicies.nodes.find((policy) => policy.isDefault)?.id ?? null}
                onChange={(mergePolicyId) => change({ mergePolicyId })}
              />
            )}
            <Checkbox isSelected={draft.excludeOptOut} onChange={(excludeOptOut) => change({ excludeOptOut })}>Leave out people who opted out</Checkbox>
          </section>
        </aside>
      </div>
    </div>
  );
}

/** Asks before a draft that differs from what is stored is left, by a link or by closing the tab. */
function useUnsaved(changed: boolean) {
  return useBlocker({ shouldBlockFn: () => changed, enableBeforeUnload: () => changed, withResolver: true });
}

interface StaleProps {
  id: string;
  /** Goes on from what is stored now. */
  take: (newest: Stored) => void;
  /** Stores the draft though another change came first. */
  keep: (newest: Stored) => void;
}

/** Somebody else has saved the audience meanwhile. */
function Stale({ id, take, keep }: StaleProps) {
  const client = useClient();
  const read = (then: (newest: Stored) => void) => () =>
    attempt(async () => {
      const { data, error } = await client.query(AudiencePageDocument, { id }, { requestPolicy: 'network-only' }).toPromise();
      if (data?.audience) then(data.audience);
      else throw error ?? new Error('The audience has been deleted.');
    });
  return (
    <div className="note warn row" role="status" style={{ marginBottom: 10 }}>
      <span className="grow">Somebody else has saved this audience since you opened it.</span>
      <Button small onPress={read(take)}>Discard mine, show theirs</Button>
      <Button small onPress={read(keep)}>Save mine over theirs</Button>
    </div>
  );
}

/** What somebody else has done to the audience since it was opened. */
type Clash = 'changed' | 'deleted';

function clashOf({ code, path = [] }: Refusal): Clash | undefined {
  if (code === 'STALE_ETAG') return 'changed';
  return code === 'NOT_FOUND' && path.at(-1) === 'id' ? 'deleted' : undefined;
}

function useSave(draft: Draft, read: Stored | undefined) {
  const act = useAct();
  const navigate = useNavigate();
  const [problems, setProblems] = useState<string[]>([]);
  const [clash, setClash] = useState<Clash>();
  const [state, setState] = useState<'idle' | 'busy' | 'done'>('idle');
  // What is stored is left only after it is known that nothing is unsaved.
  const [target, setTarget] = useState<() => void>();
  useEffect(() => target?.(), [target]);
  /** Stores the draft, over `stored` if that is given; null creates another audience. */
  const save = async (run: boolean, stored: Stored | null | undefined = read) => {
    setState('busy');
    setProblems([]);
    setClash(undefined);
    const input = {
      name: draft.name.trim(),
      description: draft.description.trim() || null,
      expression: draft.expression,
      evaluationMethods: draft.methods,
      labels: draft.labels.split(/\s+/).filter(Boolean),
      mergePolicyId: draft.mergePolicyId,
      excludeOptOut: draft.excludeOptOut,
    };
    try {
      const audience = stored
        ? (await act(UpdateAudienceDocument, { input: { ...input, id: stored.id, etag: stored.etag } })).updateAudience.audience!
        : (await act(CreateAudienceDocument, { input: { ...input, type: 'SEGMENT_DEFINITION' } })).createAudience.audience!;
      if (run) {
        const { createSegmentJob } = await act(RunDefinitionsDocument, { input: { definitionIds: [audience.definition!.id] } });
        setTarget(() => () => void navigate({ to: '/jobs/$id', params: { id: createSegmentJob.job!.jobId } }));
      } else {
        say(stored ? 'Saved.' : `${draft.name.trim()} created.`);
        setTarget(() => () => void navigate({ to: '/audiences/$id', params: { id: audience.audienceId } }));
      }
      setState('done');
    } catch (error) {
      const refusals = error instanceof Refused ? error.errors : [];
      const other = refusals.map(clashOf).find((each) => each !== undefined);
      setClash(other);
      setProblems(other ? [] : refusals.length > 0 ? refusals.map((each) => each.message) : [(error as Error).message]);
      setState('idle');
    }
  };
  return { save, problems, clash, busy: state !== 'idle', done: state === 'done' };
}

function Verdict({ expression, check, failed }: { expression: string; check?: Check; failed: boolean }) {
  if (expression.trim() === '') return <span className="faint">Control Space completes</span>;
  if (!check) return failed ? <span className="badge warn">Not checked</span> : <span className="badge">Checking…</span>;
  const errors = check.diagnostics.filter((each) => each.severity === 'ERROR').length;
  return check.ok ? <span className="badge good">Valid</span> : <span className="badge bad">{errors === 1 ? '1 error' : `${errors} errors`}</span>;
}

function Problems({ diagnostics, mend }: { diagnostics: Diagnostic[]; mend: (diagnostic: Diagnostic, suggestion: string) => void }) {
  if (diagnostics.length === 0) return null;
  return (
    <ul className="problems" aria-label="Problems">
      {diagnostics.map((each, index) => (
        <li key={index} className={each.severity === 'ERROR' ? undefined : 'warning'}>
          <span className="mono">{each.line}:{each.column}</span>
          <span className="grow">{each.message}</span>
          {each.suggestions.map((suggestion) => <Button key={suggestion} small onPress={() => mend(each, suggestion)}>Use {suggestion}</Button>)}
        </li>
      ))}
    </ul>
  );
}

/** The expression with a suggestion in the place that a diagnostic names (its columns count characters). */
function replaced(expression: string, { line, column, length }: Diagnostic, suggestion: string): string {
  const lines = expression.split('\n');
  const characters = [...lines[line - 1]];
  characters.splice(column - 1, length, suggestion);
  lines[line - 1] = characters.join('');
  return lines.join('\n');
}

interface MethodsProps {
  methods: EvaluationMethod[];
  eligibility?: { eligible: boolean; reasons: string[] };
  onChange: (methods: EvaluationMethod[]) => void;
}

function Methods({ methods, eligibility, onChange }: MethodsProps) {
  const options: { id: EvaluationMethod; label: string }[] = [
    { id: 'BATCH', label: 'By jobs' },
    { id: 'STREAMING', label: 'As data arrive' },
    { id: 'EDGE', label: 'When a person is looked up' },
  ];
  return (
    <div className="stack tight" role="group" aria-label="Evaluated">
      <span className="label">Evaluated</span>
      {options.map(({ id, label }) => (
        <Checkbox
          key={id}
          isSelected={methods.includes(id)}
          isDisabled={id !== 'BATCH' && eligibility?.eligible === false && !methods.includes(id)}
          onChange={(on) => onChange(on ? [...methods, id] : methods.filter((method) => method !== id))}
        >
          {label}
        </Checkbox>
      ))}
      {eligibility?.eligible === false && <span className="faint">Only by jobs: {eligibility.reasons.join('; ')}.</span>}
    </div>
  );
}

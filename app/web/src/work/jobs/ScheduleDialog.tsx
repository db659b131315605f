// Create or change a schedule: how often, at what time, and which audiences it evaluates or what it exports.
import { useState } from 'react';

import { useAct } from '../api/hooks';
import { CreateScheduleDocument, UpdateScheduleDocument, type ScheduleRowFragment, type ScheduleType } from '../api/operations';
import { AudienceChecks } from '../audiences/Choice';
import { Checkbox, Field, FormDialog, Select } from '../ui/controls';
import { Withheld } from '../ui/pieces';
import { say } from '../ui/toasts';
import { emptyExport, exportForm, ExportFields, isComplete, useExportInput } from './ExportFields';

const RHYTHMS = [
  { id: '? * *', label: 'Every day' },
  { id: '? * MON-FRI', label: 'On weekdays' },
  { id: '? * MON', label: 'On Mondays' },
  { id: '? * SUN', label: 'On Sundays' },
  { id: '1 * ?', label: 'On the first of the month' },
  { id: 'L * ?', label: 'On the last day of the month' },
  { id: 'own', label: 'As this cron expression says' },
];

const KINDS: { id: ScheduleType; label: string }[] = [
  { id: 'BATCH_SEGMENTATION', label: 'Evaluate audiences' },
  { id: 'EXPORT', label: 'Export people' },
];

interface Timing {
  rhythm: string;
  time: string;
  cron: string;
}

/** Reads back what this dialog wrote; anything else is shown as it is. */
function timing(cron: string | undefined): Timing {
  if (!cron) return { rhythm: '? * *', time: '02:30', cron: '0 30 2 ? * *' };
  const [seconds, minute, hour, ...rest] = cron.split(' ');
  const rhythm = RHYTHMS.find(({ id }) => id === rest.join(' '));
  if (!rhythm || seconds !== '0' || !/^\d+$/.test(minute) || !/^\d+$/.test(hour)) return { rhythm: 'own', time: '02:30', cron };
  return { rhythm: rhythm.id, time: `${hour.padStart(2, '0')}:${minute.padStart(2, '0')}`, cron };
}

function cronOf({ rhythm, time, cron }: Timing): string {
  if (rhythm === 'own') return cron;
  const [hour, minute] = time.split(':').map(Number);
  return `0 ${minute} ${hour} ${rhythm}`;
}

/** What it takes to see all that a schedule evaluates or exports; who does not see it leaves it as it is. */
function withheldOf({ export: spec, allAudiences, audiences }: ScheduleRowFragment): string[] {
  if (!spec) return allAudiences || audiences ? [] : ['audiences:read'];
  return [...(spec.destination ? [] : ['datasets:read']), ...(spec.mergePolicy === undefined ? ['mergePolicies:read'] : [])];
}

export function ScheduleDialog({ schedule, onClose }: { schedule?: ScheduleRowFragment; onClose: () => void }) {
  const act = useAct();
  const inputOf = useExportInput();
  const [kind, setKind] = useState<ScheduleType>(schedule?.type ?? 'BATCH_SEGMENTATION');
  const [exported, setExported] = useState(() => (schedule?.export ? exportForm(schedule.export) : emptyExport()));
  const [name, setName] = useState(schedule?.name ?? '');
  const [when, setWhen] = useState(() => timing(schedule?.cronExpression));
  const [every, setEvery] = useState(schedule?.allAudiences ?? true);
  const [chosen, setChosen] = useState<string[]>(schedule?.audiences?.nodes.map((audience) => audience.id) ?? []);
  const evaluates = kind !== 'EXPORT';
  const withheld = schedule ? withheldOf(schedule) : [];
  const complete = name.trim() !== '' && (withheld.length > 0 || (evaluates ? every || chosen.length > 0 : isComplete(exported)));
  const save = async () => {
    const what = withheld.length > 0 ? {} : !evaluates ? { export: await inputOf(exported, setExported) } : every ? { allAudiences: true } : { audienceIds: chosen };
    const shared = { name: name.trim(), cronExpression: cronOf(when), ...what };
    if (schedule) await act(UpdateScheduleDocument, { input: { ...shared, id: schedule.id, etag: schedule.etag } });
    else await act(CreateScheduleDocument, { input: { ...shared, type: kind, state: 'ACTIVE' } });
    say(schedule ? 'Saved.' : `${shared.name} is active.`);
    onClose();
  };
  return (
    <FormDialog title={schedule ? `Edit ${schedule.name}` : 'New schedule'} open onClose={onClose} verb={schedule ? 'Save' : 'Create schedule'} act={save} ready={complete}>
        <Field label="Name" value={name} onChange={setName} required autoFocus />
        {!schedule && <Select shown label="What it does" options={KINDS} value={kind} onChange={(next) => setKind(next as ScheduleType)} />}
        <div className="row" style={{ alignItems: 'flex-end' }}>
          <div className="grow"><Select shown label="How often" options={RHYTHMS} value={when.rhythm} onChange={(rhythm) => setWhen({ ...when, rhythm, cron: cronOf(when) })} /></div>
          {when.rhythm !== 'own' && <div style={{ width: 120 }}><Field label="At (UTC)" type="time" value={when.time} onChange={(time) => setWhen({ ...when, time })} /></div>}
        </div>
        {when.rhythm === 'own' && <Field label="Cron expression" hint="Quartz: second minute hour day-of-month month day-of-week, in UTC, at most once a day" value={when.cron} onChange={(cron) => setWhen({ ...when, cron })} />}
        {withheld.length > 0 && <Withheld needs={withheld} />}
        {withheld.length === 0 && !evaluates && <ExportFields form={exported} onChange={setExported} />}
        {withheld.length === 0 && evaluates && <Checkbox isSelected={every} onChange={setEvery}>Every audience, also those to come</Checkbox>}
        {withheld.length === 0 && evaluates && !every && <AudienceChecks computed chosen={chosen} onChange={setChosen} />}
    </FormDialog>
  );
}

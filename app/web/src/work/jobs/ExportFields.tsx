// What an export writes, as a form: whose, which attributes, into which dataset. For one export and for a schedule.
import { useAct, useData } from '../api/hooks';
import { CreateDatasetDocument, ExportTargetsDocument, type CreateExportJobInput, type ExportFilterInput, type ExportSegmentInput, type ScheduleRowFragment } from '../api/operations';
import { useMayDo } from '../api/permissions';
import { AudienceChecks } from '../audiences/Choice';
import { Checkbox, Field, Select } from '../ui/controls';
import { Withheld } from '../ui/pieces';

const SCHEMA = '_xdm.context.profile';
const NEW = 'new';

export interface ExportForm {
  audiences: string[];
  /** Id of a dataset, or that a new one is to be created. */
  target: string;
  name: string;
  fields: string;
  each: boolean;
  first: boolean;
  /** What the form has no fields for, of an export that exists: it stays as it was. */
  rest?: Partial<Pick<CreateExportJobInput, 'additionalFields' | 'mergePolicyId' | 'schemaName'>> & {
    filter?: ExportFilterInput;
    segments?: ExportSegmentInput[];
  };
}

export const emptyExport = (audiences: string[] = []): ExportForm => ({ audiences, target: NEW, name: '', fields: '', each: false, first: false });

/** The form of an export that exists. */
export function exportForm(spec: NonNullable<ScheduleRowFragment['export']>): ExportForm {
  const { segments = [], ...filter } = spec.filter ?? {};
  const idOf = (segment: (typeof segments)[number]) => segment.audience?.id ?? segment.segmentId;
  return {
    audiences: segments.map(idOf),
    target: spec.destination?.id ?? NEW,
    name: '',
    fields: spec.fields.join(' '),
    each: spec.segmentPerBatch,
    first: spec.evaluateFirst,
    rest: {
      additionalFields: spec.additionalFields && plain(spec.additionalFields),
      mergePolicyId: spec.mergePolicy?.id,
      schemaName: spec.schemaName,
      filter: spec.filter ? plain(filter) : undefined,
      segments: segments.map((segment) => ({ segmentId: idOf(segment), namespace: segment.namespace, status: segment.status })),
    },
  };
}

/** An answer as an input: without the names of its types. */
function plain<Value>(answer: Value): Value {
  return JSON.parse(JSON.stringify(answer, (name, value: unknown) => (name === '__typename' ? undefined : value))) as Value;
}

export const isComplete = (form: ExportForm) => form.target !== NEW || form.name.trim() !== '';

/** The input for the API; creates the dataset that the form asks for and puts it into the form, so that a second try creates none. */
export function useExportInput(): (form: ExportForm, onChange: (form: ExportForm) => void) => Promise<CreateExportJobInput> {
  const act = useAct();
  return async (form, onChange) => {
    const datasetId = form.target === NEW
      ? (await act(CreateDatasetDocument, { input: { name: form.name.trim(), kind: 'EXPORT' } })).createDataset.dataset!.id
      : form.target;
    onChange({ ...form, target: datasetId });
    const paths: string[] = form.fields.match(/(?:`[^`]*`|[^\s,`])+/g) ?? [];
    const { filter, segments = [], ...rest } = form.rest ?? {};
    const chosen = form.audiences.map((segmentId) => segments.find((each) => each.segmentId === segmentId) ?? { segmentId });
    return {
      schemaName: SCHEMA,
      ...rest,
      destination: { datasetId, segmentPerBatch: form.each },
      fields: paths.length ? paths : undefined,
      filter: filter || chosen.length ? { ...filter, segments: chosen.length ? chosen : undefined } : undefined,
      evaluateFirst: form.first,
    };
  };
}

export function ExportFields({ form, onChange }: { form: ExportForm; onChange: (form: ExportForm) => void }) {
  const targets = useData(ExportTargetsDocument, {}).data;
  const mayCreate = useMayDo()(CreateDatasetDocument);
  const change = (part: Partial<ExportForm>) => onChange({ ...form, ...part });
  const existing = (targets?.datasets?.nodes ?? []).map((dataset) => ({ id: dataset.id, label: dataset.name }));
  return (
    <>
      <div>
        <span className="label">Members of (everybody when none is chosen)</span>
        <AudienceChecks chosen={form.audiences} onChange={(audiences) => change({ audiences })} />
      </div>
      <Select shown label="Into" options={[...(mayCreate ? [{ id: NEW, label: 'A new dataset' }] : []), ...existing]} value={form.target === NEW && !mayCreate ? null : form.target} onChange={(target) => change({ target })} />
      {targets && !targets.datasets && <Withheld needs={['datasets:read']} />}
      {form.target === NEW && mayCreate && <Field label="Name of the dataset" value={form.name} onChange={(name) => change({ name })} required />}
      <Field label="Attributes" hint="Paths separated by spaces, such as homeAddress.city; all when empty" value={form.fields} onChange={(fields) => change({ fields })} />
      <Checkbox isSelected={form.each} onChange={(each) => change({ each })}>One batch for each audience</Checkbox>
      <Checkbox isSelected={form.first} onChange={(first) => change({ first })}>Evaluate the audiences first</Checkbox>
    </>
  );
}

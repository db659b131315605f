// The fields of a dataset in numbers: in how many rows each has a value, and which values are frequent.
import { useState } from 'react';

import { useData } from '../api/hooks';
import { DatasetFieldsDocument, type DatasetFieldsQuery } from '../api/operations';
import { count, percent, plural, short, value } from '../ui/format';
import { Failure, More, Withheld } from '../ui/pieces';

type Statistics = NonNullable<NonNullable<DatasetFieldsQuery['dataset']>['fieldStatistics']>[number];

interface Field {
  path: string;
  type: string;
}

/** So many are counted with one request. */
const AT_ONCE = 50;

export function Fields({ id, fields }: { id: string; fields: Field[] }) {
  const [pages, setPages] = useState(1);
  const shown = fields.slice(0, pages * AT_ONCE);
  const parts = Array.from({ length: Math.ceil(shown.length / AT_ONCE) }, (_, at) => shown.slice(at * AT_ONCE, (at + 1) * AT_ONCE));
  return (
    <>
      <div className="tablebox" tabIndex={0} role="region" aria-label="Fields">
        <table>
          <thead>
            <tr>
              <th scope="col">Field</th>
              <th scope="col" className="middle">Type</th>
              <th scope="col" className="right">Filled</th>
              <th scope="col" className="right middle">Different</th>
              <th scope="col">Frequent values</th>
            </tr>
          </thead>
          {parts.map((part) => <Part key={part[0].path} id={id} fields={part} />)}
        </table>
      </div>
      {fields.length > AT_ONCE && <More shown={shown.length} total={fields.length} next={shown.length < fields.length ? 'more' : null} busy={false} load={() => setPages(pages + 1)} />}
    </>
  );
}

function Part({ id, fields }: { id: string; fields: Field[] }) {
  const { data, loading, error, again } = useData(DatasetFieldsDocument, { id, paths: fields.map((field) => field.path) });
  const known = new Map(data?.dataset?.fieldStatistics?.map((each) => [each.path, each]));
  const part = data?.dataset?.fieldStatistics?.find((each) => each.approximate);
  return (
    <tbody>
      {error && <tr><td colSpan={5}><Failure error={error} again={again} /></td></tr>}
      {data?.dataset && !data.dataset.fieldStatistics && <tr><td colSpan={5}><Withheld needs={['profiles:read']} /></td></tr>}
      {part && <tr><td colSpan={5} className="muted">Counted in the first {plural(part.rows, 'row')}, a fair sample of the people.</td></tr>}
      {fields.map((field) => <FieldRow key={field.path} field={field} statistics={known.get(field.path)} counting={loading} />)}
    </tbody>
  );
}

function FieldRow({ field, statistics, counting }: { field: Field; statistics: Statistics | undefined; counting: boolean }) {
  const none = <span className="faint">{counting ? '…' : '–'}</span>;
  const unique = statistics && statistics.filled > 1 && statistics.distinct === statistics.filled;
  return (
    <tr>
      <td className="mono clip">{field.path}</td>
      <td className="muted middle">{field.type}</td>
      <td className="right" title={statistics && `${count(statistics.filled)} of ${plural(statistics.rows, 'row')}`}>
        {!statistics || statistics.fillRate === null ? none : percent(statistics.fillRate)}
      </td>
      <td className="right middle">{!statistics ? none : statistics.distinct === null ? <span className="faint">not counted</span> : count(statistics.distinct)}</td>
      <td className="clip">
        {unique ? <span className="faint">each different</span> : statistics?.values.length ? statistics.values.map((each) => (
          <span key={value(each.value)} className="label-tag" title={plural(each.count, 'time')}><bdi>{value(each.value)}</bdi> <span className="faint">{short(each.count)}</span></span>
        )) : none}
      </td>
    </tr>
  );
}

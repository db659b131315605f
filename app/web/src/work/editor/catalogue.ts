// The fields of people and of events, with the values that the data hold.
import { useMemo } from 'react';

import { useData } from '../api/hooks';
import { CatalogueDocument, CompleteExpressionDocument, FieldValuesDocument } from '../api/operations';
import { useMay } from '../api/permissions';
import type { Type } from './conditions';

export interface CatalogueField {
  path: string;
  type: Type;
  /** Ids of the datasets that have it. */
  datasets: string[];
}

export interface SeenValue {
  value: string;
  /** How often it occurs; unknown to who may not read profiles. */
  count?: number;
}

export interface Catalogue {
  person: CatalogueField[];
  event: CatalogueField[];
}

const EVENTS = 'xEvent.';
const MOST_DATASETS = 10;

function typeOf(name: string): Type {
  if (name.includes('number') || name.includes('integer')) return 'number';
  if (name.includes('boolean')) return 'boolean';
  return name.includes('date') || name.includes('timestamp') ? 'date' : 'text';
}

export function useCatalogue(): Catalogue {
  const { data } = useData(CatalogueDocument, {});
  return useMemo(() => {
    const person = new Map<string, CatalogueField>();
    const event = new Map<string, CatalogueField>();
    for (const dataset of data?.datasets?.nodes ?? []) {
      if (dataset.kind !== 'PROFILE' && dataset.kind !== 'EVENT') continue;
      for (const field of dataset.fields) {
        const inEvent = field.path.startsWith(EVENTS);
        const path = inEvent ? field.path.slice(EVENTS.length) : field.path;
        const fields = inEvent ? event : person;
        const before = fields.get(path)?.datasets ?? [];
        fields.set(path, { path, type: typeOf(field.type), datasets: [...before, dataset.id] });
      }
    }
    return { person: [...person.values()], event: [...event.values()] };
  }, [data]);
}

/** Texts that were seen in a field, the most frequent first, with how often they occur in all datasets together. */
export function useSeenValues(field: CatalogueField | undefined, ofEvent: boolean): SeenValue[] {
  const path = field?.type === 'text' ? `${ofEvent ? EVENTS : ''}${field.path}` : '';
  const ids = field?.datasets.slice(0, MOST_DATASETS) ?? [];
  const counts = useMay()('profiles:read');
  const counted = useData(FieldValuesDocument, { ids, paths: [path] }, { pause: path === '' || !counts });
  const expression = `${path} = `;
  // Who may not read profiles is told what completion tells.
  const completed = useData(CompleteExpressionDocument, { expression, offset: expression.length, first: 40 }, { pause: path === '' || counts });
  return useMemo(() => {
    if (!counts) return (completed.data?.pql.complete ?? []).flatMap(({ kind, text }) => (kind === 'VALUE' ? textIn(text) : []));
    const frequencies = new Map<string, number>();
    for (const node of counted.data?.nodes ?? []) {
      if (!node || !('fieldStatistics' in node) || !node.fieldStatistics) continue;
      for (const { value, count } of node.fieldStatistics.flatMap((each) => each.values)) {
        frequencies.set(String(value), (frequencies.get(String(value)) ?? 0) + count);
      }
    }
    return [...frequencies].map(([value, count]) => ({ value, count })).sort((one, other) => other.count - one.count);
  }, [counts, counted.data, completed.data]);
}

function textIn(literal: string): SeenValue[] {
  try {
    return literal.startsWith('"') ? [{ value: JSON.parse(literal) as string }] : [];
  } catch {
    return [];
  }
}

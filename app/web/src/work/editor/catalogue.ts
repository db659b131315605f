// The fields of people and of events, with the values that the data hold.
import { useMemo } from 'react';

import { useData } from '../api/hooks';
import { CatalogueDocument, CompleteExpressionDocument } from '../api/operations';
import type { Type } from './conditions';

export interface CatalogueField {
  path: string;
  type: Type;
}

export interface Catalogue {
  person: CatalogueField[];
  event: CatalogueField[];
}

const EVENTS = 'xEvent.';

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
    for (const dataset of data?.datasets.nodes ?? []) {
      if (dataset.kind !== 'PROFILE' && dataset.kind !== 'EVENT') continue;
      for (const field of dataset.fields) {
        const inEvent = field.path.startsWith(EVENTS);
        const path = inEvent ? field.path.slice(EVENTS.length) : field.path;
        (inEvent ? event : person).set(path, { path, type: typeOf(field.type) });
      }
    }
    return { person: [...person.values()], event: [...event.values()] };
  }, [data]);
}

/** Values that were seen in a field, the most frequent first. */
export function useSeenValues(path: string, ofEvent: boolean, wanted: boolean): string[] {
  const expression = `${ofEvent ? EVENTS : ''}${path} = `;
  const { data } = useData(CompleteExpressionDocument, { expression, offset: expression.length, first: 40 }, { pause: !wanted || path === '' });
  return useMemo(
    () =>
      data?.pql.complete.flatMap((item) => {
        if (item.kind !== 'VALUE' || !item.text.startsWith('"')) return [];
        try {
          return [JSON.parse(item.text) as string];
        } catch {
          return [];
        }
      }) ?? [],
    [data],
  );
}

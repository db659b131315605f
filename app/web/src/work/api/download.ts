// Files of the server, fetched with the headers of this tab: a plain link would carry none.
import { ROOT } from '../../shared/address';
import { request } from './client';
import type { ProfileOrder } from './operations';

/** Which members, and what of them: as the table of members shows them. */
export interface Shown {
  columns: string[];
  status?: string;
  where?: string;
  orderBy?: ProfileOrder;
  asOf?: string;
}

/** Saves the members of an audience; the browser holds the file until it is complete. Raises `Error`. */
export async function downloadMembers(id: string, format: string, { columns, status, where, orderBy, asOf }: Shown): Promise<void> {
  const address = new URL(`${ROOT}audiences/${encodeURIComponent(id)}/members.${format}`, location.origin);
  const parameters = { columns: columns.join(','), status, where, orderBy: orderBy?.expression, direction: orderBy?.direction, asOf };
  for (const [name, value] of Object.entries(parameters)) if (value) address.searchParams.set(name, value);
  const response = await request(address, undefined, 'file');
  if (!response.ok) {
    const { errors } = (await response.json()) as { errors: { message: string }[] };
    throw new Error(errors.map((each) => each.message).join('\n'));
  }
  const name = /filename="([^"]*)"/.exec(response.headers.get('content-disposition') ?? '')?.[1];
  const link = document.createElement('a');
  link.href = URL.createObjectURL(await response.blob());
  link.download = name ?? `members.${format}`;
  link.click();
  URL.revokeObjectURL(link.href);
}

// Files of the server, fetched with the headers of this tab: a plain link would carry none.
import { ROOT } from '../../shared/address';
import { request } from './client';

/** Saves the members of an audience; the browser holds the file until it is complete. Raises `Error`. */
export async function downloadMembers(id: string, format: string, options: { columns: string[]; status?: string }): Promise<void> {
  const address = new URL(`${ROOT}audiences/${encodeURIComponent(id)}/members.${format}`, location.origin);
  if (options.columns.length > 0) address.searchParams.set('columns', options.columns.join(','));
  if (options.status) address.searchParams.set('status', options.status);
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

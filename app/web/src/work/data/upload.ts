// Uploads by the multipart request specification, with their progress: `fetch` cannot report it.
import { stringifyDocument, type CombinedError } from '@urql/core';

import { GRAPHQL } from '../../shared/address';
import { identityHeaders } from '../../shared/identity';
import { reportAnswer, reportLost, reportUnauthorized } from '../api/connection';
import { Foreign, problemOf } from '../api/problem';
import { UploadBatchDocument, type DataFormat, type UploadBatchMutation } from '../api/operations';

const FORMATS: [RegExp, DataFormat][] = [
  [/\.(csv|tsv|txt)(\.gz)?$/i, 'CSV'],
  [/\.(ndjson|jsonl|json)(\.gz)?$/i, 'NDJSON'],
  [/\.parquet$/i, 'PARQUET'],
];

export const formatOf = (name: string) => FORMATS.find(([pattern]) => pattern.test(name))?.[1];

export type Uploaded = UploadBatchMutation['uploadBatch'];

export interface Transfer {
  done: Promise<Uploaded>;
  cancel: () => void;
}

/** Sends `file`, to be tried or loaded; `progress` gets the share that was sent, and 1 while the server reads it. */
export function upload(
  input: { datasetId: string; format: DataFormat; dryRun: boolean },
  file: File,
  progress: (share: number) => void,
): Transfer {
  const request = new XMLHttpRequest();
  const done = new Promise<Uploaded>((resolve, reject) => {
    request.open('POST', GRAPHQL);
    const headers = { accept: 'application/json', 'graphql-preflight': '1', ...identityHeaders() };
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => event.lengthComputable && progress(event.loaded / event.total);
    request.onload = () => {
      if (request.status === 401) reportUnauthorized();
      else reportAnswer();
      try {
        const answer = JSON.parse(request.responseText) as { data?: UploadBatchMutation; errors?: CombinedError['graphQLErrors'] };
        if (answer.data?.uploadBatch) resolve(answer.data.uploadBatch);
        else reject(answer.errors ? new Error(problemOf({ graphQLErrors: answer.errors } as CombinedError)) : new Foreign(`${request.status} ${request.statusText}`));
      } catch {
        reject(new Foreign(`${request.status} ${request.statusText}: ${request.responseText.slice(0, 300)}`));
      }
    };
    request.onerror = () => {
      reportLost();
      reject(new Error('The connection broke before the server answered. Look at the batches below: perhaps the file has landed.'));
    };
    request.onabort = () => reject(new Error('Cancelled. Nothing has landed.'));
    const body = new FormData();
    const operations = {
      query: stringifyDocument(UploadBatchDocument),
      variables: { input: { ...input, file: null } },
    };
    body.append('operations', JSON.stringify(operations));
    body.append('map', JSON.stringify({ file: ['variables.input.file'] }));
    body.append('file', file, file.name);
    request.send(body);
  });
  return { done, cancel: () => request.abort() };
}

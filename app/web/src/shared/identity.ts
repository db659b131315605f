// Who asks and in which tenant: the headers of every request and of the socket's first message.

export interface Identity {
  organisation?: string;
  sandbox?: string;
  /** A bearer token, or an API key; only for this tab, never stored beyond it. */
  token?: string;
  apiKey?: string;
}

const KEY = 'segmentation:identity';

export function readIdentity(): Identity {
  try {
    return JSON.parse(sessionStorage.getItem(KEY) ?? '{}') as Identity;
  } catch {
    return {};
  }
}

export function writeIdentity(identity: Identity): void {
  sessionStorage.setItem(KEY, JSON.stringify(identity));
}

export function identityHeaders(identity = readIdentity()): Record<string, string> {
  const headers: Record<string, string> = {};
  if (identity.organisation) headers['x-gw-ims-org-id'] = identity.organisation;
  if (identity.sandbox) headers['x-sandbox-name'] = identity.sandbox;
  if (identity.token) headers.authorization = `Bearer ${identity.token}`;
  if (identity.apiKey) headers['x-api-key'] = identity.apiKey;
  return headers;
}

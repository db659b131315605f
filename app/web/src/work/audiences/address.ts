/** Where an audience is shown: by its raw id, or by its global id when the raw one is not unique among namespaces. */
export const audiencePath = (audience: { id: string; audienceId: string; type: string }) =>
  `/audiences/${encodeURIComponent(audience.type === 'EXTERNAL_SEGMENT' ? audience.id : audience.audienceId)}`;

SELECT api_key.organisation, api_key.sandbox, api_key.id, api_key.name, api_key.prefix, api_key.digest, api_key.permissions, api_key.sandboxes, api_key.created_by, api_key.created_at, api_key.last_used_at, api_key.expires_at, api_key.revoked_at, api_key.id AS page_key_0 FROM api_key WHERE api_key.organisation = ? AND api_key.sandbox = ? ORDER BY api_key.id DESC LIMIT ? OFFSET ?;
SELECT audit_event.organisation, audit_event.sandbox, audit_event.id, audit_event.at, audit_event.subject, audit_event.action, audit_event.resource_id, audit_event.outcome, audit_event.request_id, audit_event.id AS page_key_0 FROM audit_event WHERE audit_event.organisation = ? AND audit_event.sandbox = ? AND audit_event.action = ? ORDER BY audit_event.id DESC LIMIT ? OFFSET ?;
SELECT count(*) AS count_1 FROM api_key WHERE api_key.organisation = ? AND api_key.sandbox = ?;
SELECT count(*) AS count_1 FROM audit_event WHERE audit_event.organisation = ? AND audit_event.sandbox = ? AND audit_event.action = ?;
SELECT dataset.sandbox FROM dataset WHERE dataset.organisation = ? UNION SELECT audience.sandbox FROM audience WHERE audience.organisation = ? UNION SELECT sandbox.sandbox FROM sandbox WHERE sandbox.organisation = ?;
SELECT sandbox.sandbox, sandbox.time_zone FROM sandbox WHERE sandbox.organisation = ?;
SELECT sandbox.time_zone FROM sandbox WHERE sandbox.organisation = ? AND sandbox.sandbox = ?;

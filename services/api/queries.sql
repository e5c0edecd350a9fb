-- name: insert_submissions
-- One statement for all requests that arrived together. Arrays are passed in binary (`b`): text takes four times the
-- processor time here, and more in Postgres.
INSERT INTO tidings.submissions (id, tenant, target, body, content_type, metadata, channel, webhook, idempotency_key,
  fingerprint, traceparent, created_at, expires_at)
SELECT * FROM unnest(%(id)b::uuid[], %(tenant)b::text[], %(target)b::text[], %(body)b::bytea[],
  %(content_type)b::text[], %(metadata)b::jsonb[], %(channel)b::text[], %(webhook)b::text[],
  %(idempotency_key)b::text[], %(fingerprint)b::bytea[], %(traceparent)b::text[], %(created_at)b::timestamptz[],
  %(expires_at)b::timestamptz[])

-- name: unless_there
-- Appended to insert_submissions when the statement is retried.
ON CONFLICT DO NOTHING

-- name: take_keys
-- Claims the unused idempotency keys; waits for a concurrent transaction that holds the same key.
INSERT INTO tidings.idempotency_keys (tenant, key, submission_id, fingerprint)
SELECT * FROM unnest(%(tenant)b::text[], %(key)b::text[], %(id)b::uuid[], %(fingerprint)b::bytea[])
ON CONFLICT DO NOTHING
RETURNING tenant, key

-- name: read_keys
SELECT k.tenant, k.key, k.submission_id, k.fingerprint FROM tidings.idempotency_keys AS k
JOIN unnest(%(tenant)b::text[], %(key)b::text[]) AS wanted (tenant, key) USING (tenant, key)

-- name: tenant_of_key
SELECT tenant FROM tidings.api_keys WHERE key_sha256 = %(key_sha256)s AND revoked_at IS NULL

-- name: get
SELECT s.id, s.target, s.channel, s.metadata, s.created_at, s.expires_at, s.content_removed_at, r.outcome, r.reason,
  r.status_code, r.content_type, r.body_size, r.output, r.created_at AS completed_at, b.number AS begun_number,
  b.started_at AS begun_at
FROM tidings.submissions AS s LEFT JOIN tidings.results AS r ON r.submission_id = s.id
LEFT JOIN LATERAL (SELECT number, started_at FROM tidings.attempt_starts
  WHERE submission_id = %(id)s AND r.submission_id IS NULL ORDER BY number DESC LIMIT 1) AS b ON true
WHERE s.id = %(id)s AND s.tenant = %(tenant)s

-- name: attempts
SELECT number, status_code, error, fate, retry_at, started_at, ended_at FROM tidings.attempts
WHERE submission_id = %(id)s AND tenant = %(tenant)s ORDER BY number LIMIT 1000

-- name: list
-- Newest first; `cursor` is the last id of the previous page. The status is derived as in presentation.derived_status.
-- The query examines `look` submissions at most, and so never a tenant's whole history; `look_on` is the last of them
-- if more may follow.
WITH looked AS MATERIALIZED (
  SELECT s.id, s.target, s.channel, s.created_at FROM tidings.submissions AS s
  WHERE s.tenant = %(tenant)s
    AND (%(cursor)s::uuid IS NULL OR s.id < %(cursor)s)
    AND (%(since)s::timestamptz IS NULL OR s.id >= tidings.uuid_floor(%(since)s))
  ORDER BY s.id DESC LIMIT %(look)s
), edge AS (
  SELECT CASE WHEN count(*) = %(look)s THEN (array_agg(id ORDER BY id))[1] END AS look_on FROM looked
), found AS (
  SELECT looked.*, r.created_at AS completed_at,
    coalesce(r.outcome, CASE WHEN b.started_at IS NOT NULL THEN 'running' WHEN a.number IS NULL THEN 'queued'
      WHEN a.retry_at > now() THEN 'retrying' ELSE 'running' END) AS status,
    b.started_at AS running_since
  FROM looked
  LEFT JOIN tidings.results AS r ON r.submission_id = looked.id
  LEFT JOIN LATERAL (SELECT number, retry_at FROM tidings.attempts WHERE submission_id = looked.id
    ORDER BY number DESC LIMIT 1) AS a ON true
  LEFT JOIN LATERAL (SELECT started_at FROM tidings.attempt_starts
    WHERE submission_id = looked.id AND number > coalesce(a.number, 0) AND r.submission_id IS NULL
    ORDER BY number DESC LIMIT 1) AS b ON true
  WHERE %(target)s::text IS NULL OR looked.target = %(target)s
)
SELECT edge.look_on, page.* FROM edge LEFT JOIN (
  SELECT * FROM found WHERE %(status)s::text IS NULL OR status = %(status)s ORDER BY id DESC LIMIT %(limit)s + 1
) AS page ON true
ORDER BY page.id DESC

-- name: result
SELECT r.body, r.content_type, r.content_encoding, r.outcome, s.content_removed_at FROM tidings.submissions AS s
LEFT JOIN tidings.results AS r ON r.submission_id = s.id
WHERE s.id = %(id)s AND s.tenant = %(tenant)s

-- name: cancel
-- Reads and writes in one statement; the primary key decides between a cancellation and a callback.
INSERT INTO tidings.results (submission_id, event_id, tenant, target, channel, webhook, metadata, traceparent, outcome,
  reason, submitted_at)
SELECT id, %(event_id)s, tenant, target, channel, webhook, metadata, traceparent, 'cancelled',
  'cancelled by the client', created_at
FROM tidings.submissions WHERE id = %(id)s AND tenant = %(tenant)s
ON CONFLICT DO NOTHING
RETURNING submission_id

-- name: remove_content
SELECT tidings.remove_content(%(tenant)s, %(id)s) AS came_to

-- name: remove_late_contents
SELECT tidings.remove_late_content(id) FROM unnest(%(ids)b::uuid[]) AS late (id)

-- name: targets_of
SELECT id, target FROM tidings.submissions WHERE id = ANY(%(ids)b::uuid[])

-- name: record
-- One statement for all callbacks that arrived together. A provider's error message may quote the input: a callback that
-- arrives after the content was removed must not store it again. jsonb writes 1e300 with all its digits. An output that
-- thereby exceeds the CHECK of the table is stored as null, because the row itself must never be rejected. The rows are
-- sorted by key, so that two transactions with the same rows wait for each other instead of deadlocking.
WITH attempt AS (
  INSERT INTO tidings.attempts (submission_id, number, tenant, status_code, error, fate, retry_at, started_at, ended_at,
    message_id)
  SELECT a.id, a.number, s.tenant, a.status_code,
    CASE WHEN a.error IS NULL THEN NULL WHEN s.content_removed_at IS NOT NULL THEN 'the content was removed'
      ELSE a.error END,
    a.fate, a.retry_at, a.started_at, a.ended_at, a.message_id
  FROM unnest(%(attempt_id)b::uuid[], %(attempt_number)b::integer[], %(attempt_status_code)b::integer[],
    %(attempt_error)b::text[], %(attempt_fate)b::text[], %(attempt_retry_at)b::timestamptz[],
    %(attempt_started_at)b::timestamptz[], %(attempt_ended_at)b::timestamptz[], %(attempt_message_id)b::text[])
    AS a (id, number, status_code, error, fate, retry_at, started_at, ended_at, message_id)
  JOIN tidings.submissions AS s ON s.id = a.id
  ORDER BY a.id, a.number
  ON CONFLICT DO NOTHING
)
INSERT INTO tidings.results (submission_id, event_id, tenant, target, channel, webhook, metadata, traceparent, outcome,
  reason, status_code, content_type, content_encoding, body, body_size, body_sha256, output, submitted_at)
SELECT s.id, r.event_id, s.tenant, s.target, s.channel, s.webhook, s.metadata, s.traceparent, r.outcome, r.reason,
  r.status_code, r.content_type, r.content_encoding, r.body, r.body_size, r.body_sha256,
  CASE WHEN octet_length((r.output::jsonb)::text) <= 65536 THEN r.output::jsonb END, s.created_at
FROM unnest(%(result_id)b::uuid[], %(result_event_id)b::uuid[], %(result_outcome)b::text[], %(result_reason)b::text[],
  %(result_status_code)b::integer[], %(result_content_type)b::text[], %(result_content_encoding)b::text[],
  %(result_body)b::bytea[], %(result_body_size)b::integer[], %(result_body_sha256)b::text[], %(result_output)b::text[])
  AS r (id, event_id, outcome, reason, status_code, content_type, content_encoding, body, body_size, body_sha256, output)
JOIN tidings.submissions AS s ON s.id = r.id
ORDER BY r.id
ON CONFLICT DO NOTHING
RETURNING submission_id

-- name: insert_starts
-- The times are for display: a time that is impossible becomes the nearest possible one. A start of an unknown
-- submission is skipped. An attempt that is repeated because its fate was unknown has the same number and keeps its
-- first start. The rows are sorted by key, so that two transactions with the same rows wait for each other instead of
-- deadlocking.
INSERT INTO tidings.attempt_starts (submission_id, number, started_at)
SELECT s.id, told.number, least(greatest(told.started_at, s.created_at), clock_timestamp())
FROM unnest(%(id)b::uuid[], %(number)b::integer[], %(started_at)b::timestamptz[]) AS told (id, number, started_at)
JOIN tidings.submissions AS s ON s.id = told.id
ORDER BY s.id, told.number
ON CONFLICT DO NOTHING

-- name: dispatch
-- Without the bodies: a hundred of them may be half a gigabyte. Postgres knows the size of a body without reading it.
-- An ended submission needs no body: after a lost slot the dispatcher asks for all of them.
SELECT s.id, s.target, s.content_type, CASE WHEN r.submission_id IS NULL THEN octet_length(s.body) ELSE 0 END AS size,
  r.submission_id IS NOT NULL AS ended
FROM tidings.submissions AS s LEFT JOIN tidings.results AS r ON r.submission_id = s.id
WHERE s.id = ANY(%(ids)s)

-- name: bodies
SELECT id, body FROM tidings.submissions WHERE id = ANY(%(ids)s)

-- name: ping
SELECT 1

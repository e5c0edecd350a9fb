-- name: deduplicate
-- Takes the id for a new message, unless an earlier one still holds it; answers whose it is now.
WITH taken AS (
  INSERT INTO relay.deduplications AS d (id, message_id, expires_at)
  VALUES (%(id)s, %(message_id)s, now() + make_interval(secs => %(window_seconds)s))
  ON CONFLICT (id) DO UPDATE SET message_id = excluded.message_id, expires_at = excluded.expires_at
  WHERE d.expires_at < now()
  RETURNING message_id
)
SELECT message_id FROM taken
UNION ALL
SELECT message_id FROM relay.deduplications WHERE id = %(id)s
LIMIT 1

-- name: insert
INSERT INTO relay.messages (id, kind, protocol, url, method, body, sealed, label, retries_max, retry_delay, timeout_ms,
  final_status, final_errors, error_field, on_unknown, caller_ip, not_before, due_at)
VALUES (%(id)s, %(kind)s, %(protocol)s, %(url)s, %(method)s, %(body)s, %(sealed)s, %(label)s, %(retries_max)s,
  %(retry_delay)s, %(timeout_ms)s, %(final_status)s, %(final_errors)s, %(error_field)s, %(on_unknown)s, %(caller_ip)s,
  now() + make_interval(secs => %(delay_seconds)s), now() + make_interval(secs => %(delay_seconds)s))

-- name: claim
-- The attempt is on record, with its start, when this commits: before its socket opens.
WITH due AS (
  SELECT id FROM relay.messages
  WHERE state = 'waiting' AND due_at <= now()
  ORDER BY due_at
  LIMIT %(batch_max)s
  FOR UPDATE SKIP LOCKED
)
UPDATE relay.messages AS m
SET state = 'active', started_at = clock_timestamp(), lease_owner = %(owner)s,
  lease_until = now() + make_interval(secs => %(lease_seconds)s)
FROM due
WHERE m.id = due.id
RETURNING m.id, m.kind, m.protocol, m.url, m.method, m.body, m.sealed, m.label, m.retries_max, m.retry_delay,
  m.timeout_ms, m.final_status, m.final_errors, m.error_field, m.on_unknown, m.caller_ip, m.created_at, m.not_before,
  m.retried, m.started_at

-- name: next_due
SELECT extract(epoch FROM min(due_at) - now())::float8 FROM relay.messages WHERE state = 'waiting'

-- name: heartbeat
UPDATE relay.messages SET lease_until = now() + make_interval(secs => %(lease_seconds)s)
WHERE lease_owner = %(owner)s AND state = 'active' AND id = ANY(%(ids)s)

-- name: lost
-- Which of the calls this process holds are not its own any more: cancelled, or taken over.
SELECT held.id FROM unnest(%(ids)s::text[]) AS held (id)
LEFT JOIN relay.messages AS m ON m.id = held.id AND m.state = 'active' AND m.lease_owner = %(owner)s
WHERE m.id IS NULL

-- name: expire
-- A lease ran out, so its process died in the middle of a call: its fate is unknown. Such an attempt is made again, and
-- does not count as one of the retries, as it may be our crash and not the destination's.
WITH expired AS (
  SELECT id FROM relay.messages
  WHERE state = 'active' AND lease_until < now() AND on_unknown = 'retry'
  ORDER BY lease_until
  LIMIT %(batch_max)s
  FOR UPDATE SKIP LOCKED
)
UPDATE relay.messages AS m
SET state = 'waiting', due_at = now(), unknown = unknown + 1, started_at = NULL, lease_owner = NULL, lease_until = NULL
FROM expired
WHERE m.id = expired.id
RETURNING m.id

-- name: take_over
-- Those that asked not to be repeated are taken over, to be ended as failed.
WITH expired AS (
  SELECT id FROM relay.messages
  WHERE state = 'active' AND lease_until < now() AND on_unknown = 'fail'
  ORDER BY lease_until
  LIMIT %(batch_max)s
  FOR UPDATE SKIP LOCKED
)
UPDATE relay.messages AS m
SET unknown = unknown + 1, lease_owner = %(owner)s, lease_until = now() + make_interval(secs => %(lease_seconds)s)
FROM expired
WHERE m.id = expired.id
RETURNING m.id, m.kind, m.protocol, m.url, m.method, m.body, m.sealed, m.label, m.retries_max, m.retry_delay,
  m.timeout_ms, m.final_status, m.final_errors, m.error_field, m.on_unknown, m.caller_ip, m.created_at, m.not_before,
  m.retried, m.started_at

-- name: finish
-- The verdicts of a batch of attempts. Only of messages that are still ours: a cancelled one stays cancelled.
UPDATE relay.messages AS m
SET state = v.state, retried = v.retried, started_at = NULL, lease_owner = NULL, lease_until = NULL,
  due_at = CASE WHEN v.state = 'waiting' THEN now() + make_interval(secs => v.delay_seconds) ELSE m.due_at END,
  ended_at = CASE WHEN v.state = 'waiting' THEN NULL ELSE now() END
FROM unnest(%(ids)s::text[], %(states)s::text[], %(retried)s::int[], %(delays)s::float8[])
  AS v (id, state, retried, delay_seconds)
WHERE m.id = v.id AND m.state = 'active' AND m.lease_owner = %(owner)s
RETURNING m.id

-- name: bury
INSERT INTO relay.dead_letters (id, message_id, url, method, body, sealed, label, retries_max, created_at,
  response_status, response_header, response_body)
VALUES (%(id)s, %(message_id)s, %(url)s, %(method)s, %(body)s, %(sealed)s, %(label)s, %(retries_max)s, %(created_at)s,
  %(response_status)s, %(response_header)s, %(response_body)s)

-- name: release
-- At the end of a drain: what could not be finished is given to the others at once.
UPDATE relay.messages SET lease_until = now() WHERE lease_owner = %(owner)s AND state = 'active'

-- name: get
SELECT id, kind, protocol, url, method, body, sealed, label, retries_max, retry_delay, timeout_ms, caller_ip, created_at,
  not_before, state, due_at, retried, started_at
FROM relay.messages WHERE id = %(id)s

-- name: cancel
UPDATE relay.messages
SET state = 'cancelled', ended_at = now(), started_at = NULL, lease_owner = NULL, lease_until = NULL
WHERE (id = ANY(%(ids)s) OR label = ANY(%(labels)s)) AND state IN ('waiting', 'active')
RETURNING id

-- name: prune
WITH messages AS (
  DELETE FROM relay.messages WHERE id IN (
    SELECT id FROM relay.messages WHERE ended_at < now() - make_interval(secs => %(keep_seconds)s)
    ORDER BY ended_at LIMIT %(batch_max)s FOR UPDATE SKIP LOCKED)
  RETURNING 1
), keys AS (
  DELETE FROM relay.deduplications WHERE id IN (
    SELECT id FROM relay.deduplications WHERE expires_at < now() LIMIT %(batch_max)s FOR UPDATE SKIP LOCKED)
  RETURNING 1
), letters AS (
  DELETE FROM relay.dead_letters WHERE id IN (
    SELECT id FROM relay.dead_letters WHERE failed_at < now() - make_interval(secs => %(letters_seconds)s)
    LIMIT %(batch_max)s FOR UPDATE SKIP LOCKED)
  RETURNING 1
)
SELECT (SELECT count(*) FROM messages) + (SELECT count(*) FROM keys) + (SELECT count(*) FROM letters)

-- name: depth
SELECT count(*) FILTER (WHERE state = 'waiting'), count(*) FILTER (WHERE state = 'active'),
  coalesce(extract(epoch FROM now() - min(due_at) FILTER (WHERE state = 'waiting' AND due_at <= now())), 0)::float8
FROM relay.messages WHERE ended_at IS NULL

-- name: upsert
-- A replaced schedule keeps its history, and stays paused if it was.
INSERT INTO relay.schedules AS s (id, cron, destination, queue, sealed, body, body_key, body_size, body_sha256, protocol,
  caller_ip, paused, next_at)
VALUES (%(id)s, %(cron)s, %(destination)s, %(queue)s, %(sealed)s, %(body)s, %(body_key)s, %(body_size)s, %(body_sha256)s,
  %(protocol)s, %(caller_ip)s, %(paused)s, %(next_at)s)
ON CONFLICT (id) DO UPDATE SET cron = excluded.cron, destination = excluded.destination, queue = excluded.queue,
  sealed = excluded.sealed, body = excluded.body, body_key = excluded.body_key, body_size = excluded.body_size,
  body_sha256 = excluded.body_sha256, protocol = excluded.protocol, caller_ip = excluded.caller_ip,
  paused = s.paused OR excluded.paused, next_at = excluded.next_at, error = NULL

-- name: select
-- In a long list the last schedules are shown without their bodies.
SELECT id, cron, destination, queue, sealed,
  CASE WHEN sum(octet_length(body)) OVER (ORDER BY created_at, id) <= %(bytes_max)s THEN body ELSE '' END AS body,
  protocol, caller_ip, paused, created_at, next_at, last_at, last_message_ids, error
FROM relay.schedules
WHERE %(id)s::text IS NULL OR id = %(id)s
ORDER BY created_at, id

-- name: states
-- The state of each message, or the last one in the log if the message was pruned.
SELECT v.id, coalesce(
  (SELECT m.state FROM relay.messages AS m WHERE m.id = v.id),
  (SELECT lower(e.state) FROM relay.events AS e
   WHERE e.message_id = v.id AND e.state IN ('DELIVERED', 'FAILED', 'CANCELED') LIMIT 1)) AS state
FROM unnest(%(ids)s::text[]) AS v (id)

-- name: delete
DELETE FROM relay.schedules WHERE id = %(id)s RETURNING body_key

-- name: pause
UPDATE relay.schedules SET paused = true WHERE id = %(id)s

-- name: lock
SELECT cron, body_key FROM relay.schedules WHERE id = %(id)s FOR UPDATE

-- name: resume
UPDATE relay.schedules SET paused = false, next_at = %(next_at)s WHERE id = %(id)s AND paused

-- name: due
-- The schedule that fired longest ago comes first, so that those of a token at its limit take turns.
SELECT id, cron, destination, queue, sealed, body, body_key, body_size, body_sha256, protocol, caller_ip
FROM relay.schedules
WHERE NOT paused AND next_at <= %(now)s
ORDER BY last_at NULLS FIRST, next_at
LIMIT %(batch_max)s
FOR UPDATE SKIP LOCKED

-- name: fired
UPDATE relay.schedules SET next_at = %(next_at)s, last_at = %(now)s, last_message_ids = %(message_ids)s, error = NULL
WHERE id = %(id)s

-- name: later
-- The schedule is due, but its token is at its limit.
UPDATE relay.schedules SET next_at = %(next_at)s WHERE id = %(id)s

-- name: broken
UPDATE relay.schedules SET next_at = %(next_at)s, error = %(error)s WHERE id = %(id)s

-- name: next
SELECT next_at FROM relay.schedules WHERE NOT paused ORDER BY next_at LIMIT 1

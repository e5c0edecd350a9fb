-- name: upsert
INSERT INTO relay.queues AS q (name, parallelism, paused)
VALUES (%(name)s, %(parallelism)s, coalesce(%(paused)s::boolean, false))
ON CONFLICT (name) DO UPDATE SET parallelism = excluded.parallelism, paused = coalesce(%(paused)s::boolean, q.paused),
  updated_at = clock_timestamp()

-- name: set_paused
INSERT INTO relay.queues AS q (name, paused) VALUES (%(name)s, %(paused)s)
ON CONFLICT (name) DO UPDATE SET paused = excluded.paused, updated_at = clock_timestamp()

-- name: select
-- The live messages of a queue are those that wait for a slot, and those that hold one and have not ended.
SELECT q.name, q.parallelism, q.paused, q.created_at, q.updated_at,
  (SELECT count(*) FROM relay.messages AS m WHERE m.queue = q.name AND m.state = 'queued')
  + (SELECT count(*) FROM relay.messages AS m
     WHERE m.queue = q.name AND m.holds AND m.ended_at IS NULL AND m.state <> 'queued') AS lag
FROM relay.queues AS q
WHERE %(name)s::text IS NULL OR q.name = %(name)s
ORDER BY q.name

-- name: lock
SELECT FROM relay.queues WHERE name = %(name)s FOR UPDATE

-- name: enter
SELECT key FROM relay.enter(%(queues)s::text[]) AS key WHERE key IS NOT NULL

-- name: touch
SELECT relay.touch_flows(%(keys)s::text[], array_fill(NULL::timestamptz, ARRAY[cardinality(%(keys)s::text[])]),
  array_fill(false, ARRAY[cardinality(%(keys)s::text[])]))

-- name: cancel_queued
-- This runs under the queue's lock, so that no message enters, leaves or moves. A message locked by another transaction
-- is being cancelled there.
-- `period + 0`: see claim in messages.sql.
WITH found AS (
  SELECT id, period FROM relay.messages WHERE queue = %(name)s AND state = 'queued'
  ORDER BY id LIMIT %(batch_max)s
  FOR UPDATE SKIP LOCKED
), cancelled AS (
  UPDATE relay.messages AS m SET state = 'cancelled', ended_at = now(), holds = false
  FROM found WHERE m.id = found.id AND m.period + 0 = found.period
  RETURNING m.*
), logged AS (
  INSERT INTO relay.events (at, message_id, state, /* facts */)
  SELECT clock_timestamp(), id, 'CANCELED', /* facts */
  FROM cancelled
)
SELECT body_key FROM cancelled

-- name: delete
DELETE FROM relay.queues WHERE name = %(name)s

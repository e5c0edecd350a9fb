-- name: try_lock
-- Whether this transaction runs the janitor now. The lock is released at its end.
SELECT pg_try_advisory_xact_lock(%(lock_id)s) AS locked

-- name: set_lock_timeout
-- Give up on a table that is in use and leave it to a later round: a waiting lock request blocks all later ones.
SELECT set_config('lock_timeout', %(lock_timeout_ms)s::text, true)

-- name: make_partitions
SELECT relay.make_partitions(2) AS count

-- name: period_is_over
-- An empty period stays open. This is a separate statement, as the next one creates a table, which fails while the
-- partitions are open in the same statement.
SELECT count(*) AS count FROM (SELECT period, opened_at FROM relay.periods ORDER BY period DESC LIMIT 1) AS newest
WHERE opened_at < clock_timestamp() - make_interval(secs => %(period_seconds)s)
  AND (SELECT true FROM relay.messages AS m WHERE m.period = newest.period LIMIT 1)

-- name: open_period
SELECT relay.open_period()

-- name: closable
-- Any period but the newest, once all messages that it had when the next one was opened have had time to end and to be
-- kept. Periods are examined in turn, so that those with long calls do not delay the others.
WITH next AS (
  SELECT p.period FROM relay.periods AS p
  JOIN LATERAL (
    SELECT opened_at FROM relay.periods AS l WHERE l.period > p.period ORDER BY l.period LIMIT 1
  ) AS later ON true
  WHERE later.opened_at < clock_timestamp() - make_interval(secs => %(keep_seconds)s)
  ORDER BY p.looked_at NULLS FIRST, p.period
  LIMIT %(batch_max)s
)
UPDATE relay.periods AS p SET looked_at = clock_timestamp() FROM next WHERE p.period = next.period
RETURNING p.period

-- name: move_waiting
SELECT relay.move_waiting(%(period)s, %(batch_max)s) AS count

-- name: close_period
SELECT relay.close_period(%(period)s, %(keep_seconds)s)::integer AS count

-- name: drop_events
SELECT count(*) AS count FROM relay.drop_days('relay.events', %(days)s)

-- name: drop_dead_letters
SELECT count(*) AS count FROM relay.drop_days('relay.dead_letters', %(days)s)

-- name: prune_long
WITH gone AS (
  DELETE FROM relay.messages_long WHERE id IN (
    SELECT id FROM relay.messages_long
    WHERE ended_at < clock_timestamp() - make_interval(secs => %(keep_seconds)s) AND NOT holds
    LIMIT %(batch_max)s FOR UPDATE SKIP LOCKED)
  RETURNING id, body_key
), pieces AS (
  DELETE FROM relay.chunks WHERE key IN (SELECT body_key FROM gone WHERE body_key IS NOT NULL AND NOT relay.is_named(body_key))
)
SELECT count(*) AS count FROM gone

-- name: prune_chunks
-- Pieces that nothing refers to: their message's partition was dropped, or the message was never accepted. Young pieces
-- may belong to a message that is not accepted yet.
WITH old AS (
  SELECT key FROM relay.chunks WHERE part = 0 AND created_at < clock_timestamp() - make_interval(secs => %(age_seconds)s)
    AND NOT relay.is_named(key)
  ORDER BY created_at
  LIMIT %(batch_max)s
), gone AS (
  DELETE FROM relay.chunks WHERE key IN (SELECT key FROM old) RETURNING 1
)
SELECT count(*) AS count FROM gone

-- name: prune_answers
-- Answers that were too large for their callback. prune_chunks removes their pieces.
WITH gone AS (
  DELETE FROM relay.answers WHERE (message_id, attempt) IN (
    SELECT message_id, attempt FROM relay.answers WHERE created_at < clock_timestamp() - make_interval(secs => %(answer_seconds)s)
    ORDER BY created_at LIMIT %(batch_max)s FOR UPDATE SKIP LOCKED)
  RETURNING 1
)
SELECT count(*) AS count FROM gone

-- name: prune_deduplications
WITH gone AS (
  DELETE FROM relay.deduplications WHERE id IN (
    SELECT id FROM relay.deduplications WHERE expires_at < clock_timestamp() ORDER BY expires_at LIMIT %(batch_max)s
    FOR UPDATE SKIP LOCKED)
  RETURNING 1
)
SELECT count(*) AS count FROM gone

-- name: prune_cancellations
WITH gone AS (
  DELETE FROM relay.cancellations WHERE created_at < clock_timestamp() - interval '1 hour' RETURNING 1
)
SELECT count(*) AS count FROM gone

-- name: prune_put_offs
-- Put-offs of messages that were cancelled or now wait for something else. A message that is only put off returns
-- within minutes.
WITH gone AS (
  DELETE FROM relay.put_offs WHERE message_id IN (
    SELECT message_id FROM relay.put_offs WHERE put_off_at < clock_timestamp() - interval '1 day'
    ORDER BY put_off_at LIMIT %(batch_max)s FOR UPDATE SKIP LOCKED)
  RETURNING 1
)
SELECT count(*) AS count FROM gone

-- name: prune_processes
-- A process is not removed while calls are held in its name: these are given to others first.
WITH gone AS (
  DELETE FROM relay.processes AS p WHERE lease_until < clock_timestamp() - interval '1 day'
    AND NOT EXISTS (SELECT FROM relay.messages AS m WHERE m.lease_owner = p.owner AND m.state = 'active')
  RETURNING 1
)
SELECT count(*) AS count FROM gone

-- name: keys_upto
-- The last flow key of this round, which starts after the last key of the previous round. Null: no key is left.
SELECT max(key) AS upto
FROM (SELECT key FROM relay.flow_keys WHERE key > %(after)s ORDER BY key LIMIT %(batch_max)s) AS found

-- name: prune_flow_keys
-- Keys without live messages that have not been used for long, and have no pin of an operator and no open rate window.
-- A transaction that accepts a message locks its key's row after the message's. It either waits for the lock taken here
-- and inserts the key again, or has locked the row first, and then the row is skipped. Scalar subqueries make Postgres
-- look up each old key instead of hashing all messages.
WITH old AS (
  SELECT f.key FROM relay.flow_keys AS f JOIN relay.flow_limits_in_force AS e USING (key)
  WHERE f.key > %(after)s AND f.key <= %(upto)s
    AND f.updated_at < clock_timestamp() - make_interval(secs => %(days)s * 86400)
    AND NOT (f.paused OR f.pinned_parallelism OR f.pinned_rate OR f.pinned_cooling)
    AND coalesce(f.cooling_until, '-infinity') < clock_timestamp()
    AND f.window_started_at + make_interval(secs => e.period_seconds) < clock_timestamp()
    AND (SELECT true FROM relay.messages AS m WHERE m.flow_key = f.key AND m.state = 'waiting' LIMIT 1) IS NULL
    AND (SELECT true FROM relay.messages AS m WHERE m.flow_key = f.key AND m.state = 'active' LIMIT 1) IS NULL
    AND (SELECT true FROM relay.messages AS m WHERE m.flow_key = f.key AND m.state = 'queued' LIMIT 1) IS NULL
  LIMIT %(batch_max)s
  FOR UPDATE OF f SKIP LOCKED
), gone AS (
  DELETE FROM relay.flow_keys AS f USING old WHERE f.key = old.key RETURNING 1
), unlimited AS (
  DELETE FROM relay.flow_limits AS l USING old WHERE l.key = old.key
)
SELECT count(*) AS count FROM gone

-- name: add_missing_owners
-- A call in the name of an unknown process would never be given to another.
WITH made AS (
  INSERT INTO relay.processes (owner, lease_until)
  SELECT DISTINCT m.lease_owner, clock_timestamp() FROM relay.messages AS m
  WHERE m.state = 'active' AND NOT EXISTS (SELECT FROM relay.processes AS p WHERE p.owner = m.lease_owner)
  ON CONFLICT DO NOTHING
  RETURNING 1
)
SELECT count(*) AS count FROM made

-- name: free_places_of_ended
-- Messages that ended some time ago, with all their callbacks, and still hold a slot of their queue.
WITH done AS (
  SELECT m.id, m.period FROM relay.messages AS m
  WHERE m.holds AND m.ended_at < clock_timestamp() - make_interval(secs => %(grace_seconds)s)
    AND NOT EXISTS (SELECT FROM relay.messages AS c WHERE c.parent_id = m.id AND c.ended_at IS NULL)
  LIMIT %(batch_max)s
  FOR UPDATE SKIP LOCKED
)
UPDATE relay.messages AS m SET holds = false FROM done WHERE m.id = done.id AND m.period = done.period

-- name: queued_in
-- The queues that messages wait in, found by a loose index scan: there may be very many messages in few queues.
WITH RECURSIVE hops AS (
  (SELECT queue FROM relay.messages WHERE state = 'queued' ORDER BY queue LIMIT 1)
  UNION ALL
  SELECT (SELECT m.queue FROM relay.messages AS m WHERE m.state = 'queued' AND m.queue > hops.queue ORDER BY m.queue LIMIT 1)
  FROM hops WHERE hops.queue IS NOT NULL
)
SELECT queue FROM hops WHERE queue IS NOT NULL LIMIT %(queues_max)s

-- name: make_queues
INSERT INTO relay.queues (name) SELECT unnest(%(queues)s::text[]) ON CONFLICT DO NOTHING

-- name: wake_flow_keys
-- Keys with capacity and waiting messages that would be examined too late or never.
WITH stuck AS (
  SELECT f.key, first.due_at FROM relay.flow_keys AS f JOIN relay.flow_limits_in_force AS e USING (key)
  JOIN LATERAL (
    SELECT m.due_at FROM relay.messages AS m WHERE m.flow_key = f.key AND m.state = 'waiting' ORDER BY m.due_at LIMIT 1
  ) AS first ON true
  WHERE f.key > %(after)s AND f.key <= %(upto)s AND NOT f.paused
    AND (f.ready_at IS NULL OR f.ready_at > greatest(first.due_at, clock_timestamp()))
    AND (f.cooling_until IS NULL OR f.cooling_until < clock_timestamp())
    AND (e.rate IS NULL OR f.window_count < e.rate
      OR f.window_started_at + make_interval(secs => e.period_seconds) < clock_timestamp())
    AND (SELECT count(*) FROM relay.messages AS a WHERE a.flow_key = f.key AND a.state = 'active')
      < CASE WHEN f.cooling_until IS NULL THEN coalesce(e.parallelism, 2147483647) ELSE 1 END
  ORDER BY f.key
  LIMIT %(batch_max)s
  FOR NO KEY UPDATE OF f SKIP LOCKED
), mended AS (
  UPDATE relay.flow_keys AS f SET ready_at = greatest(stuck.due_at, clock_timestamp()) FROM stuck WHERE f.key = stuck.key
  RETURNING 1
)
SELECT count(*) AS count FROM mended

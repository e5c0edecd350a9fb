-- Many rows are passed as one JSON array. This costs our side the least, which is busier than the database.

-- name: deduplicate
-- Take the deduplication ids for new messages, unless earlier messages still hold them. Returns the holder of each.
WITH asked AS (
  SELECT * FROM unnest(%(keys)s::text[], %(ids)s::text[]) AS v (key, id)
), taken AS (
  INSERT INTO relay.deduplications AS d (id, message_id, expires_at)
  SELECT key, id, now() + make_interval(secs => %(window_seconds)s) FROM asked ORDER BY key
  ON CONFLICT (id) DO UPDATE SET message_id = excluded.message_id, expires_at = excluded.expires_at
  WHERE d.expires_at < now()
  RETURNING id AS key, message_id
)
SELECT key, message_id FROM taken
UNION ALL
SELECT d.id, d.message_id FROM relay.deduplications AS d JOIN asked ON asked.key = d.id
WHERE d.id NOT IN (SELECT key FROM taken) AND d.expires_at >= now()

-- name: holder
-- The holder of a key that another transaction took after the snapshot of the previous statement, in which the key was
-- free or expired.
SELECT message_id FROM relay.deduplications WHERE id = %(key)s

-- name: insert
-- Insert into the newest partition. A message with a queue waits for a slot, any other for its time. The log gets a row
-- too.
WITH new AS (
  INSERT INTO relay.messages (id, period, kind, protocol, body, body_key, body_size, body_sha256, sealed, on_unknown,
    label, parent_id, not_before, due_at, state, /* facts */)
  SELECT id, (SELECT max(period) FROM relay.periods), kind, protocol, decode(body, 'base64'), body_key, body_size,
    decode(body_sha256, 'base64'), decode(sealed, 'base64'), on_unknown, label, parent_id,
    now() + make_interval(secs => delay_seconds), now() + make_interval(secs => delay_seconds),
    CASE WHEN queue IS NULL THEN 'waiting' ELSE 'queued' END, /* facts */
  FROM json_to_recordset(%(rows)s::json) AS v (id text, kind text, protocol smallint, url text, method text, body text,
    body_key text, body_size bigint, body_sha256 text, sealed text, retries_max integer, timeout_ms bigint,
    on_unknown text, caller_ip text, label text, labels text[], queue text, flow_key text, topic text, endpoint text,
    schedule_id text, parent_id text, delay_seconds float8)
  RETURNING *
)
INSERT INTO relay.events (at, message_id, state, /* facts */, next_due_at, details)
SELECT created_at, id, 'CREATED', /* facts */, due_at, sealed
FROM new

-- name: make_queues
INSERT INTO relay.queues (name) SELECT unnest(%(queues)s::text[]) ORDER BY 1 ON CONFLICT DO NOTHING

-- name: set_limits
-- The newest message sets a key's limits and cooling. They have rows of their own, which claims do not lock: a
-- publisher holds them until it commits.
INSERT INTO relay.flow_limits AS l (key, parallelism, rate, period_seconds, cools)
SELECT key, parallelism, rate, period_seconds, cools
FROM unnest(%(keys)s::text[], %(parallelisms)s::integer[], %(rates)s::integer[], %(periods)s::integer[],
  %(cools)s::boolean[]) AS v (key, parallelism, rate, period_seconds, cools)
WHERE NOT EXISTS (
  SELECT FROM relay.flow_limits AS s
  WHERE s.key = v.key AND s.parallelism IS NOT DISTINCT FROM v.parallelism AND s.rate IS NOT DISTINCT FROM v.rate
    AND s.period_seconds = v.period_seconds AND s.cools = v.cools)
ORDER BY key
ON CONFLICT (key) DO UPDATE SET parallelism = excluded.parallelism, rate = excluded.rate,
  period_seconds = excluded.period_seconds, cools = excluded.cools

-- name: set_flows
-- Messages may be claimable from `due_seconds` on. If a key is looked at by then already, it is only locked: claims are
-- not blocked by this lock, but would be by that of an update, and the lock prevents deletion of the key. This comes
-- after set_limits, so that a key that was found full by its old limits is looked at. See relay.claim_keyed.
WITH asked AS MATERIALIZED (
  SELECT key, parallelism, rate, period_seconds, cools,
    clock_timestamp() + make_interval(secs => due_seconds) AS ready_at
  FROM unnest(%(keys)s::text[], %(parallelisms)s::integer[], %(rates)s::integer[], %(periods)s::integer[],
    %(cools)s::boolean[], %(dues)s::float8[]) AS v (key, parallelism, rate, period_seconds, cools, due_seconds)
), held AS (
  SELECT f.key FROM asked AS a JOIN relay.flow_keys AS f USING (key)
  WHERE f.ready_at <= a.ready_at
  ORDER BY f.key
  FOR KEY SHARE OF f
)
INSERT INTO relay.flow_keys AS f (key, parallelism, rate, period_seconds, cools, ready_at)
SELECT key, parallelism, rate, period_seconds, cools, ready_at FROM asked WHERE key NOT IN (SELECT key FROM held)
ORDER BY key
ON CONFLICT (key) DO UPDATE SET ready_at = least(f.ready_at, excluded.ready_at), updated_at = clock_timestamp()

-- name: claim
-- The attempts and their starts are recorded when this commits, before any socket is opened. If a message was put off,
-- the log has its first claim, and later ones only if they become an attempt, once that has ended. Rows written before
-- 0008 may contain large bodies. The first row is taken whatever its size, including headers and options. `period + 0`,
-- here and wherever a part of a statement changes what another part has locked, prevents partition pruning at run time:
-- Postgres 18 prunes with freed memory when a row was changed before its lock was acquired (seen with 18.6; fixed by
-- upstream's commit 1b5dd3a).
WITH due AS (
  SELECT id, period, due_at, octet_length(sealed) + CASE WHEN body_key IS NULL THEN body_size ELSE 0 END AS size
  FROM relay.messages
  WHERE state = 'waiting' AND flow_key IS NULL AND due_at <= clock_timestamp()
  ORDER BY due_at, id
  LIMIT %(batch_max)s
  FOR UPDATE SKIP LOCKED
), sized AS (
  SELECT id, period, size, sum(size) OVER (ORDER BY due_at, id ROWS UNBOUNDED PRECEDING) AS total FROM due
), claimed AS (
  UPDATE relay.messages AS m SET state = 'active', started_at = clock_timestamp(), lease_owner = %(owner)s
  FROM sized WHERE m.id = sized.id AND m.period + 0 = sized.period
    AND (sized.total <= %(bytes_max)s OR sized.total = sized.size)
    AND EXISTS (SELECT FROM relay.processes WHERE owner = %(owner)s AND lease_until > clock_timestamp())
  RETURNING m.*, (SELECT p.count FROM relay.put_offs AS p WHERE p.message_id = m.id) AS put_offs
), logged AS (
  INSERT INTO relay.events (at, message_id, state, attempt, /* facts */)
  SELECT started_at, id, 'ACTIVE', retried, /* facts */
  FROM claimed WHERE put_offs IS NULL
)
SELECT * FROM claimed

-- name: claim_keyed
WITH claimed AS (
  SELECT m.*, (SELECT o.count FROM relay.put_offs AS o WHERE o.message_id = m.id) AS put_offs
  FROM relay.processes AS p, relay.claim_keyed(p.owner, %(batch_max)s, %(keys_max)s, %(bytes_max)s) AS m
  WHERE p.owner = %(owner)s AND p.lease_until > clock_timestamp()
), logged AS (
  INSERT INTO relay.events (at, message_id, state, attempt, /* facts */)
  SELECT started_at, id, 'ACTIVE', retried, /* facts */
  FROM claimed WHERE put_offs IS NULL
)
SELECT * FROM claimed

-- name: next_due
-- The seconds until the next message may be claimed: without a key, and with one.
SELECT extract(epoch FROM least(
  (SELECT due_at FROM relay.messages WHERE state = 'waiting' AND flow_key IS NULL ORDER BY due_at, id LIMIT 1),
  (SELECT ready_at FROM relay.flow_keys WHERE ready_at IS NOT NULL ORDER BY ready_at LIMIT 1)
) - clock_timestamp())::float8 AS seconds

-- name: finish
-- The verdicts of a batch of attempts. They apply only to claims that this process still holds: a cancelled message
-- stays cancelled, and the verdict of an earlier claim does not apply to a later one. A queued message keeps its slot
-- until its callbacks have ended too: see leave. A message to be retried waits while its queue is paused. `unknown`
-- counts unknown outcomes in a row.
UPDATE relay.messages AS m
SET state = CASE WHEN v.state = 'waiting' AND m.queue IS NOT NULL
      AND EXISTS (SELECT FROM relay.queues AS q WHERE q.name = m.queue AND q.paused) THEN 'queued' ELSE v.state END,
  retried = v.retried, started_at = NULL, lease_owner = NULL, unknown = 0,
  due_at = CASE WHEN v.state = 'waiting' THEN now() + make_interval(secs => v.delay_seconds) ELSE m.due_at END,
  ended_at = CASE WHEN v.state = 'waiting' THEN NULL ELSE now() END
FROM json_to_recordset(%(rows)s::json)
  AS v (id text, started_at timestamptz, state text, retried integer, delay_seconds float8)
WHERE m.id = v.id AND m.started_at = v.started_at AND m.state = 'active' AND m.lease_owner = %(owner)s
RETURNING v.id, v.started_at

-- name: log
-- The outcome of an attempt, one row per state.
INSERT INTO relay.events (at, message_id, state, attempt, /* facts */, next_due_at, status, error, response_header,
  response_body)
SELECT v.at, m.id, v.state, v.attempt, /* facts */, v.next_due_at, v.status, v.error, v.header, decode(v.body, 'base64')
FROM json_to_recordset(%(rows)s::json) AS v (n integer, id text, at timestamptz, state text, attempt integer,
  next_due_at timestamptz, status integer, error text, header jsonb, body text)
JOIN relay.messages AS m ON m.id = v.id
ORDER BY v.n

-- name: put_off
INSERT INTO relay.put_offs AS p (message_id, error) SELECT * FROM unnest(%(ids)s::text[], %(errors)s::text[])
ON CONFLICT (message_id) DO UPDATE SET count = p.count + 1, error = excluded.error, put_off_at = clock_timestamp()

-- name: attempted
DELETE FROM relay.put_offs WHERE message_id = ANY(%(ids)s)

-- name: bury
INSERT INTO relay.dead_letters (id, message_id, kind, protocol, body, body_key, body_size, body_sha256, sealed,
  on_unknown, created_at, not_before, response_status, response_header, response_body, response_key, response_size,
  /* facts */)
SELECT v.id, m.id, m.kind, m.protocol, m.body, m.body_key, m.body_size, m.body_sha256, m.sealed, m.on_unknown,
  m.created_at, m.not_before, v.status, v.header, decode(v.body, 'base64'), v.key, v.size, /* facts */
FROM json_to_recordset(%(rows)s::json) AS v (id text, message_id text, status integer, header jsonb, body text, key text,
  size bigint)
JOIN relay.messages AS m ON m.id = v.message_id

-- name: keep_answers
-- If an attempt was repeated after an unknown outcome, the last answer counts.
INSERT INTO relay.answers (message_id, attempt, key, size, header)
SELECT message_id, attempt, key, size, header
FROM json_to_recordset(%(rows)s::json) AS v (message_id text, attempt integer, key text, size bigint, header jsonb)
ON CONFLICT (message_id, attempt) DO UPDATE SET key = excluded.key, size = excluded.size, header = excluded.header

-- name: lock_parents
-- Lock the parents, so that one transaction at a time decides whether a queued message and all its callbacks have
-- ended. The next statement then sees the work of the others.
SELECT id FROM relay.messages WHERE id = ANY(%(ids)s) ORDER BY id DESC FOR UPDATE

-- name: leave
-- Queued messages that ended with all their callbacks free their slots in the queue.
UPDATE relay.messages AS m SET holds = false
WHERE m.id = ANY(%(ids)s) AND m.holds AND m.ended_at IS NOT NULL
  AND NOT EXISTS (SELECT FROM relay.messages AS c WHERE c.parent_id = m.id AND c.ended_at IS NULL)
RETURNING m.queue

-- name: enter
SELECT key FROM relay.enter(%(queues)s) AS key WHERE key IS NOT NULL

-- name: touch_flows
SELECT relay.touch_flows(%(keys)s::text[], %(cool)s::timestamptz[], %(answered)s::boolean[])

-- name: unspend
-- Claims for which no request was sent do not count in the rates of their keys, provided that the window in which they
-- were counted is still open. This runs after touch_flows, which locks the keys in their order.
UPDATE relay.flow_keys AS f SET window_count = greatest(f.window_count - v.calls, 0)
FROM (
  SELECT key, count(*) AS calls
  FROM unnest(%(keys)s::text[], %(started)s::timestamptz[]) AS one (key, started_at) JOIN relay.flow_keys AS k USING (key)
  WHERE one.started_at >= k.window_started_at
  GROUP BY key
) AS v
WHERE f.key = v.key

-- name: cancel
-- The newest first, like endings, so that two transactions never deadlock on messages.
-- `period + 0`: see claim in messages.sql.
WITH found AS (
  SELECT id, period, lease_owner FROM relay.messages WHERE id = ANY(%(ids)s) AND ended_at IS NULL
  ORDER BY id DESC FOR UPDATE
), cancelled AS (
  UPDATE relay.messages AS m
  SET state = 'cancelled', ended_at = now(), started_at = NULL, lease_owner = NULL, holds = false
  FROM found WHERE m.id = found.id AND m.period + 0 = found.period
  RETURNING m.*, found.lease_owner AS holder
), told AS (
  INSERT INTO relay.cancellations (owner, message_id) SELECT holder, id FROM cancelled WHERE holder IS NOT NULL
  ON CONFLICT DO NOTHING
), logged AS (
  INSERT INTO relay.events (at, message_id, state, /* facts */)
  SELECT clock_timestamp(), id, s.state, /* facts */
  FROM cancelled, (VALUES ('CANCEL_REQUESTED'), ('CANCELED')) AS s (state)
)
SELECT id, queue, flow_key, parent_id, body_key FROM cancelled

-- name: depth
-- How many messages wait and are active, how many seconds the oldest is overdue, and how many keys are cooling. Each
-- partial index is read separately, up to `count_max` rows: a longer queue is reported as that long.
WITH queued AS (
  SELECT count(*) FROM (SELECT FROM relay.messages WHERE state = 'queued' LIMIT %(count_max)s) AS found
), free AS (
  SELECT count(*), min(due_at) FILTER (WHERE due_at <= now()) AS oldest
  FROM (
    SELECT due_at FROM relay.messages WHERE state = 'waiting' AND flow_key IS NULL ORDER BY due_at LIMIT %(count_max)s
  ) AS found
), keyed AS (
  SELECT count(*), min(due_at) FILTER (WHERE due_at <= now()) AS oldest
  FROM (
    SELECT due_at FROM relay.messages WHERE state = 'waiting' AND flow_key IS NOT NULL LIMIT %(count_max)s
  ) AS found
), active AS (
  SELECT count(*) FROM (SELECT FROM relay.messages WHERE state = 'active' LIMIT %(count_max)s) AS found
)
SELECT queued.count + free.count + keyed.count AS waiting, active.count AS active,
  coalesce(extract(epoch FROM now() - least(free.oldest, keyed.oldest)), 0)::float8 AS oldest,
  (SELECT count(*) FROM relay.flow_keys WHERE cooling_until > now()) AS cooling
FROM queued, free, keyed, active

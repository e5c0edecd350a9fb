-- name: differences
-- The differences between the claims that this process holds and those leased to it. `leased`: the row names this
-- process, but no task holds it. Otherwise it is held, but was cancelled or given to another process. `taken_over`: a
-- leased claim that came from a dead process, see take_over. A message that may be sent again counts as taken over only
-- past the limit of `unknown`.
WITH mine AS MATERIALIZED (
  SELECT id, started_at, (on_unknown = 'fail' AND unknown > 0) OR unknown > %(unknown_max)s AS taken_over
  FROM relay.messages
  WHERE state = 'active' AND lease_owner = %(owner)s
), held AS (
  SELECT * FROM json_to_recordset(%(held)s::json) AS v (id text, started_at timestamptz)
)
SELECT coalesce(mine.id, held.id) AS id, coalesce(mine.started_at, held.started_at) AS started_at,
  mine.id IS NOT NULL AS leased, coalesce(mine.taken_over, false) AS taken_over,
  coalesce(extract(epoch FROM clock_timestamp() - mine.started_at), 0)::float8 AS age_seconds
FROM mine FULL JOIN held ON held.id = mine.id AND held.started_at = mine.started_at
WHERE mine.id IS NULL OR held.id IS NULL

-- name: give_back
-- Claims of this process that were not sent, because their rows never reached it or because it stops. They wait again.
-- This is not an attempt, so nothing is counted, not even in a key's rate: see unspend. They are due now, behind the
-- others: a message whose claim fails must not block those. If a message was put off before, the log has no start of it
-- yet: see claim in messages.sql. No call is older than 12 hours, and an older start may have no partition of the log.
-- `period + 0`: see claim in messages.sql.
WITH unsent AS (
  SELECT m.id, m.period, m.started_at FROM json_to_recordset(%(claims)s::json) AS v (id text, started_at timestamptz)
  JOIN relay.messages AS m ON m.id = v.id AND m.started_at = v.started_at
  WHERE m.state = 'active' AND m.lease_owner = %(owner)s
  FOR UPDATE OF m SKIP LOCKED
), back AS (
  UPDATE relay.messages AS m
  SET state = CASE WHEN m.queue IS NOT NULL
      AND EXISTS (SELECT FROM relay.queues AS q WHERE q.name = m.queue AND q.paused) THEN 'queued' ELSE 'waiting' END,
    due_at = now(), started_at = NULL, lease_owner = NULL
  FROM unsent WHERE m.id = unsent.id AND m.period + 0 = unsent.period
  RETURNING m.*, unsent.started_at AS unsent_at
), begun AS (
  INSERT INTO relay.events (at, message_id, state, attempt, /* facts */)
  SELECT CASE WHEN unsent_at > now() - interval '12 hours' THEN unsent_at ELSE now() END, id, 'ACTIVE', retried,
    /* facts */
  FROM back WHERE EXISTS (SELECT FROM relay.put_offs AS p WHERE p.message_id = back.id)
), logged AS (
  INSERT INTO relay.events (at, message_id, state, attempt, /* facts */, next_due_at, error)
  SELECT clock_timestamp(), id, 'ERROR', retried, /* facts */, due_at, 'not sent: the relay gave the message back'
  FROM back
)
SELECT id, flow_key, queue, unsent_at FROM back

-- name: disown
-- Claims of this process that were sent and whose calls it lost. They are given to an owner that is permanently dead,
-- and then expire or are taken over like any other call of a dead process.
WITH nobody AS (
  INSERT INTO relay.processes (owner, lease_until) VALUES ('00000000-0000-0000-0000-000000000000', '-infinity')
  ON CONFLICT (owner) DO UPDATE SET lease_until = '-infinity'
  RETURNING owner
)
UPDATE relay.messages AS m SET lease_owner = nobody.owner
FROM nobody, json_to_recordset(%(claims)s::json) AS v (id text, started_at timestamptz)
WHERE m.id = v.id AND m.started_at = v.started_at AND m.state = 'active' AND m.lease_owner = %(owner)s
RETURNING m.id

-- name: expire
-- Messages whose process died during a call. The outcome is unknown, so the attempt is repeated. It does not count as a
-- retry, as the cause may be our crash and not the destination. A message whose process died this many times in a row
-- may be the cause of the crashes: see take_over. A process sweeps only while its own lease holds, and never its own
-- calls. A lease of -infinity was released. Other leases count if `lapsed` is true and this process's own lease holds
-- for `left_seconds` more. Both are evaluated when the statement runs, which may be long after it was sent. The start
-- is logged as by give_back, and the next claim counts as a first one.
-- `period + 0`: see claim in messages.sql.
WITH expired AS (
  SELECT id, period, started_at FROM relay.messages
  WHERE state = 'active' AND on_unknown = 'retry' AND unknown < %(unknown_max)s
    AND lease_owner IN (SELECT owner FROM relay.processes WHERE owner <> %(owner)s
      AND (lease_until = '-infinity' OR (%(lapsed)s AND lease_until < clock_timestamp() AND EXISTS (
        SELECT FROM relay.processes
        WHERE owner = %(owner)s AND lease_until > clock_timestamp() + make_interval(secs => %(left_seconds)s)))))
    AND EXISTS (SELECT FROM relay.processes WHERE owner = %(owner)s AND lease_until > clock_timestamp())
  LIMIT %(batch_max)s
  FOR UPDATE SKIP LOCKED
), back AS (
  UPDATE relay.messages AS m
  SET state = CASE WHEN m.queue IS NOT NULL
      AND EXISTS (SELECT FROM relay.queues AS q WHERE q.name = m.queue AND q.paused) THEN 'queued' ELSE 'waiting' END,
    due_at = now(), unknown = unknown + 1, started_at = NULL, lease_owner = NULL
  FROM expired WHERE m.id = expired.id AND m.period + 0 = expired.period
  RETURNING m.*, expired.started_at AS began_at
), attempted AS (
  DELETE FROM relay.put_offs AS p USING expired WHERE p.message_id = expired.id RETURNING p.message_id
), begun AS (
  INSERT INTO relay.events (at, message_id, state, attempt, /* facts */)
  SELECT CASE WHEN began_at > now() - interval '12 hours' THEN began_at ELSE now() END, id, 'ACTIVE', retried,
    /* facts */
  FROM back JOIN attempted ON attempted.message_id = back.id
), logged AS (
  INSERT INTO relay.events (at, message_id, state, attempt, /* facts */, next_due_at, error)
  SELECT clock_timestamp(), id, 'ERROR', retried, /* facts */, due_at, 'fate unknown: the relay died during the call'
  FROM back
)
SELECT id, flow_key, queue, NULL::timestamptz AS unsent_at FROM back

-- name: take_over
-- Messages that must not be sent again, or were sent again too often. They are taken over to be ended as failed.
-- `unknown` marks them, so that a process which takes one over without learning of it does not mistake it for a claim
-- of its own that was never sent. Their size is bounded like that of a claim.
WITH expired AS (
  SELECT id, period, octet_length(sealed) + CASE WHEN body_key IS NULL THEN body_size ELSE 0 END AS size
  FROM relay.messages
  WHERE state = 'active' AND (on_unknown = 'fail' OR unknown >= %(unknown_max)s)
    AND lease_owner IN (SELECT owner FROM relay.processes WHERE owner <> %(owner)s
      AND (lease_until = '-infinity' OR (%(lapsed)s AND lease_until < clock_timestamp() AND EXISTS (
        SELECT FROM relay.processes
        WHERE owner = %(owner)s AND lease_until > clock_timestamp() + make_interval(secs => %(left_seconds)s)))))
    AND EXISTS (SELECT FROM relay.processes WHERE owner = %(owner)s AND lease_until > clock_timestamp())
  LIMIT %(batch_max)s
  FOR UPDATE SKIP LOCKED
), sized AS (
  SELECT id, period, size, sum(size) OVER (ORDER BY id ROWS UNBOUNDED PRECEDING) AS total FROM expired
)
UPDATE relay.messages AS m SET unknown = unknown + 1, lease_owner = %(owner)s
FROM sized WHERE m.id = sized.id AND m.period = sized.period
  AND (sized.total <= %(bytes_max)s OR sized.total = sized.size)
RETURNING m.*, (SELECT p.count FROM relay.put_offs AS p WHERE p.message_id = m.id) AS put_offs

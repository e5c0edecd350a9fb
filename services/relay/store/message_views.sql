-- name: get
-- A large body is not shown.
SELECT id, CASE WHEN octet_length(body) <= %(body_bytes_max)s THEN body ELSE '' END AS body, sealed, created_at,
  not_before, state, due_at, retried, holds, p.count AS put_offs, p.error AS put_off_error, /* facts */
FROM relay.messages LEFT JOIN relay.put_offs AS p ON p.message_id = id
WHERE id = %(id)s AND state <> 'cancelled'
  AND (ended_at IS NULL OR ended_at > now() - make_interval(secs => %(keep_seconds)s))

-- name: state
SELECT state FROM relay.messages
WHERE id = %(id)s AND (ended_at IS NULL OR ended_at > now() - make_interval(secs => %(keep_seconds)s))

-- name: ahead
-- Messages with a slot come first, also when they wait only for their callbacks to end.
SELECT (SELECT count(*) FROM relay.messages WHERE queue = %(queue)s AND holds AND id < %(id)s)
  + CASE WHEN %(holds)s THEN 0 ELSE
    (SELECT count(*) FROM relay.messages WHERE queue = %(queue)s AND holds AND id > %(id)s)
    + (SELECT count(*) FROM relay.messages WHERE queue = %(queue)s AND state = 'queued' AND NOT holds AND id < %(id)s)
  END AS ahead

-- name: filters
ended_at IS NULL
AND (%(message_ids)s::text[] IS NULL OR id = ANY(%(message_ids)s))
AND (%(label)s::text[] IS NULL OR label = ANY(%(label)s) OR (cardinality(labels) > 1 AND labels && %(label)s))
AND (%(kinds)s::text[] IS NULL OR kind = ANY(%(kinds)s))
AND (%(from_at)s::timestamptz IS NULL OR created_at >= %(from_at)s)
AND (%(to_at)s::timestamptz IS NULL OR created_at < %(to_at)s)
AND /* common */

-- name: select_ids
-- One branch for each partial index, so that ended messages are never read. Without MATERIALIZED, the LIMIT makes the
-- planner choose a scan in which it expects to find matches early. A message past the wait of its queue always holds a
-- slot.
WITH found AS MATERIALIZED (
  SELECT id FROM relay.messages WHERE state = 'queued' AND /* filtered */
  UNION ALL
  SELECT id FROM relay.messages WHERE state = 'waiting' AND flow_key IS NULL AND (%(queue)s::text[] IS NULL OR holds)
    AND /* filtered */
  UNION ALL
  SELECT id FROM relay.messages WHERE state = 'waiting' AND flow_key IS NOT NULL AND (%(queue)s::text[] IS NULL OR holds)
    AND /* filtered */
  UNION ALL
  SELECT id FROM relay.messages WHERE state = 'active' AND (%(queue)s::text[] IS NULL OR holds)
    AND /* filtered */
)
SELECT id FROM found ORDER BY id LIMIT %(limit)s

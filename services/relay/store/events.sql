-- name: filters
(%(message_ids)s::text[] IS NULL OR message_id = ANY(%(message_ids)s))
AND (%(states)s::text[] IS NULL OR state = ANY(%(states)s))
AND (%(label)s::text[] IS NULL OR labels && %(label)s)
AND (%(response_status)s::integer[] IS NULL OR status = ANY(%(response_status)s))
AND (%(from_at)s::timestamptz IS NULL OR at >= %(from_at)s)
AND (%(to_at)s::timestamptz IS NULL OR at < %(to_at)s)
AND /* common */

-- name: newest
WITH page AS (
  SELECT at, sequence, message_id, state, /* facts */, next_due_at, status, error, response_header, response_body,
    coalesce(octet_length(response_header::text), 0) + coalesce(octet_length(response_body), 0) AS size
  FROM relay.events
  WHERE (%(cursor_at)s::timestamptz IS NULL OR (at, sequence) < (%(cursor_at)s, %(cursor_id)s::bigint))
    AND /* filtered */
  ORDER BY at DESC, sequence DESC
  LIMIT %(limit)s
), sized AS (
  SELECT *, count(*) OVER () AS found, sum(size) OVER (ORDER BY at DESC, sequence DESC) - size AS before FROM page
)
SELECT * FROM sized WHERE before < %(bytes_max)s ORDER BY at DESC, sequence DESC

-- name: earliest
WITH page AS (
  SELECT at, sequence, message_id, state, /* facts */, next_due_at, status, error, response_header, response_body,
    coalesce(octet_length(response_header::text), 0) + coalesce(octet_length(response_body), 0) AS size
  FROM relay.events
  WHERE (%(cursor_at)s::timestamptz IS NULL OR (at, sequence) > (%(cursor_at)s, %(cursor_id)s::bigint))
    AND /* filtered */
  ORDER BY at, sequence
  LIMIT %(limit)s
), sized AS (
  SELECT *, count(*) OVER () AS found, sum(size) OVER (ORDER BY at, sequence) - size AS before FROM page
)
SELECT * FROM sized WHERE before < %(bytes_max)s ORDER BY at, sequence

-- name: told
-- The messages of a page, as sealed when they were accepted, and the small bodies of those that still exist. The log
-- keeps no bodies, so that no body outlives its message.
SELECT e.message_id, m.body,
  CASE WHEN sum(octet_length(e.details)) OVER (ORDER BY e.message_id) <= %(bytes_max)s THEN e.details END AS details
FROM relay.events AS e
LEFT JOIN LATERAL (
  SELECT body FROM relay.messages WHERE id = e.message_id AND body_key IS NULL AND body_size <= %(body_bytes_max)s LIMIT 1
) AS m ON true
WHERE e.message_id = ANY(%(ids)s) AND e.state = 'CREATED'

-- name: attempts
-- A message has few attempts: its retries are bounded, and each unknown outcome is the death of a process.
SELECT at, state, attempt, status, error, next_due_at FROM relay.events
WHERE message_id = %(message_id)s AND attempt IS NOT NULL
ORDER BY at, sequence
LIMIT 10000

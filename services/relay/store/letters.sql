-- name: filters
(%(dlq_ids)s::text[] IS NULL OR id = ANY(%(dlq_ids)s))
AND (%(message_ids)s::text[] IS NULL OR message_id = ANY(%(message_ids)s))
AND (%(label)s::text[] IS NULL OR labels && %(label)s)
AND (%(response_status)s::integer[] IS NULL OR response_status = ANY(%(response_status)s))
AND (%(from_at)s::timestamptz IS NULL OR failed_at >= %(from_at)s)
AND (%(to_at)s::timestamptz IS NULL OR failed_at < %(to_at)s)
AND /* common */

-- name: newest
-- Ids are in the order of time.
SELECT * FROM relay.dead_letters
WHERE (%(cursor_id)s::text IS NULL OR id < %(cursor_id)s)
  AND /* filtered */
ORDER BY id DESC
LIMIT %(limit)s

-- name: earliest
SELECT * FROM relay.dead_letters
WHERE (%(cursor_id)s::text IS NULL OR id > %(cursor_id)s)
  AND /* filtered */
ORDER BY id
LIMIT %(limit)s

-- name: matching
-- Of those to be removed or retried. What another transaction has in hand, it does away with.
SELECT id, failed_at, sealed FROM relay.dead_letters
WHERE (%(cursor_id)s::text IS NULL OR id < %(cursor_id)s)
  AND /* filtered */
ORDER BY id DESC
LIMIT %(limit)s
FOR UPDATE SKIP LOCKED

-- name: get
SELECT * FROM relay.dead_letters WHERE id = %(id)s

-- name: take
DELETE FROM relay.dead_letters WHERE id = ANY(%(ids)s::text[]) RETURNING *

-- name: delete
DELETE FROM relay.dead_letters WHERE id = ANY(%(ids)s::text[])

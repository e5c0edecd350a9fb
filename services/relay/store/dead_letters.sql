-- name: filters
(%(dlq_ids)s::text[] IS NULL OR id = ANY(%(dlq_ids)s))
AND (%(message_ids)s::text[] IS NULL OR message_id = ANY(%(message_ids)s))
AND (%(label)s::text[] IS NULL OR labels && %(label)s)
AND (%(response_status)s::integer[] IS NULL OR response_status = ANY(%(response_status)s))
AND (%(from_at)s::timestamptz IS NULL OR failed_at >= %(from_at)s)
AND (%(to_at)s::timestamptz IS NULL OR failed_at < %(to_at)s)
AND /* common */

-- name: newest
-- Ids are in the order of time. The contents are read in a second step, once their size is known.
SELECT id, failed_at, octet_length(sealed)
    + CASE WHEN octet_length(body) <= %(body_bytes_max)s THEN octet_length(body) ELSE 0 END
    + least(coalesce(response_size, octet_length(response_body)), %(answer_bytes_max)s) AS size
FROM relay.dead_letters
WHERE (%(cursor_id)s::text IS NULL OR id < %(cursor_id)s)
  AND /* filtered */
ORDER BY id DESC
LIMIT %(limit)s

-- name: earliest
SELECT id, failed_at, octet_length(sealed)
    + CASE WHEN octet_length(body) <= %(body_bytes_max)s THEN octet_length(body) ELSE 0 END
    + least(coalesce(response_size, octet_length(response_body)), %(answer_bytes_max)s) AS size
FROM relay.dead_letters
WHERE (%(cursor_id)s::text IS NULL OR id > %(cursor_id)s)
  AND /* filtered */
ORDER BY id
LIMIT %(limit)s

-- name: matching
-- The dead letters to remove or retry. A row locked by another transaction is being removed there, so it is skipped.
SELECT id, failed_at, octet_length(sealed)
    + CASE WHEN octet_length(body) <= %(body_bytes_max)s THEN octet_length(body) ELSE 0 END AS size
FROM relay.dead_letters
WHERE (%(cursor_id)s::text IS NULL OR id < %(cursor_id)s)
  AND /* filtered */
ORDER BY id DESC
LIMIT %(limit)s
FOR UPDATE SKIP LOCKED

-- name: sealed
SELECT id, sealed FROM relay.dead_letters WHERE id = ANY(%(ids)s::text[])

-- name: shown
-- An answer in pieces is shown whole if it is small enough; otherwise its beginning is.
SELECT l.id, l.message_id, l.failed_at, l.sealed, l.created_at, l.not_before, l.response_status, l.response_header,
  /* facts */,
  CASE WHEN octet_length(l.body) <= %(body_bytes_max)s THEN l.body ELSE '' END AS body,
  substring(coalesce(pieces.whole, l.response_body) FROM 1 FOR coalesce(%(trim_body)s::integer, 2147483647)) AS response_body
FROM unnest(%(ids)s::text[]) WITH ORDINALITY AS asked (id, n)
JOIN relay.dead_letters AS l ON l.id = asked.id
LEFT JOIN LATERAL (
  SELECT string_agg(content, '' ORDER BY part) AS whole FROM relay.chunks
  WHERE key = l.response_key AND l.response_size <= %(answer_bytes_max)s
) AS pieces ON true
ORDER BY asked.n

-- name: take
-- Without the answers. A large body in a row written before 0008 is moved to pieces here.
WITH gone AS (
  DELETE FROM relay.dead_letters WHERE id = ANY(%(ids)s::text[]) RETURNING *
)
SELECT id, kind, protocol, sealed, on_unknown, body_size, response_key, /* facts */,
  CASE WHEN octet_length(body) <= %(body_bytes_max)s THEN body ELSE '' END AS body,
  CASE WHEN octet_length(body) <= %(body_bytes_max)s THEN body_key ELSE relay.store_pieces(body) END AS body_key,
  CASE WHEN octet_length(body) <= %(body_bytes_max)s THEN body_sha256 ELSE sha256(body) END AS body_sha256
FROM gone

-- name: delete
DELETE FROM relay.dead_letters WHERE id = ANY(%(ids)s::text[]) RETURNING body_key, response_key

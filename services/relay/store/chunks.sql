-- name: write
-- Without waiting for the disk: the message that names the pieces is committed after them, and that commit makes all
-- earlier ones durable as well. A piece that is written twice is the same piece.
WITH quick AS (SELECT set_config('synchronous_commit', 'off', true))
INSERT INTO relay.chunks (key, part, content) SELECT %(key)s, %(part)s, %(content)s FROM quick
ON CONFLICT DO NOTHING

-- name: read
SELECT content FROM relay.chunks WHERE key = %(key)s AND part = %(part)s

-- name: release
-- Pieces of bodies that are done with, as far as nothing else names them. In the order of keys, so that no two wait for
-- each other.
DELETE FROM relay.chunks WHERE (key, part) IN (
  SELECT key, part FROM relay.chunks
  WHERE key IN (SELECT key FROM unnest(%(keys)s::text[]) AS v (key) WHERE NOT relay.is_named(key))
  ORDER BY key, part FOR UPDATE SKIP LOCKED)

-- name: sweep
-- For the janitor: pieces that nothing names, of uploads and answers that broke off. What is younger than age_seconds may
-- be on its way into a message: the longest call takes 12 hours, so this must be more.
WITH old AS (
  SELECT key FROM relay.chunks
  WHERE part = 0 AND created_at < clock_timestamp() - make_interval(secs => %(age_seconds)s) AND NOT relay.is_named(key)
  ORDER BY created_at
  LIMIT %(batch_max)s
), gone AS (
  DELETE FROM relay.chunks WHERE key IN (SELECT key FROM old) RETURNING part
)
SELECT count(*) FILTER (WHERE part = 0) AS count FROM gone

-- name: forget_answers
-- For the janitor: kept answers that are older than age_seconds. Their pieces are swept after them.
WITH gone AS (
  DELETE FROM relay.answers WHERE (message_id, attempt) IN (
    SELECT message_id, attempt FROM relay.answers
    WHERE created_at < clock_timestamp() - make_interval(secs => %(age_seconds)s)
    ORDER BY created_at LIMIT %(batch_max)s FOR UPDATE SKIP LOCKED)
  RETURNING 1
)
SELECT count(*) AS count FROM gone

-- name: answer
SELECT key, size, header FROM relay.answers WHERE message_id = %(message_id)s AND attempt = %(attempt)s

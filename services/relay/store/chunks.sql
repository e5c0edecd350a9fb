-- name: write
-- Without waiting for the disk (synchronous commit off): the message that refers to the pieces is committed after them,
-- and that commit makes all earlier ones durable too. Writing a piece twice has no further effect.
WITH quick AS (SELECT set_config('synchronous_commit', 'off', true))
INSERT INTO relay.chunks (key, part, content) SELECT %(key)s, %(part)s, %(content)s FROM quick
ON CONFLICT DO NOTHING

-- name: read
SELECT content FROM relay.chunks WHERE key = %(key)s AND part = %(part)s

-- name: release
-- The pieces of bodies that are no longer used, unless something else refers to them. In the order of keys, so that no
-- two transactions deadlock.
DELETE FROM relay.chunks WHERE (key, part) IN (
  SELECT key, part FROM relay.chunks
  WHERE key IN (SELECT key FROM unnest(%(keys)s::text[]) AS v (key) WHERE NOT relay.is_named(key))
  ORDER BY key, part FOR UPDATE SKIP LOCKED)

-- name: answer
SELECT key, size, header FROM relay.answers WHERE message_id = %(message_id)s AND attempt = %(attempt)s

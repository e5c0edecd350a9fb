-- name: dead_letters
DELETE FROM relay.dead_letters WHERE labels && %(labels)s::text[] RETURNING message_id, body_key, response_key

-- name: ended
-- Ended messages are removed with their partition, within minutes. `label` is the first of `labels`.
SELECT id, body_key FROM relay.messages
WHERE (label = ANY(%(labels)s) OR (cardinality(labels) > 1 AND labels && %(labels)s::text[])) AND ended_at IS NOT NULL

-- name: messages
UPDATE relay.messages SET body = '', body_key = NULL, body_size = 0
WHERE (label = ANY(%(labels)s) OR (cardinality(labels) > 1 AND labels && %(labels)s::text[])) AND ended_at IS NOT NULL
  AND (body <> '' OR body_key IS NOT NULL)

-- name: answers
DELETE FROM relay.answers WHERE message_id = ANY(%(ids)s) RETURNING key

-- name: events
UPDATE relay.events SET response_body = NULL, response_header = NULL, error = NULL, details = NULL
WHERE message_id = ANY(%(ids)s)

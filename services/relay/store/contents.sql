-- name: letters
DELETE FROM relay.dead_letters WHERE labels && %(labels)s::text[] RETURNING message_id, body_key, response_key

-- name: answers
DELETE FROM relay.answers WHERE message_id = ANY(%(ids)s) RETURNING key

-- name: message_keys
-- Ended messages go with their partition, within minutes. No index leads to them: this is rare, and reads those minutes.
SELECT body_key FROM relay.messages
WHERE labels && %(labels)s::text[] AND ended_at IS NOT NULL AND body_key IS NOT NULL

-- name: messages
UPDATE relay.messages SET body = '', body_key = NULL, body_size = 0
WHERE labels && %(labels)s::text[] AND ended_at IS NOT NULL AND (body <> '' OR body_key IS NOT NULL)

-- name: events
UPDATE relay.events SET response_body = NULL, response_header = NULL, error = NULL, details = NULL
WHERE message_id = ANY(%(ids)s)

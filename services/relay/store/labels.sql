-- name: live
-- Which of these labels a message carries, as its first, that has not ended.
SELECT DISTINCT label FROM relay.messages WHERE label = ANY(%(labels)s) AND ended_at IS NULL

-- name: next
-- The labels of messages that have not ended, in their order.
SELECT DISTINCT label FROM relay.messages
WHERE label > %(after)s AND ended_at IS NULL
ORDER BY label LIMIT %(limit)s

-- name: letters
-- Dead letters of callbacks by label.
SELECT id, labels FROM relay.dead_letters
WHERE kind <> 'message' AND labels && %(labels)s::text[]
ORDER BY id LIMIT %(limit)s

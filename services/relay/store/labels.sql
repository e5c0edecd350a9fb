-- name: held
-- Which of these labels a message carries, as its first, that has not ended, and the dead letters of callbacks that carry
-- one. By one statement, as one snapshot: a dead letter that is sent again between two would be in neither.
(SELECT DISTINCT label, NULL AS letter_id, NULL::text[] AS labels
  FROM relay.messages WHERE label = ANY(%(labels)s) AND ended_at IS NULL)
UNION ALL
(SELECT NULL, id, labels FROM relay.dead_letters
  WHERE kind <> 'message' AND labels && %(labels)s::text[]
  ORDER BY id LIMIT %(letters_max)s)

-- name: next
-- The labels of messages that have not ended, in their order.
SELECT DISTINCT label FROM relay.messages
WHERE label > %(after)s AND ended_at IS NULL
ORDER BY label LIMIT %(limit)s

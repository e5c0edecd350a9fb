-- name: held
-- Those of these labels that a message which has not ended carries as its first one, and the dead letters of callbacks
-- that carry one. One statement and so one snapshot: between two statements, a dead letter that is retried would be in
-- neither.
(SELECT DISTINCT label, NULL AS dlq_id, NULL::text[] AS labels
  FROM relay.messages WHERE label = ANY(%(labels)s) AND ended_at IS NULL)
UNION ALL
(SELECT NULL, id, labels FROM relay.dead_letters
  WHERE kind <> 'message' AND labels && %(labels)s::text[]
  ORDER BY id LIMIT %(letters_max)s)

-- name: next
-- The labels of messages that have not ended, in order.
SELECT DISTINCT label FROM relay.messages
WHERE label > %(after)s AND ended_at IS NULL
ORDER BY label LIMIT %(limit)s

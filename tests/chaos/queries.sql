-- name: stored
SELECT s.id::text, s.metadata ->> 'key' AS key, r.outcome, r.event_id::text, r.reason,
  extract(epoch FROM r.created_at)::float8 AS ended_at,
  (SELECT count(*) FROM tidings.result_nudges AS n WHERE n.submission_id = s.id) AS nudges
FROM tidings.submissions AS s LEFT JOIN tidings.results AS r ON r.submission_id = s.id

-- name: logged
SELECT message_id, labels[1] AS label, state, error, status, extract(epoch FROM at)::float8 AS at FROM relay.events
WHERE cardinality(labels) > 0 AND url NOT LIKE '%%/callbacks/relay%%' AND url NOT LIKE '%%/hook'
ORDER BY sequence

-- name: remains
-- Not relay.cancellations: a row for a process that died, or has no calls, tells nobody anything and goes after an hour. What
-- was cancelled and goes on is in progress at the provider.
SELECT
  (SELECT count(*) FROM tidings.submissions AS s
    WHERE NOT EXISTS (SELECT FROM tidings.results AS r WHERE r.submission_id = s.id)) AS "submissions without a result",
  (SELECT count(*) FROM relay.messages WHERE ended_at IS NULL) AS "live relay messages",
  (SELECT count(*) FROM relay.messages WHERE holds) AS "places held in queues",
  (SELECT count(*) FROM relay.dead_letters WHERE kind <> 'message') AS "callbacks among the relay's dead letters",
  (SELECT count(*) FROM pg_stat_activity
    WHERE state = 'idle in transaction' AND xact_start < now() - interval '5 s') AS "idle transactions",
  (SELECT count(*) FROM pg_replication_slots WHERE NOT active OR slot_name <> 'tidings_cdc')
    + (SELECT (count(*) = 0)::integer FROM pg_replication_slots) AS "slots that nobody reads"

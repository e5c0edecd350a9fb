-- name: due
-- The next submissions that are due, in that order, and whether each is open. Ended submissions count, so that a look
-- is bounded. LIMIT makes the inner query an index look-up for each row: a join might read all results.
SELECT s.id, s.expires_at, r.found IS NULL AS open
FROM (
  SELECT id, expires_at FROM tidings.submissions
  WHERE (expires_at, id) > (%(after_at)s::timestamptz, %(after_id)s::uuid)
    AND expires_at <= least(now(), %(upto)s::timestamptz)
  ORDER BY expires_at, id LIMIT %(limit)s
) AS s
LEFT JOIN LATERAL (SELECT true AS found FROM tidings.results WHERE submission_id = s.id LIMIT 1) AS r ON true
ORDER BY s.expires_at, s.id

-- name: expire
-- The primary key of `results` decides between the expiry and an answer that arrives at the same time.
INSERT INTO tidings.results (submission_id, event_id, tenant, target, channel, webhook, metadata, traceparent, outcome,
  reason, submitted_at)
SELECT s.id, v.event_id, s.tenant, s.target, s.channel, s.webhook, s.metadata, s.traceparent, 'expired',
  'not ended within its expires_in', s.created_at
FROM unnest(%(ids)s::uuid[], %(event_ids)s::uuid[]) AS v (id, event_id)
JOIN tidings.submissions AS s ON s.id = v.id
ORDER BY s.id
ON CONFLICT DO NOTHING
RETURNING submission_id

-- name: sweep
-- The next submissions by id, which is their time, and whether each is open. Ended submissions count, so that a look is
-- bounded. LIMIT makes the inner query an index look-up for each row: a join might read all results.
SELECT s.id, r.found IS NULL AS open
FROM (
  SELECT id FROM tidings.submissions
  WHERE id > %(after)s AND id < tidings.uuid_floor(now() - make_interval(secs => %(grace_seconds)s))
  ORDER BY id LIMIT %(limit)s
) AS s
LEFT JOIN LATERAL (SELECT true AS found FROM tidings.results WHERE submission_id = s.id LIMIT 1) AS r ON true
ORDER BY s.id

-- name: still_open
SELECT v.id FROM unnest(%(ids)s::uuid[]) AS v (id)
LEFT JOIN LATERAL (SELECT true AS found FROM tidings.results WHERE submission_id = v.id LIMIT 1) AS r ON true
WHERE r.found IS NULL ORDER BY v.id

-- name: open_between
-- The open ones among the next submissions by id, and the last id examined. LIMIT makes the inner query an index
-- look-up for each row: a join might read all results.
WITH looked AS MATERIALIZED (
  SELECT s.id, r.found IS NULL AS open
  FROM (
    SELECT id FROM tidings.submissions WHERE id > %(after)s AND id <= %(upto)s ORDER BY id LIMIT %(limit)s
  ) AS s
  LEFT JOIN LATERAL (SELECT true AS found FROM tidings.results WHERE submission_id = s.id LIMIT 1) AS r ON true
)
SELECT (SELECT id FROM looked ORDER BY id DESC LIMIT 1) AS last,
  ARRAY(SELECT id FROM looked WHERE open ORDER BY id) AS open_ids

-- name: nudge_submissions
-- Only submissions that are still open: a result may have been stored since the look.
INSERT INTO tidings.submission_nudges (id, tenant, target, content_type, channel, traceparent, created_at)
SELECT s.id, s.tenant, s.target, s.content_type, s.channel, s.traceparent, s.created_at
FROM tidings.submissions AS s
WHERE s.id = ANY(%(ids)s) AND NOT EXISTS (SELECT FROM tidings.results AS r WHERE r.submission_id = s.id)
RETURNING id

-- name: known
SELECT id FROM tidings.submissions WHERE id = ANY(%(ids)s)

-- name: ended
-- The next results by event id, which is the time of their end.
SELECT submission_id, event_id FROM tidings.results
WHERE event_id > %(after)s AND event_id < tidings.uuid_floor(now() - make_interval(secs => %(settle_seconds)s))
ORDER BY event_id LIMIT %(limit)s

-- name: count_ended
SELECT count(*) AS count FROM tidings.results WHERE event_id > %(after)s AND event_id <= %(upto)s

-- name: nudge_results
INSERT INTO tidings.result_nudges (submission_id, event_id, tenant, target, channel, webhook, metadata, traceparent,
  outcome, reason, status_code, content_type, body_size, body_sha256, output, submitted_at, created_at)
SELECT submission_id, event_id, tenant, target, channel, webhook, metadata, traceparent, outcome, reason, status_code,
  content_type, body_size, body_sha256, output, submitted_at, created_at
FROM tidings.results WHERE submission_id = ANY(%(ids)s)
RETURNING submission_id

-- name: unsettled
-- The next removals of contents that are not settled, after a given one.
SELECT removed_at, submission_id FROM tidings.content_removals
WHERE settled_at IS NULL AND (removed_at, submission_id) > (%(after_at)s, %(after_id)s)
  AND removed_at < now() - make_interval(secs => %(grace_seconds)s)
ORDER BY removed_at, submission_id LIMIT %(limit)s

-- name: erase_again
SELECT id, tidings.erase_again(id) AS message_ids FROM unnest(%(ids)s::uuid[]) AS v (id)

-- name: settle
SELECT tidings.settle_removals(%(ids)s::uuid[], %(uptos)s::timestamptz[])

-- name: low_water
SELECT at FROM tidings.low_water_marks WHERE name = %(name)s

-- name: set_low_water
INSERT INTO tidings.low_water_marks AS m (name, at) VALUES (%(name)s, %(at)s)
ON CONFLICT (name) DO UPDATE SET at = excluded.at, updated_at = clock_timestamp() WHERE m.at <> excluded.at

-- name: prune_submission_nudges
DELETE FROM tidings.submission_nudges WHERE nudged_at < now() - make_interval(secs => %(seconds)s)

-- name: prune_result_nudges
DELETE FROM tidings.result_nudges WHERE nudged_at < now() - make_interval(secs => %(seconds)s)

-- name: floor
-- The smallest id of the time that many seconds ago.
SELECT tidings.uuid_floor(now() - make_interval(secs => %(seconds)s)) AS at

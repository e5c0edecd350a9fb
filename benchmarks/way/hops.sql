-- name: rows
-- Of each submission: when its row and its result were inserted.
SELECT s.id::text AS id, extract(epoch FROM s.created_at)::float8 AS committed,
  extract(epoch FROM r.created_at)::float8 AS stored
FROM tidings.submissions AS s JOIN tidings.results AS r ON r.submission_id = s.id
WHERE s.id = ANY(%(ids)s::uuid[])

-- name: relayed
-- Of each submission: when the relay accepted its message, sent the request, and had the answer on record.
SELECT labels[1] AS id,
  extract(epoch FROM min(at) FILTER (WHERE state = 'CREATED'))::float8 AS accepted,
  extract(epoch FROM min(at) FILTER (WHERE state = 'ACTIVE'))::float8 AS called,
  extract(epoch FROM min(at) FILTER (WHERE state = 'DELIVERED'))::float8 AS ended
FROM relay.events
WHERE url LIKE %(upstream)s AND labels[1] = ANY(%(ids)s)
GROUP BY 1

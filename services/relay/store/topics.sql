-- name: make
INSERT INTO relay.topics (name, sealed) VALUES (%(name)s, %(sealed)s)
ON CONFLICT (name) DO UPDATE SET updated_at = clock_timestamp()

-- name: make_as
-- A new name for a group. Its endpoints follow.
INSERT INTO relay.topics (name, sealed, created_at)
SELECT %(new_name)s, sealed, created_at FROM relay.topics WHERE name = %(name)s
ON CONFLICT (name) DO NOTHING

-- name: follow
UPDATE relay.endpoints SET topic = %(new_name)s WHERE topic = %(name)s

-- name: set_headers
INSERT INTO relay.topics (name, sealed) VALUES (%(name)s, %(sealed)s)
ON CONFLICT (name) DO UPDATE SET sealed = excluded.sealed, updated_at = clock_timestamp()

-- name: free_names
-- A name belongs to the URL that it was given to last.
DELETE FROM relay.endpoints WHERE topic = %(name)s AND name = ANY(%(names)s::text[]) AND url <> ALL(%(urls)s::text[])

-- name: unname
-- Names may be swapped within one request, and must stay unique throughout.
UPDATE relay.endpoints SET name = NULL WHERE topic = %(name)s AND name = ANY(%(names)s::text[])

-- name: add
INSERT INTO relay.endpoints AS e (topic, url, name)
SELECT %(name)s, url, name FROM unnest(%(urls)s::text[], %(endpoint_names)s::text[]) AS v (url, name)
ON CONFLICT (topic, url) DO UPDATE SET name = coalesce(excluded.name, e.name)

-- name: lock
SELECT FROM relay.topics WHERE name = %(name)s FOR UPDATE

-- name: remove
DELETE FROM relay.endpoints WHERE topic = %(name)s AND (url = ANY(%(urls)s::text[]) OR name = ANY(%(names)s::text[]))

-- name: changed
UPDATE relay.topics SET updated_at = clock_timestamp() WHERE name = %(name)s

-- name: delete_empty
DELETE FROM relay.topics AS t WHERE t.name = %(name)s AND NOT EXISTS (SELECT FROM relay.endpoints AS e WHERE e.topic = t.name)

-- name: select
SELECT t.name, t.sealed, t.created_at, t.updated_at,
  coalesce(array_agg(e.url ORDER BY e.name NULLS LAST, e.url) FILTER (WHERE e.url IS NOT NULL), '{}') AS urls,
  coalesce(array_agg(e.name ORDER BY e.name NULLS LAST, e.url) FILTER (WHERE e.url IS NOT NULL), '{}') AS names
FROM relay.topics AS t LEFT JOIN relay.endpoints AS e ON e.topic = t.name
WHERE %(name)s::text IS NULL OR t.name = %(name)s
GROUP BY t.name
ORDER BY t.name

-- name: delete
DELETE FROM relay.topics WHERE name = %(name)s

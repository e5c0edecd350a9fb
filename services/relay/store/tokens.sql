-- name: create
INSERT INTO relay.tokens (name, sha256, writes, publishes_per_second)
VALUES (%(name)s, %(sha256)s, %(writes)s, %(publishes_per_second)s)
ON CONFLICT (name) DO NOTHING

-- name: all
SELECT name, writes, publishes_per_second, created_at, revoked_at FROM relay.tokens ORDER BY name

-- name: revoke
UPDATE relay.tokens SET revoked_at = clock_timestamp() WHERE name = %(name)s AND revoked_at IS NULL

-- name: find
SELECT name, writes, publishes_per_second, created_at, revoked_at FROM relay.tokens
WHERE sha256 = %(sha256)s AND revoked_at IS NULL

-- name: read
SELECT sealed FROM relay.signing_keys

-- name: seed
INSERT INTO relay.signing_keys (sealed) VALUES (%(sealed)s) ON CONFLICT DO NOTHING

-- name: lock
SELECT sealed FROM relay.signing_keys FOR UPDATE

-- name: rotate
UPDATE relay.signing_keys SET sealed = %(sealed)s, rotated_at = clock_timestamp()

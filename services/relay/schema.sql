-- name: exists
SELECT FROM pg_namespace WHERE nspname = 'relay'

-- name: create
CREATE SCHEMA relay

-- name: create_list
CREATE TABLE IF NOT EXISTS relay.schema_files (name text PRIMARY KEY)

-- name: applied
SELECT name FROM relay.schema_files

-- name: add
INSERT INTO relay.schema_files VALUES (%(name)s)

-- name: set_lock_timeout
-- Until the end of the transaction.
SELECT set_config('lock_timeout', %(lock_timeout_ms)s::integer::text, true)

-- name: lock
SELECT pg_advisory_xact_lock(%(lock_id)s)

-- name: lock
SELECT pg_advisory_lock(%(lock_id)s)

-- name: set_login
-- ALTER ROLE takes no parameters, so that role and verifier are composed into the statement.
ALTER ROLE {role} LOGIN PASSWORD {verifier}

-- name: add_key
INSERT INTO tidings.api_keys (key_sha256, tenant, name) VALUES (%(key_sha256)s, %(tenant)s, %(name)s)
ON CONFLICT DO NOTHING

-- name: keys
SELECT left(encode(key_sha256, 'hex'), 12), tenant, name, created_at, revoked_at
FROM tidings.api_keys ORDER BY created_at LIMIT 10000

-- name: revoke_key
WITH found AS (
  SELECT key_sha256 FROM tidings.api_keys
  WHERE starts_with(encode(key_sha256, 'hex'), %(hash_prefix)s) AND revoked_at IS NULL
)
UPDATE tidings.api_keys SET revoked_at = now()
WHERE key_sha256 IN (SELECT key_sha256 FROM found) AND (SELECT count(*) FROM found) = 1

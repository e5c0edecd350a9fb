-- name: configure
-- Whether the connection leads directly to the server: a pooler gives its clients backend numbers of its own. Only a
-- direct session may be configured: behind a pooler in transaction mode the settings would apply to the next client.
SELECT direct, CASE WHEN direct THEN
    set_config('statement_timeout', %(statement_ms)s::text, false)
    || set_config('lock_timeout', %(lock_ms)s::text, false)
    || set_config('idle_in_transaction_session_timeout', %(idle_ms)s::text, false)
  END AS set_to
FROM (SELECT pg_backend_pid() = %(pid)s::integer AS direct) AS asked

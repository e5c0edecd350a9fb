-- name: create_answers
-- The answers that a peer saves. Without a key: doubled answers must be detected, and an index would slow the peers down.
CREATE TABLE answers (id text NOT NULL, body text NOT NULL, saved_at timestamptz NOT NULL DEFAULT clock_timestamp())

-- name: saved
SELECT count(*), count(DISTINCT id), coalesce(extract(epoch FROM max(saved_at)), 0)::float8
FROM answers WHERE id LIKE %(prefix)s

-- name: wrong
SELECT id, body FROM answers WHERE id LIKE %(prefix)s

-- name: left_pgqueuer
SELECT count(*) FROM pgqueuer

-- name: left_procrastinate
SELECT count(*) FROM procrastinate_jobs WHERE status IN ('todo', 'doing')

-- name: create_floor
-- A row like a message of the relay, with the two indexes that every queue needs.
CREATE TABLE floor_messages (
  id text PRIMARY KEY, kind text NOT NULL, protocol smallint NOT NULL, url text NOT NULL, method text NOT NULL,
  body bytea NOT NULL, sealed bytea NOT NULL, label text, retries_max integer NOT NULL, timeout_ms bigint NOT NULL,
  caller_ip text NOT NULL, created_at timestamptz NOT NULL DEFAULT clock_timestamp(), not_before timestamptz NOT NULL,
  state text NOT NULL DEFAULT 'waiting', due_at timestamptz NOT NULL);
CREATE INDEX floor_messages_due ON floor_messages (due_at) WHERE state = 'waiting';

-- name: floor_insert
-- Run by pgbench, with one commit per row.
INSERT INTO floor_messages (id, kind, protocol, url, method, body, sealed, label, retries_max, timeout_ms, caller_ip,
  not_before, due_at)
VALUES ('msg_' || uuidv7()::text, 'message', 2, 'http://127.0.0.1:8080/call?id=publish-0&delay=0', 'POST',
  convert_to(repeat('x', 1000), 'UTF8'), convert_to(repeat('y', 300), 'UTF8'), 'benchmark', 3, 300000, '127.0.0.1',
  now() + interval '1 hour', now() + interval '1 hour');

-- name: floor_copy
COPY floor_messages (id, kind, protocol, url, method, body, sealed, label, retries_max, timeout_ms, caller_ip,
  not_before, due_at) FROM STDIN

-- name: floor_count
SELECT count(*) FROM floor_messages

-- A schedule's large body is stored in pieces too, once; its messages name it.

ALTER TABLE relay.schedules ADD COLUMN body_key text, ADD COLUMN body_size bigint, ADD COLUMN body_sha256 bytea,
  ADD CONSTRAINT large_body_is_elsewhere CHECK (body_key IS NULL OR body = '');
CREATE INDEX schedules_body_key ON relay.schedules (body_key) WHERE body_key IS NOT NULL;

CREATE OR REPLACE FUNCTION relay.is_named(wanted text) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT EXISTS (SELECT FROM relay.messages WHERE body_key = wanted AND ended_at IS NULL)
    OR EXISTS (SELECT FROM relay.dead_letters WHERE body_key = wanted)
    OR EXISTS (SELECT FROM relay.dead_letters WHERE response_key = wanted)
    OR EXISTS (SELECT FROM relay.answers WHERE key = wanted)
    OR EXISTS (SELECT FROM relay.schedules WHERE body_key = wanted)
$$;

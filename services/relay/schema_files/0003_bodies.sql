-- Large bodies: their hash, the large answers that are kept, and who still names the pieces of a body.

-- Of a body in pieces: what the delivery's signature covers, so that it need not be read for that. SHA-256, 32 bytes.
ALTER TABLE relay.messages ADD COLUMN body_sha256 bytea;
ALTER TABLE relay.dead_letters ADD COLUMN body_sha256 bytea;
-- Of an answer in pieces; response_body then has its beginning.
ALTER TABLE relay.dead_letters ADD COLUMN response_key text, ADD COLUMN response_size bigint;

-- Answers that were too large for their callback, which has their first part and an address that leads here.
CREATE TABLE relay.answers (
  message_id text        COLLATE "C" NOT NULL,
  attempt    integer     NOT NULL,           -- its number, from 0
  key        text        COLLATE "C" NOT NULL,
  size       bigint      NOT NULL,
  header     jsonb       NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (message_id, attempt)
);
CREATE INDEX answers_key ON relay.answers (key);
CREATE INDEX answers_age ON relay.answers (created_at);

CREATE INDEX messages_body_key ON relay.messages (body_key) WHERE body_key IS NOT NULL AND ended_at IS NULL;
CREATE INDEX dead_letters_body_key ON relay.dead_letters (body_key) WHERE body_key IS NOT NULL;
CREATE INDEX dead_letters_response_key ON relay.dead_letters (response_key) WHERE response_key IS NOT NULL;

-- Whether something still needs the pieces of a body: a message that has not ended, a dead letter, or a kept answer. Several
-- may name the same: one request to a URL group makes a message an endpoint.
CREATE FUNCTION relay.is_named(wanted text) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT EXISTS (SELECT FROM relay.messages WHERE body_key = wanted AND ended_at IS NULL)
    OR EXISTS (SELECT FROM relay.dead_letters WHERE body_key = wanted)
    OR EXISTS (SELECT FROM relay.dead_letters WHERE response_key = wanted)
    OR EXISTS (SELECT FROM relay.answers WHERE key = wanted)
$$;

-- depends: 0001_roles
-- The three insert-only tables. All are keyed by the submission's UUID v7, whose leading 48 bits are a Unix time in
-- milliseconds, and range-partitioned on it: a partition is a month that can be dropped, and the primary key of
-- `results` still makes a terminal state final across all of them.
SET ROLE tidings_owner;

CREATE TABLE tidings.submissions (
  id              uuid        NOT NULL,
  tenant          text        NOT NULL,
  target          text        NOT NULL,
  body            bytea       NOT NULL,  -- the JSON for the target; never in the publication
  content_type    text        NOT NULL,
  metadata        jsonb,
  channel         text CHECK (channel ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
  webhook         text,
  idempotency_key text,
  fingerprint     bytea       NOT NULL,  -- SHA-256 of what was asked for
  traceparent     text,
  created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (id)
) PARTITION BY RANGE (id);
-- The list: one tenant's, newest first; the id is the time.
CREATE INDEX submissions_tenant_id ON tidings.submissions (tenant, id DESC);

-- One row for each call to the provider.
CREATE TABLE tidings.attempts (
  submission_id uuid        NOT NULL,
  number        integer     NOT NULL CHECK (number >= 1),
  tenant        text        NOT NULL,
  status_code   integer     CHECK (status_code BETWEEN 100 AND 599),  -- null: there was no answer
  error         text,
  retry_at      timestamptz,                                          -- null: none follows
  started_at    timestamptz,
  ended_at      timestamptz NOT NULL,
  message_id    text        NOT NULL,
  PRIMARY KEY (submission_id, number)
) PARTITION BY RANGE (submission_id);

-- The end of a submission, with all that its event needs: the notifier never reads Postgres, so what the event says of
-- the submission is copied here.
CREATE TABLE tidings.results (
  submission_id uuid        NOT NULL,
  event_id      uuid        NOT NULL,
  tenant        text        NOT NULL,
  target        text        NOT NULL,
  channel       text,
  webhook       text,
  metadata      jsonb,
  traceparent   text,
  outcome       text        NOT NULL CHECK (outcome IN ('succeeded', 'failed', 'cancelled', 'expired')),
  reason        text,
  status_code   integer     CHECK (status_code BETWEEN 100 AND 599),
  content_type  text,
  body          bytea,                                                -- the answer, byte for byte; never in the publication
  body_size     integer,
  body_sha256   text,
  output        jsonb,                                                -- a JSON answer of up to 16 KiB
  submitted_at  timestamptz NOT NULL,
  created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (submission_id),
  CHECK ((outcome = 'succeeded') = (reason IS NULL)),
  CHECK ((body IS NULL) = (body_size IS NULL) AND (body IS NULL) = (body_sha256 IS NULL)),
  -- Kafka's default message limit is 1 MiB and ours is far below it: a row whose published part outgrew it would stop
  -- the connector, so it is refused here instead.
  CHECK (octet_length(output::text) <= 65536)
) PARTITION BY RANGE (submission_id);

-- Apart from `submissions`, because a key must be unique over all partitions.
CREATE TABLE tidings.idempotency_keys (
  tenant        text        NOT NULL,
  key           text        NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
  submission_id uuid        NOT NULL,
  fingerprint   bytea       NOT NULL,
  created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (tenant, key)
);

-- A key is 256 random bits, so its SHA-256 tells nothing about it and needs no salt.
CREATE TABLE tidings.api_keys (
  key_sha256 bytea       PRIMARY KEY,
  tenant     text        NOT NULL CHECK (tenant ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
  name       text        NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  revoked_at timestamptz
);

-- Debezium writes a row here now and then, so that its slot moves on while nobody submits, and Postgres can let go of
-- the WAL it keeps. Hour-old rows go with each new one.
CREATE TABLE tidings.heartbeats (
  at timestamptz PRIMARY KEY DEFAULT clock_timestamp()
);

RESET ROLE;

-- depends: 0008_answers
-- What the reconciler works with: when submissions expire, rows to be told once more, and how far it has looked.
DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'tidings_reconciler') THEN
    CREATE ROLE tidings_reconciler NOLOGIN;
  END IF;
END $$;
GRANT USAGE ON SCHEMA tidings TO tidings_reconciler;

SET ROLE tidings_owner;

-- Null: the submission may take as long as it takes.
ALTER TABLE tidings.submissions ADD COLUMN expires_at timestamptz;
CREATE INDEX submissions_expires_at ON tidings.submissions (expires_at) WHERE expires_at IS NOT NULL;
-- By time of end: an event id is a UUID v7, made when the submission ended.
CREATE INDEX results_event_id ON tidings.results (event_id);

-- A published row is told once; a row here has it told again, on the topic of the table it is a copy of (the connector
-- routes both there). Insert-only for readers of the WAL; old rows are deleted, which is not published.
CREATE TABLE tidings.submission_nudges (
  nudged_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  id           uuid        NOT NULL,
  tenant       text        NOT NULL,
  target       text        NOT NULL,
  content_type text        NOT NULL,
  channel      text,
  traceparent  text,
  created_at   timestamptz NOT NULL,
  PRIMARY KEY (nudged_at, id)
);
CREATE TABLE tidings.result_nudges (
  nudged_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
  submission_id uuid        NOT NULL,
  event_id      uuid        NOT NULL,
  tenant        text        NOT NULL,
  target        text        NOT NULL,
  channel       text,
  webhook       text,
  metadata      jsonb,
  traceparent   text,
  outcome       text        NOT NULL,
  reason        text,
  status_code   integer,
  content_type  text,
  body_size     integer,
  body_sha256   text,
  output        jsonb,
  submitted_at  timestamptz NOT NULL,
  created_at    timestamptz NOT NULL,
  PRIMARY KEY (nudged_at, submission_id)
);

-- Up to where each of the reconciler's looks found all well: it begins there after a restart.
CREATE TABLE tidings.low_water_marks (
  name       text        PRIMARY KEY,
  at         uuid        NOT NULL,  -- the smallest id that may still be amiss
  updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

GRANT SELECT (id, tenant, target, content_type, metadata, channel, webhook, traceparent, created_at, expires_at)
  ON tidings.submissions TO tidings_reconciler;
GRANT SELECT (submission_id, event_id, tenant, target, channel, webhook, metadata, traceparent, outcome, reason,
  status_code, content_type, body_size, body_sha256, output, submitted_at, created_at)
  ON tidings.results TO tidings_reconciler;
-- It can end a submission as expired, and cannot make an answer.
GRANT INSERT (submission_id, event_id, tenant, target, channel, webhook, metadata, traceparent, outcome, reason,
  submitted_at) ON tidings.results TO tidings_reconciler;
GRANT SELECT, INSERT, DELETE ON tidings.submission_nudges, tidings.result_nudges TO tidings_reconciler;
GRANT SELECT, INSERT, UPDATE ON tidings.low_water_marks TO tidings_reconciler;
GRANT EXECUTE ON FUNCTION tidings.uuid_floor(timestamptz) TO tidings_reconciler;

GRANT SELECT ON tidings.submission_nudges, tidings.result_nudges TO tidings_cdc;

RESET ROLE;

ALTER PUBLICATION tidings_cdc ADD TABLE
  tidings.submission_nudges (nudged_at, id, tenant, target, content_type, channel, traceparent, created_at),
  tidings.result_nudges (nudged_at, submission_id, event_id, tenant, target, channel, webhook, metadata, traceparent,
    outcome, reason, status_code, content_type, body_size, body_sha256, output, submitted_at, created_at);

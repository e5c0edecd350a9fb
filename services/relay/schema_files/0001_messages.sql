-- The live queue. A message leaves it a while after its end; what it was is then in the dead letters or nowhere.
CREATE TABLE relay.messages (
  id           text        PRIMARY KEY,
  kind         text        NOT NULL CHECK (kind IN ('message', 'callback', 'failure_callback')),
  protocol     smallint    NOT NULL CHECK (protocol IN (1, 2)),
  url          text        NOT NULL,
  method       text        NOT NULL,
  body         bytea       NOT NULL,
  sealed       bytea       NOT NULL,   -- headers and callback settings, encrypted: they hold other services' keys
  label        text,
  retries_max  integer     NOT NULL CHECK (retries_max >= 0),
  retry_delay  text,
  timeout_ms   bigint      NOT NULL CHECK (timeout_ms > 0),
  final_status integer[]   NOT NULL DEFAULT '{}',
  final_errors text[]      NOT NULL DEFAULT '{}',
  error_field  text,
  on_unknown   text        NOT NULL DEFAULT 'retry' CHECK (on_unknown IN ('retry', 'fail')),
  caller_ip    text        NOT NULL,
  created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
  not_before   timestamptz NOT NULL,
  state        text        NOT NULL DEFAULT 'waiting'
               CHECK (state IN ('waiting', 'active', 'delivered', 'failed', 'cancelled')),
  due_at       timestamptz NOT NULL,
  retried      integer     NOT NULL DEFAULT 0 CHECK (retried >= 0),
  unknown      integer     NOT NULL DEFAULT 0,   -- attempts of which nobody knows whether they reached the destination
  started_at   timestamptz,                      -- of the attempt under way: written before its socket opens
  lease_owner  uuid,
  lease_until  timestamptz,
  ended_at     timestamptz,
  CHECK ((state = 'active') = (lease_owner IS NOT NULL AND lease_until IS NOT NULL AND started_at IS NOT NULL)),
  CHECK ((state IN ('delivered', 'failed', 'cancelled')) = (ended_at IS NOT NULL))
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);

CREATE INDEX messages_due ON relay.messages (due_at) WHERE state = 'waiting';
CREATE INDEX messages_leased ON relay.messages (lease_until) WHERE state = 'active';
CREATE INDEX messages_ended ON relay.messages (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX messages_label ON relay.messages (label) WHERE label IS NOT NULL;

CREATE TABLE relay.deduplications (
  id         text        PRIMARY KEY,
  message_id text        NOT NULL,
  expires_at timestamptz NOT NULL
);
CREATE INDEX deduplications_expiry ON relay.deduplications (expires_at);

CREATE TABLE relay.dead_letters (
  id              text        PRIMARY KEY,
  message_id      text        NOT NULL,
  url             text        NOT NULL,
  method          text        NOT NULL,
  body            bytea       NOT NULL,
  sealed          bytea       NOT NULL,
  label           text,
  retries_max     integer     NOT NULL,
  created_at      timestamptz NOT NULL,
  failed_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
  response_status integer     NOT NULL,
  response_header jsonb       NOT NULL,
  response_body   bytea       NOT NULL
);
CREATE INDEX dead_letters_failed_at ON relay.dead_letters (failed_at);

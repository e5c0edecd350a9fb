-- The whole protocol's tables. What is hot is small and thrown away by dropping partitions; what is kept is insert-only.

-- The messages of 0001 that have not ended go into the new table below, with the default retry delay, as what they asked
-- for would now be encrypted. Messages that have ended and the dead letters of 0001 are dropped with their tables. Its
-- indexes' names are needed again.
DROP INDEX relay.messages_due, relay.messages_leased, relay.messages_ended, relay.messages_label;
ALTER TABLE relay.messages RENAME TO messages_0001;
ALTER TABLE relay.messages_0001 RENAME CONSTRAINT messages_pkey TO messages_0001_pkey;
ALTER TABLE relay.dead_letters RENAME TO dead_letters_0001;
ALTER INDEX relay.dead_letters_failed_at RENAME TO dead_letters_0001_failed_at;
ALTER TABLE relay.dead_letters_0001 RENAME CONSTRAINT dead_letters_pkey TO dead_letters_0001_pkey;

-- A stretch of time of which the messages share a partition. The newest is the one that new messages go to. An older one
-- is dropped once nothing in it lives any more, so dead rows vanish even while some transaction holds back vacuum.
CREATE TABLE relay.periods (
  period    integer     PRIMARY KEY CHECK (period > 0),
  opened_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE relay.messages (
  id           text        COLLATE "C" NOT NULL,
  period       integer     NOT NULL,
  kind         text        NOT NULL CHECK (kind IN ('message', 'callback', 'failure_callback')),
  protocol     smallint    NOT NULL CHECK (protocol IN (1, 2)),
  url          text        NOT NULL,
  method       text        NOT NULL,
  body         bytea       NOT NULL,         -- empty when body_key is set
  body_key     text,                         -- of relay.chunks: a body too large to be moved about with its row
  body_size    bigint      NOT NULL,
  sealed       bytea       NOT NULL,         -- encrypted: headers and callback settings, which hold other services' keys,
                                             -- and those options that no statement here looks at
  retries_max  integer     NOT NULL CHECK (retries_max >= 0),
  timeout_ms   bigint      NOT NULL CHECK (timeout_ms > 0),
  on_unknown   text        NOT NULL CHECK (on_unknown IN ('retry', 'fail')),
  caller_ip    text        NOT NULL,
  label        text,                         -- the first of labels: what is cancelled by is nearly always this
  labels       text[]      NOT NULL,
  queue        text,
  flow_key     text,
  topic        text,
  endpoint     text,
  schedule_id  text,
  parent_id    text        COLLATE "C",      -- of a callback: the queued message that keeps its queue until this has ended
  created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
  not_before   timestamptz NOT NULL,
  state        text        NOT NULL,
  holds        boolean     NOT NULL DEFAULT false,  -- a place of its queue's parallelism
  due_at       timestamptz NOT NULL,
  retried      integer     NOT NULL DEFAULT 0 CHECK (retried >= 0),
  unknown      integer     NOT NULL DEFAULT 0,  -- attempts of which nobody knows whether they reached the destination
  started_at   timestamptz,                     -- of the attempt under way: written before its socket opens
  lease_owner  uuid,
  ended_at     timestamptz,
  PRIMARY KEY (id, period),
  CONSTRAINT state_is_known CHECK (state IN ('queued', 'waiting', 'active', 'delivered', 'failed', 'cancelled')),
  CONSTRAINT active_is_leased CHECK ((state = 'active') = (lease_owner IS NOT NULL)
    AND (state = 'active') = (started_at IS NOT NULL)),
  CONSTRAINT ended_has_its_time CHECK ((state IN ('delivered', 'failed', 'cancelled')) = (ended_at IS NOT NULL)),
  CONSTRAINT queued_has_a_queue CHECK (state <> 'queued' OR queue IS NOT NULL),
  CONSTRAINT holder_has_a_queue CHECK (NOT holds OR queue IS NOT NULL),
  CONSTRAINT queue_is_entered_before_work CHECK (queue IS NULL OR holds OR state NOT IN ('waiting', 'active')),
  CONSTRAINT large_body_is_elsewhere CHECK (body_key IS NULL OR body = '')
) PARTITION BY LIST (period);

-- Period 0: what outlives its period (long delays, long retries) is moved here once, and deleted row by row.
CREATE TABLE relay.messages_long PARTITION OF relay.messages FOR VALUES IN (0);
CREATE INDEX messages_long_ended ON relay.messages_long (ended_at) WHERE ended_at IS NOT NULL;

-- Each partial index holds one thing that a loop asks for, and nothing else.
CREATE INDEX messages_due ON relay.messages (due_at, id) WHERE state = 'waiting' AND flow_key IS NULL;
CREATE INDEX messages_flow_due ON relay.messages (flow_key, due_at, id) WHERE state = 'waiting' AND flow_key IS NOT NULL;
CREATE INDEX messages_flow_active ON relay.messages (flow_key) WHERE state = 'active' AND flow_key IS NOT NULL;
CREATE INDEX messages_queued ON relay.messages (queue, id) WHERE state = 'queued';
CREATE INDEX messages_holding ON relay.messages (queue) WHERE holds;
CREATE INDEX messages_active ON relay.messages (lease_owner) WHERE state = 'active';
CREATE INDEX messages_parent ON relay.messages (parent_id) WHERE parent_id IS NOT NULL AND ended_at IS NULL;
CREATE INDEX messages_label ON relay.messages (label) WHERE label IS NOT NULL AND ended_at IS NULL;
CREATE INDEX messages_body ON relay.messages (body_key) WHERE body_key IS NOT NULL;
CREATE INDEX messages_labels ON relay.messages USING gin (labels) WHERE cardinality(labels) > 1 AND ended_at IS NULL;

-- Large bodies, in pieces that are read and written one at a time. `owner`: the message, dead letter or answer they are of.
CREATE TABLE relay.chunks (
  key        text        COLLATE "C" NOT NULL,
  part       integer     NOT NULL CHECK (part >= 0),
  content    bytea       NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (key, part)
);
ALTER TABLE relay.chunks ALTER COLUMN content SET STORAGE EXTERNAL;
CREATE INDEX chunks_age ON relay.chunks (created_at) WHERE part = 0;

-- A relay that runs. Its calls are its own while lease_until is in the future: one row to renew, however many calls.
CREATE TABLE relay.processes (
  owner       uuid        PRIMARY KEY,
  lease_until timestamptz NOT NULL
);

-- Calls to be broken off by the process that holds them.
CREATE TABLE relay.cancellations (
  owner      uuid        NOT NULL,
  message_id text        COLLATE "C" NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (owner, message_id)
);

-- Limits by key. Counts of calls are never kept: they are counted from messages, under this row's lock.
CREATE TABLE relay.flow_keys (
  key                text        PRIMARY KEY,
  parallelism        integer     CHECK (parallelism > 0),
  rate               integer     CHECK (rate > 0),
  period_seconds     integer     NOT NULL DEFAULT 1 CHECK (period_seconds BETWEEN 1 AND 604800),
  pinned_parallelism boolean     NOT NULL DEFAULT false,
  pinned_rate        boolean     NOT NULL DEFAULT false,
  paused             boolean     NOT NULL DEFAULT false,
  window_started_at  timestamptz NOT NULL DEFAULT '-infinity',
  window_count       integer     NOT NULL DEFAULT 0,
  cools              boolean     NOT NULL DEFAULT true,  -- whether a provider's 429 pauses the key
  cooling_until      timestamptz,                        -- in the past: half open, one call at a time until one succeeds
  ready_at           timestamptz,                        -- when something may be claimed; null: when a call ends
  created_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
  updated_at         timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX flow_keys_ready ON relay.flow_keys (ready_at) WHERE ready_at IS NOT NULL;

CREATE TABLE relay.queues (
  name        text        PRIMARY KEY,
  parallelism integer     NOT NULL DEFAULT 1 CHECK (parallelism > 0),
  paused      boolean     NOT NULL DEFAULT false,
  created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  updated_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE relay.schedules (
  id               text        PRIMARY KEY,
  cron             text        NOT NULL,
  destination      text        NOT NULL,
  queue            text,
  sealed           bytea       NOT NULL,   -- encrypted: the options to publish with
  body             bytea       NOT NULL,
  protocol         smallint    NOT NULL,
  caller_ip        text        NOT NULL,
  paused           boolean     NOT NULL DEFAULT false,
  created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
  next_at          timestamptz NOT NULL,
  last_at          timestamptz,
  last_message_ids text[]      NOT NULL DEFAULT '{}',
  error            text                    -- why the last firing published nothing
);
CREATE INDEX schedules_next ON relay.schedules (next_at) WHERE NOT paused;

CREATE TABLE relay.topics (
  name       text        PRIMARY KEY,
  sealed     bytea       NOT NULL,         -- encrypted: default headers, which may hold keys
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE relay.endpoints (
  topic text NOT NULL REFERENCES relay.topics ON DELETE CASCADE,
  url   text NOT NULL,
  name  text,
  PRIMARY KEY (topic, url),
  UNIQUE (topic, name)
);

-- Who may call. The token itself is stored nowhere.
CREATE TABLE relay.tokens (
  name                text        PRIMARY KEY,
  sha256              bytea       NOT NULL UNIQUE,
  writes              boolean     NOT NULL,
  publishes_per_second integer    CHECK (publishes_per_second > 0),
  created_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
  revoked_at          timestamptz
);

-- One row, encrypted: `current` signs, receivers take both.
CREATE TABLE relay.signing_keys (
  only_one   boolean     PRIMARY KEY DEFAULT true CHECK (only_one),
  sealed     bytea       NOT NULL,
  rotated_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- What happened, insert-only, a partition a day.
CREATE TABLE relay.events (
  at              timestamptz NOT NULL,
  sequence        bigint      NOT NULL GENERATED ALWAYS AS IDENTITY,
  message_id      text        COLLATE "C" NOT NULL,
  state           text        NOT NULL CHECK (state IN
    ('CREATED', 'ACTIVE', 'RETRY', 'ERROR', 'DELIVERED', 'FAILED', 'CANCEL_REQUESTED', 'CANCELED')),
  attempt         integer,                 -- its number, from 0
  url             text        NOT NULL,
  method          text        NOT NULL,
  labels          text[]      NOT NULL,
  queue           text,
  flow_key        text,
  topic           text,
  endpoint        text,
  schedule_id     text,
  caller_ip       text        NOT NULL,
  retries_max     integer     NOT NULL,
  timeout_ms      bigint      NOT NULL,
  next_due_at     timestamptz,
  status          integer,                 -- of the answer; null when there was none
  error           text,
  response_header jsonb,
  response_body   bytea                    -- the first bytes of a failed attempt's answer
) PARTITION BY RANGE (at);
CREATE INDEX events_at ON relay.events (at, sequence);
CREATE INDEX events_message ON relay.events (message_id);

-- Messages that failed for good; the id begins with its Unix milliseconds, so it alone says which day's partition.
CREATE TABLE relay.dead_letters (
  id              text        COLLATE "C" PRIMARY KEY,
  message_id      text        COLLATE "C" NOT NULL,
  failed_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
  kind            text        NOT NULL,
  protocol        smallint    NOT NULL,
  url             text        NOT NULL,
  method          text        NOT NULL,
  body            bytea       NOT NULL,
  body_key        text,
  body_size       bigint      NOT NULL,
  sealed          bytea       NOT NULL,
  retries_max     integer     NOT NULL,
  timeout_ms      bigint      NOT NULL,
  on_unknown      text        NOT NULL,
  caller_ip       text        NOT NULL,
  labels          text[]      NOT NULL,
  queue           text,
  flow_key        text,
  topic           text,
  endpoint        text,
  schedule_id     text,
  created_at      timestamptz NOT NULL,
  not_before      timestamptz NOT NULL,
  response_status integer     NOT NULL,
  response_header jsonb       NOT NULL,
  response_body   bytea       NOT NULL
) PARTITION BY RANGE (id);
CREATE INDEX dead_letters_body ON relay.dead_letters (body_key) WHERE body_key IS NOT NULL;
CREATE INDEX dead_letters_message ON relay.dead_letters (message_id);

-- Makes the partitions of today and of the days after it, and opens the first period; answers how many were made.
CREATE FUNCTION relay.make_partitions(days_ahead integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
  made integer := 0;
  day timestamptz;
  suffix text;
BEGIN
  IF NOT EXISTS (SELECT FROM relay.periods) THEN
    PERFORM relay.open_period();
    made := made + 1;
  END IF;
  FOR n IN 0..days_ahead LOOP
    day := date_trunc('day', now(), 'UTC') + n * interval '24 hours';
    suffix := to_char(day AT TIME ZONE 'UTC', 'YYYYMMDD');
    IF to_regclass('relay.events_' || suffix) IS NULL THEN
      EXECUTE format('CREATE TABLE relay.events_%s PARTITION OF relay.events FOR VALUES FROM (%L) TO (%L)',
        suffix, day, day + interval '24 hours');
      made := made + 1;
    END IF;
    IF to_regclass('relay.dead_letters_' || suffix) IS NULL THEN
      EXECUTE format('CREATE TABLE relay.dead_letters_%s PARTITION OF relay.dead_letters FOR VALUES FROM (%L) TO (%L)',
        suffix, extract(epoch FROM day)::bigint * 1000, (extract(epoch FROM day)::bigint + 86400) * 1000);
      made := made + 1;
    END IF;
  END LOOP;
  RETURN made;
END $$;

-- Opens the next period: from now on new messages go to a new partition.
CREATE FUNCTION relay.open_period() RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
  opening integer;
BEGIN
  SELECT coalesce(max(period), 0) + 1 INTO opening FROM relay.periods;
  EXECUTE format('CREATE TABLE relay.messages_p%s PARTITION OF relay.messages FOR VALUES IN (%s)
    WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05)', opening, opening);
  INSERT INTO relay.periods (period) VALUES (opening);
  RETURN opening;
END $$;

-- Drops a period's partition when all in it has ended and was kept long enough; answers whether it did. What waits in
-- it is moved first, past calls under way and rows that somebody holds: those keep the partition for another round.
CREATE FUNCTION relay.close_period(closing integer, keep_seconds double precision) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  lives boolean;
  columns text;
BEGIN
  -- Deleted and inserted, not updated: a claim that meets a row which an UPDATE took to another partition is an error.
  SELECT string_agg(CASE attname WHEN 'period' THEN '0' ELSE quote_ident(attname) END, ', ' ORDER BY attnum) INTO columns
  FROM pg_attribute WHERE attrelid = 'relay.messages'::regclass AND attnum > 0 AND NOT attisdropped;
  EXECUTE format('WITH moving AS (
      SELECT id FROM relay.messages_p%1$s WHERE state IN (''queued'', ''waiting'') OR (holds AND ended_at IS NOT NULL)
      LIMIT 10000 FOR UPDATE SKIP LOCKED
    ), moved AS (
      DELETE FROM relay.messages_p%1$s WHERE id IN (SELECT id FROM moving) RETURNING *
    )
    INSERT INTO relay.messages SELECT %2$s FROM moved', closing, columns);
  -- Two looks: the first without a lock that would stop others for nothing. The second, with it, is for what was on its way
  -- in during the first; it must be quick, so it asks each partial index once.
  EXECUTE format('SELECT EXISTS (SELECT FROM relay.messages_p%s WHERE ended_at IS NULL OR holds
    OR ended_at > now() - make_interval(secs => $1))', closing) INTO lives USING keep_seconds;
  IF lives THEN
    RETURN false;
  END IF;
  -- The whole first, as everybody does: who held the part and waited for the whole would wait for those behind him.
  LOCK TABLE ONLY relay.messages IN ACCESS EXCLUSIVE MODE;
  EXECUTE format('LOCK TABLE relay.messages_p%s IN ACCESS EXCLUSIVE MODE', closing);
  PERFORM set_config('enable_seqscan', 'off', true);
  EXECUTE format('SELECT EXISTS (SELECT FROM relay.messages_p%1$s WHERE state = ''queued'')
    OR EXISTS (SELECT FROM relay.messages_p%1$s WHERE state = ''waiting'' AND flow_key IS NULL)
    OR EXISTS (SELECT FROM relay.messages_p%1$s WHERE state = ''waiting'' AND flow_key IS NOT NULL)
    OR EXISTS (SELECT FROM relay.messages_p%1$s WHERE state = ''active'')
    OR EXISTS (SELECT FROM relay.messages_p%1$s WHERE holds)', closing) INTO lives;
  IF lives THEN
    RETURN false;
  END IF;
  EXECUTE format('DROP TABLE relay.messages_p%s', closing);
  DELETE FROM relay.periods WHERE period = closing;
  RETURN true;
END $$;

-- Drops the days that are older than asked; answers their tables' names.
CREATE FUNCTION relay.drop_days(parent regclass, days double precision) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
  child text;
BEGIN
  FOR child IN
    SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
    WHERE i.inhparent = parent
      AND to_timestamp(right(c.relname, 8), 'YYYYMMDD') < now() - make_interval(secs => (days + 1) * 86400)
    ORDER BY c.relname
  LOOP
    EXECUTE format('DROP TABLE relay.%I', child);
    RETURN NEXT child;
  END LOOP;
END $$;

-- Locks are taken in one order everywhere, so that no two transactions wait for each other: messages, then queues by
-- name, then flow keys by key. Whoever holds a queue or a key passes over messages that another has locked.

-- Lets queued messages enter as far as their queue's parallelism allows, in the order they were enqueued; answers the flow
-- keys of those that came in, which are then to be touched.
CREATE FUNCTION relay.enter(names text[]) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
  q relay.queues;
  room integer;
BEGIN
  FOR q IN SELECT * FROM relay.queues WHERE name = ANY(names) AND NOT paused ORDER BY name FOR UPDATE LOOP
    -- Those that were in already when the queue was paused come in again without a place of their own.
    RETURN QUERY
    WITH again AS (
      SELECT id, period FROM relay.messages WHERE queue = q.name AND state = 'queued' AND holds FOR UPDATE SKIP LOCKED
    )
    UPDATE relay.messages AS m SET state = 'waiting' FROM again WHERE m.id = again.id AND m.period = again.period
    RETURNING m.flow_key;
    SELECT q.parallelism - count(*) INTO room FROM relay.messages WHERE queue = q.name AND holds;
    CONTINUE WHEN room <= 0;
    RETURN QUERY
    WITH next AS (
      SELECT id, period FROM relay.messages WHERE queue = q.name AND state = 'queued' AND NOT holds
      ORDER BY id LIMIT room FOR UPDATE SKIP LOCKED
    )
    UPDATE relay.messages AS m SET state = 'waiting', holds = true, due_at = greatest(m.due_at, now())
    FROM next WHERE m.id = next.id AND m.period = next.period
    RETURNING m.flow_key;
  END LOOP;
END $$;

-- Something may be claimable under these keys now. `cool`: not before then, the provider asked for it; `answered`: the
-- provider takes calls, which ends a cooling that was half open. The arrays go together; a key may stand in them twice.
CREATE FUNCTION relay.touch_flows(keys text[], cool timestamptz[], answered boolean[]) RETURNS void LANGUAGE sql AS $$
  WITH news AS (
    SELECT key, max(until) AS until, bool_or(well) AS well FROM unnest(keys, cool, answered) AS v (key, until, well) GROUP BY key
  ), locked AS (
    SELECT f.key FROM relay.flow_keys AS f JOIN news USING (key) ORDER BY f.key FOR UPDATE OF f
  )
  UPDATE relay.flow_keys AS f SET ready_at = clock_timestamp(), cooling_until = CASE
      WHEN news.until IS NOT NULL AND f.cools THEN greatest(f.cooling_until, news.until)
      WHEN news.well AND f.cooling_until <= clock_timestamp() THEN NULL
      ELSE f.cooling_until END
  FROM locked JOIN news USING (key) WHERE f.key = locked.key
$$;

-- Claims messages that have a flow-control key, within the limits of all processes together: a key's row is locked while
-- its calls are counted and the new ones are committed. A key that another process has in hand is passed over.
CREATE FUNCTION relay.claim_keyed(claimer uuid, batch_max integer, keys_max integer) RETURNS SETOF relay.messages
LANGUAGE plpgsql AS $$
DECLARE
  k relay.flow_keys;
  held integer;
  room integer;
  taken integer;
  total integer := 0;
  first_due timestamptz;
  moment timestamptz;
BEGIN
  FOR k IN
    SELECT * FROM relay.flow_keys WHERE ready_at <= clock_timestamp() ORDER BY ready_at LIMIT keys_max FOR UPDATE SKIP LOCKED
  LOOP
    EXIT WHEN total >= batch_max;
    moment := clock_timestamp();
    IF k.paused THEN
      UPDATE relay.flow_keys SET ready_at = NULL WHERE key = k.key;
      CONTINUE;
    ELSIF k.cooling_until > moment THEN
      UPDATE relay.flow_keys SET ready_at = k.cooling_until WHERE key = k.key;
      CONTINUE;
    END IF;
    IF moment >= k.window_started_at + make_interval(secs => k.period_seconds) THEN
      k.window_started_at := moment;
      k.window_count := 0;
    END IF;
    SELECT count(*) INTO held FROM relay.messages WHERE flow_key = k.key AND state = 'active';
    room := least(batch_max - total,
      coalesce(k.parallelism, batch_max) - held,
      coalesce(k.rate - k.window_count, batch_max),
      CASE WHEN k.cooling_until IS NULL THEN batch_max ELSE 1 - held END);
    taken := 0;
    IF room > 0 THEN
      RETURN QUERY
      WITH due AS (
        SELECT id, period FROM relay.messages WHERE flow_key = k.key AND state = 'waiting' AND due_at <= moment
        ORDER BY due_at, id LIMIT room FOR UPDATE SKIP LOCKED
      )
      UPDATE relay.messages AS m SET state = 'active', started_at = clock_timestamp(), lease_owner = claimer
      FROM due WHERE m.id = due.id AND m.period = due.period
      RETURNING m.*;
      GET DIAGNOSTICS taken = ROW_COUNT;
    END IF;
    total := total + taken;
    SELECT due_at INTO first_due FROM relay.messages WHERE flow_key = k.key AND state = 'waiting' ORDER BY due_at LIMIT 1;
    -- A window begins with a call, not with a look.
    UPDATE relay.flow_keys SET
      window_started_at = CASE WHEN taken > 0 THEN k.window_started_at ELSE window_started_at END,
      window_count = CASE WHEN taken > 0 THEN k.window_count + taken ELSE window_count END,
      ready_at = CASE
        WHEN first_due IS NULL THEN NULL
        WHEN first_due > moment THEN first_due
        WHEN held + taken >= k.parallelism OR (k.cooling_until IS NOT NULL AND held + taken > 0) THEN NULL
        WHEN k.window_count + taken >= k.rate THEN k.window_started_at + make_interval(secs => k.period_seconds)
        ELSE moment
      END
    WHERE key = k.key;
  END LOOP;
END $$;

SELECT relay.make_partitions(2);

INSERT INTO relay.messages (id, period, kind, protocol, url, method, body, body_size, sealed, retries_max, timeout_ms, on_unknown,
  caller_ip, label, labels, created_at, not_before, state, due_at, retried, unknown)
SELECT id, 1, kind, protocol, url, method, body, length(body), sealed, retries_max, timeout_ms, on_unknown, caller_ip, label,
  CASE WHEN label IS NULL THEN '{}' ELSE ARRAY[label] END, created_at, not_before, 'waiting', due_at, retried, unknown
FROM relay.messages_0001 WHERE ended_at IS NULL;
DROP TABLE relay.messages_0001, relay.dead_letters_0001;

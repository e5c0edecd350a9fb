-- Who waits for whom: queues are changed under their own lock alone, publishers of a flow key do not shut out its
-- claims, and the janitor's questions cost what lives and not what has ended.

-- Each of these two holds nothing that messages_body_key and dead_letters_body_key are not asked for.
DROP INDEX relay.messages_body, relay.dead_letters_body;

-- For the gauge of cooling keys: there may be very many keys.
CREATE INDEX flow_keys_cooling ON relay.flow_keys (cooling_until) WHERE cooling_until IS NOT NULL;

ALTER TABLE relay.periods
  ADD COLUMN looked_at timestamptz,   -- by the janitor; those that it did not look at for longest are next
  ADD COLUMN quiet_at timestamptz;    -- when the janitor first found that all in it had ended

-- Brings queues into their state, under their locks: what waits in a paused one is parked, and keeps its place; else
-- messages enter as far as the parallelism allows, in the order they were enqueued. Answers the flow keys of those that
-- came in, which are then to be touched. What another transaction has locked is passed over: its own call of this
-- function comes after.
CREATE OR REPLACE FUNCTION relay.enter(names text[]) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
  q relay.queues;
  room integer;
BEGIN
  FOR q IN SELECT * FROM relay.queues WHERE name = ANY(names) ORDER BY name FOR UPDATE LOOP
    IF q.paused THEN
      WITH parked AS (
        SELECT id, period FROM relay.messages WHERE queue = q.name AND holds AND state = 'waiting'
        FOR UPDATE SKIP LOCKED
      )
      UPDATE relay.messages AS m SET state = 'queued' FROM parked WHERE m.id = parked.id AND m.period = parked.period;
      CONTINUE;
    END IF;
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

-- As before, but past the publishers of a key, who hold its row FOR KEY SHARE.
CREATE OR REPLACE FUNCTION relay.touch_flows(keys text[], cool timestamptz[], answered boolean[]) RETURNS void
LANGUAGE sql AS $$
  WITH news AS (
    SELECT key, max(until) AS until, bool_or(well) AS well
    FROM unnest(keys, cool, answered) AS v (key, until, well) GROUP BY key
  ), locked AS (
    SELECT f.key FROM relay.flow_keys AS f JOIN news USING (key) ORDER BY f.key FOR NO KEY UPDATE OF f
  )
  UPDATE relay.flow_keys AS f SET ready_at = clock_timestamp(), cooling_until = CASE
      WHEN news.until IS NOT NULL AND f.cools THEN greatest(f.cooling_until, news.until)
      WHEN news.well AND f.cooling_until <= clock_timestamp() THEN NULL
      ELSE f.cooling_until END
  FROM locked JOIN news USING (key) WHERE f.key = locked.key
$$;

-- As before; and a key's publishers do not keep claims away. A publisher that finds the key ready holds its row FOR KEY
-- SHARE until it commits, which this lock does not conflict with. What it publishes is not seen here yet: so a key in
-- which nothing is due is asked for with the lock that does conflict, and is looked at again soon when that is not to
-- be had.
CREATE OR REPLACE FUNCTION relay.claim_keyed(claimer uuid, batch_max integer, keys_max integer)
RETURNS SETOF relay.messages LANGUAGE plpgsql AS $$
DECLARE
  k relay.flow_keys;
  held integer;
  room integer;
  taken integer;
  total integer := 0;
  first_due timestamptz;
  moment timestamptz;
  publishing boolean;
BEGIN
  FOR k IN
    SELECT * FROM relay.flow_keys WHERE ready_at <= clock_timestamp() ORDER BY ready_at LIMIT keys_max
    FOR NO KEY UPDATE SKIP LOCKED
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
    publishing := false;
    SELECT due_at INTO first_due FROM relay.messages
    WHERE flow_key = k.key AND state = 'waiting' ORDER BY due_at LIMIT 1;
    IF first_due IS NULL OR first_due > moment THEN
      PERFORM FROM relay.flow_keys WHERE key = k.key FOR UPDATE SKIP LOCKED;
      publishing := NOT FOUND;
      -- Those that committed before the lock was had are seen now; those that come later wait for it.
      SELECT due_at INTO first_due FROM relay.messages
    WHERE flow_key = k.key AND state = 'waiting' ORDER BY due_at LIMIT 1;
    END IF;
    -- A window begins with a call, not with a look.
    UPDATE relay.flow_keys SET
      window_started_at = CASE WHEN taken > 0 THEN k.window_started_at ELSE window_started_at END,
      window_count = CASE WHEN taken > 0 THEN k.window_count + taken ELSE window_count END,
      updated_at = CASE WHEN taken > 0 THEN moment ELSE updated_at END,
      ready_at = CASE
        -- 10 ms: about a commit.
        WHEN publishing THEN least(first_due, moment + interval '10 milliseconds')
        WHEN first_due IS NULL THEN NULL
        WHEN first_due > moment THEN first_due
        WHEN held + taken >= k.parallelism OR (k.cooling_until IS NOT NULL AND held + taken > 0) THEN NULL
        WHEN k.window_count + taken >= k.rate THEN k.window_started_at + make_interval(secs => k.period_seconds)
        ELSE moment
      END
    WHERE key = k.key;
  END LOOP;
END $$;

-- Moves what waits out of a period, past calls under way and rows that somebody holds; answers how many. What is in a
-- queue is moved under the queue's lock, as whoever lets messages in passes over locked ones, and would let a younger
-- one in.
CREATE FUNCTION relay.move_waiting(closing integer, batch_max integer) RETURNS integer LANGUAGE plpgsql
SET enable_seqscan = off AS $$
DECLARE
  names text[];
  columns text;
  count integer;
BEGIN
  EXECUTE format('SELECT coalesce(array_agg(name), ''{}'') FROM (
      SELECT q.name FROM relay.queues AS q
      WHERE EXISTS (SELECT FROM relay.messages_p%1$s AS m WHERE m.queue = q.name AND m.state = ''queued'')
        OR EXISTS (SELECT FROM relay.messages_p%1$s AS m WHERE m.queue = q.name AND m.holds AND m.state <> ''active'')
      ORDER BY q.name LIMIT 100 FOR UPDATE SKIP LOCKED
    ) AS locked', closing) INTO names;
  -- Deleted and inserted, not updated: a claim that meets a row which an UPDATE took to another partition is an error.
  SELECT string_agg(CASE attname WHEN 'period' THEN '0' ELSE quote_ident(attname) END, ', ' ORDER BY attnum)
  INTO columns FROM pg_attribute WHERE attrelid = 'relay.messages'::regclass AND attnum > 0 AND NOT attisdropped;
  -- A branch for each partial index, so that what has ended is never read.
  EXECUTE format('WITH queued AS (
      SELECT id FROM relay.messages_p%1$s WHERE state = ''queued'' AND queue = ANY($1) LIMIT $2 FOR UPDATE SKIP LOCKED
    ), free AS (
      SELECT id FROM relay.messages_p%1$s
      WHERE state = ''waiting'' AND flow_key IS NULL AND (queue IS NULL OR queue = ANY($1)) LIMIT $2
      FOR UPDATE SKIP LOCKED
    ), keyed AS (
      SELECT id FROM relay.messages_p%1$s
      WHERE state = ''waiting'' AND flow_key IS NOT NULL AND (queue IS NULL OR queue = ANY($1)) LIMIT $2
      FOR UPDATE SKIP LOCKED
    ), holding AS (
      SELECT id FROM relay.messages_p%1$s WHERE holds AND ended_at IS NOT NULL AND queue = ANY($1) LIMIT $2
      FOR UPDATE SKIP LOCKED
    ), moved AS (
      DELETE FROM relay.messages_p%1$s WHERE id IN (
        SELECT id FROM queued UNION SELECT id FROM free UNION SELECT id FROM keyed UNION SELECT id FROM holding)
      RETURNING *
    )
    INSERT INTO relay.messages SELECT %2$s FROM moved', closing, columns) USING names, batch_max;
  GET DIAGNOSTICS count = ROW_COUNT;
  RETURN count;
END $$;

-- Whether anything in a period has not ended. Each partial index is asked once.
CREATE FUNCTION relay.lives_in(asked integer) RETURNS boolean LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
  lives boolean;
BEGIN
  EXECUTE format('SELECT EXISTS (SELECT FROM relay.messages_p%1$s WHERE state = ''queued'')
    OR EXISTS (SELECT FROM relay.messages_p%1$s WHERE state = ''waiting'' AND flow_key IS NULL)
    OR EXISTS (SELECT FROM relay.messages_p%1$s WHERE state = ''waiting'' AND flow_key IS NOT NULL)
    OR EXISTS (SELECT FROM relay.messages_p%1$s WHERE state = ''active'')
    OR EXISTS (SELECT FROM relay.messages_p%1$s WHERE holds)', asked) INTO lives;
  RETURN lives;
END $$;

-- Drops a period's partition once all in it has ended for as long as ended messages are kept; answers whether it did.
CREATE OR REPLACE FUNCTION relay.close_period(closing integer, keep_seconds double precision) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
  quiet_since timestamptz;
BEGIN
  -- Two looks: the first without a lock that would stop others for nothing. The second, with it, is for what was on its
  -- way in during the first.
  IF relay.lives_in(closing) THEN
    UPDATE relay.periods SET quiet_at = NULL WHERE period = closing AND quiet_at IS NOT NULL;
    RETURN false;
  END IF;
  -- What ended last ended before this moment: it need not be looked for among all that ended.
  UPDATE relay.periods SET quiet_at = coalesce(quiet_at, clock_timestamp()) WHERE period = closing RETURNING quiet_at
  INTO quiet_since;
  IF quiet_since > clock_timestamp() - make_interval(secs => keep_seconds) THEN
    RETURN false;
  END IF;
  -- The partitioned table first, as every other statement locks it first; the other order deadlocks.
  LOCK TABLE ONLY relay.messages IN ACCESS EXCLUSIVE MODE;
  EXECUTE format('LOCK TABLE relay.messages_p%s IN ACCESS EXCLUSIVE MODE', closing);
  IF relay.lives_in(closing) THEN
    RETURN false;
  END IF;
  EXECUTE format('DROP TABLE relay.messages_p%s', closing);
  DELETE FROM relay.periods WHERE period = closing;
  RETURN true;
END $$;

-- As before, whatever the order in which the planner has the conditions looked at: other tables' names are no dates.
CREATE OR REPLACE FUNCTION relay.drop_days(parent regclass, days double precision) RETURNS SETOF text
LANGUAGE plpgsql AS $$
DECLARE
  child text;
BEGIN
  FOR child IN
    SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
    WHERE i.inhparent = parent
      AND CASE WHEN c.relname ~ '_[0-9]{8}$'
        THEN to_timestamp(right(c.relname, 8), 'YYYYMMDD') < now() - make_interval(secs => (days + 1) * 86400) END
    ORDER BY c.relname
  LOOP
    EXECUTE format('DROP TABLE relay.%I', child);
    RETURN NEXT child;
  END LOOP;
END $$;

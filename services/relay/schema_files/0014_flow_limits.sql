-- The limits that messages set, in rows of their own. A publisher that changes them holds the row until it commits, and
-- others that change them wait for it. Claims do not lock these rows, so publishers that alternate the limits of a key
-- do not keep claims from it.
CREATE TABLE relay.flow_limits (
  key            text    PRIMARY KEY,
  parallelism    integer CHECK (parallelism > 0),
  rate           integer CHECK (rate > 0),
  period_seconds integer NOT NULL CHECK (period_seconds BETWEEN 1 AND 604800),
  cools          boolean NOT NULL
);
INSERT INTO relay.flow_limits SELECT key, parallelism, rate, period_seconds, cools FROM relay.flow_keys;

-- The limits of flow_keys are those of an operator if they are pinned, and otherwise those of a key's first message. The
-- latter are in force for a key without a row in flow_limits: one that processes of the previous version made. What these
-- set for a key that has a row is not in force, for as long as both versions run.
CREATE VIEW relay.flow_limits_in_force AS
SELECT f.key,
  CASE WHEN f.pinned_parallelism OR l.key IS NULL THEN f.parallelism ELSE l.parallelism END AS parallelism,
  CASE WHEN f.pinned_rate OR l.key IS NULL THEN f.rate ELSE l.rate END AS rate,
  CASE WHEN f.pinned_rate OR l.key IS NULL THEN f.period_seconds ELSE l.period_seconds END AS period_seconds,
  CASE WHEN f.pinned_cooling OR l.key IS NULL THEN f.cools ELSE l.cools END AS cools
FROM relay.flow_keys AS f LEFT JOIN relay.flow_limits AS l USING (key);

-- As before, with the limits in force.
CREATE OR REPLACE FUNCTION relay.claim_keyed(claimer uuid, batch_max integer, keys_max integer, bytes_max bigint)
RETURNS SETOF relay.messages LANGUAGE plpgsql AS $$
DECLARE
  k relay.flow_keys;
  e relay.flow_limits_in_force;
  m relay.messages;
  held integer;
  room integer;
  taken integer;
  taken_bytes bigint;
  total integer := 0;
  total_bytes bigint := 0;
  first_due timestamptz;
  moment timestamptz;
  publishing boolean;
  changing boolean;
BEGIN
  FOR k IN
    SELECT * FROM relay.flow_keys WHERE ready_at <= clock_timestamp() ORDER BY ready_at LIMIT keys_max
    FOR NO KEY UPDATE SKIP LOCKED
  LOOP
    EXIT WHEN total >= batch_max OR (total > 0 AND total_bytes >= bytes_max);
    moment := clock_timestamp();
    IF k.paused THEN
      UPDATE relay.flow_keys SET ready_at = NULL WHERE key = k.key;
      CONTINUE;
    ELSIF k.cooling_until > moment THEN
      UPDATE relay.flow_keys SET ready_at = k.cooling_until WHERE key = k.key;
      CONTINUE;
    END IF;
    SELECT * INTO e FROM relay.flow_limits_in_force WHERE key = k.key;
    IF moment >= k.window_started_at + make_interval(secs => e.period_seconds) THEN
      k.window_started_at := moment;
      k.window_count := 0;
    END IF;
    SELECT count(*) INTO held FROM relay.messages WHERE flow_key = k.key AND state = 'active';
    room := least(batch_max - total,
      coalesce(e.parallelism - held, batch_max),
      coalesce(e.rate - k.window_count, batch_max),
      CASE WHEN k.cooling_until IS NULL THEN batch_max ELSE 1 - held END);
    taken := 0;
    taken_bytes := 0;
    IF room > 0 THEN
      FOR m IN
        WITH due AS (
          SELECT id, period, due_at, octet_length(sealed) + CASE WHEN body_key IS NULL THEN body_size ELSE 0 END AS size
          FROM relay.messages
          WHERE flow_key = k.key AND state = 'waiting' AND due_at <= moment
          ORDER BY due_at, id LIMIT room FOR UPDATE SKIP LOCKED
        ), sized AS (
          SELECT id, period, size, sum(size) OVER (ORDER BY due_at, id ROWS UNBOUNDED PRECEDING) AS upto FROM due
        )
        UPDATE relay.messages AS w SET state = 'active', started_at = clock_timestamp(), lease_owner = claimer
        FROM sized WHERE w.id = sized.id AND w.period = sized.period
          AND (total_bytes + sized.upto <= bytes_max OR (total = 0 AND sized.upto = sized.size))
        RETURNING w.*
      LOOP
        taken := taken + 1;
        taken_bytes := taken_bytes + octet_length(m.sealed) + CASE WHEN m.body_key IS NULL THEN m.body_size ELSE 0 END;
        RETURN NEXT m;
      END LOOP;
    END IF;
    total := total + taken;
    total_bytes := total_bytes + taken_bytes;
    publishing := false;
    SELECT due_at INTO first_due FROM relay.messages WHERE flow_key = k.key AND state = 'waiting' ORDER BY due_at LIMIT 1;
    IF first_due IS NULL OR first_due > moment THEN
      PERFORM FROM relay.flow_keys WHERE key = k.key FOR UPDATE SKIP LOCKED;
      publishing := NOT FOUND;
      -- Those that committed before the lock was had are seen now; those that come later wait for it.
      SELECT due_at INTO first_due FROM relay.messages WHERE flow_key = k.key AND state = 'waiting' ORDER BY due_at LIMIT 1;
    END IF;
    changing := false;
    IF first_due <= moment AND (held + taken >= e.parallelism OR k.window_count + taken >= e.rate) THEN
      -- Nothing may look at the key before a call or a window ends. Limits that were committed before the lock was
      -- acquired are seen now. Those that come later wait for it, and their publisher then finds the key not ready.
      PERFORM FROM relay.flow_limits WHERE key = k.key FOR SHARE SKIP LOCKED;
      changing := NOT FOUND;
      SELECT * INTO e FROM relay.flow_limits_in_force WHERE key = k.key;
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
        WHEN changing THEN moment + interval '10 milliseconds'
        WHEN held + taken >= e.parallelism OR (k.cooling_until IS NOT NULL AND held + taken > 0) THEN NULL
        WHEN k.window_count + taken >= e.rate THEN k.window_started_at + make_interval(secs => e.period_seconds)
        ELSE moment
      END
    WHERE key = k.key;
  END LOOP;
END $$;

-- As before, with the cooling in force.
CREATE OR REPLACE FUNCTION relay.touch_flows(keys text[], cool timestamptz[], answered boolean[]) RETURNS void
LANGUAGE sql AS $$
  WITH news AS (
    SELECT key, max(until) AS until, bool_or(well) AS well
    FROM unnest(keys, cool, answered) AS v (key, until, well) GROUP BY key
  ), locked AS (
    SELECT f.key FROM relay.flow_keys AS f JOIN news USING (key) ORDER BY f.key FOR NO KEY UPDATE OF f
  )
  UPDATE relay.flow_keys AS f SET ready_at = clock_timestamp(), cooling_until = CASE
      WHEN news.until IS NOT NULL AND (SELECT e.cools FROM relay.flow_limits_in_force AS e WHERE e.key = f.key)
        THEN greatest(f.cooling_until, news.until)
      WHEN news.well AND f.cooling_until <= clock_timestamp() THEN NULL
      ELSE f.cooling_until END
  FROM locked JOIN news USING (key) WHERE f.key = locked.key
$$;

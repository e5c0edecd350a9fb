-- No row has a large body any more, and memory is bounded by bytes. Rows of before may still have them: they are claimed by
-- the sum of their sizes, and go into pieces when they are published again.

-- Stores `content` in pieces, as the relay does; the key. Pieces of 384 KiB: store/chunks.py.
CREATE FUNCTION relay.store_pieces(content bytea) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  piece_bytes CONSTANT integer := 393216;
  new_key text := 'body_' || replace(gen_random_uuid()::text, '-', '');
BEGIN
  INSERT INTO relay.chunks (key, part, content)
  SELECT new_key, part, substring(store_pieces.content FROM part * piece_bytes + 1 FOR piece_bytes)
  FROM generate_series(0, (octet_length(store_pieces.content) - 1) / piece_bytes) AS part;
  RETURN new_key;
END $$;

-- Schedules of before 0005. The new pieces are named by the same commit.
WITH large AS (
  SELECT id, relay.store_pieces(body) AS key, octet_length(body) AS size, sha256(body) AS sha256
  FROM relay.schedules WHERE body_key IS NULL AND octet_length(body) > 65536
  FOR UPDATE
)
UPDATE relay.schedules AS s SET body = '', body_key = large.key, body_size = large.size, body_sha256 = large.sha256
FROM large WHERE s.id = large.id;

-- The same as the function of three arguments, which processes of before call. `bytes_max`: so much the bodies in the rows
-- may have together, but for a single one that is larger. A key without a parallelism is not limited by what it holds.
CREATE FUNCTION relay.claim_keyed(claimer uuid, batch_max integer, keys_max integer, bytes_max bigint)
RETURNS SETOF relay.messages LANGUAGE plpgsql AS $$
DECLARE
  k relay.flow_keys;
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
    IF moment >= k.window_started_at + make_interval(secs => k.period_seconds) THEN
      k.window_started_at := moment;
      k.window_count := 0;
    END IF;
    SELECT count(*) INTO held FROM relay.messages WHERE flow_key = k.key AND state = 'active';
    room := least(batch_max - total,
      coalesce(k.parallelism - held, batch_max),
      coalesce(k.rate - k.window_count, batch_max),
      CASE WHEN k.cooling_until IS NULL THEN batch_max ELSE 1 - held END);
    taken := 0;
    taken_bytes := 0;
    IF room > 0 THEN
      FOR m IN
        WITH due AS (
          SELECT id, period, due_at, CASE WHEN body_key IS NULL THEN body_size ELSE 0 END AS size FROM relay.messages
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
        taken_bytes := taken_bytes + CASE WHEN m.body_key IS NULL THEN m.body_size ELSE 0 END;
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

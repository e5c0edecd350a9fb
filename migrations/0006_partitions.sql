-- depends: 0005_grants
-- Making a partition blocks no INSERT: the table is created separately and then attached, with a short lock_timeout; a
-- table that is locked is tried again in the next round. Rows of a month that fell into a default
-- partition are moved out.
SET ROLE tidings_owner;

-- The smallest UUID v7 of a moment: 48 bits of Unix milliseconds, then zeros. There is none before 1970.
CREATE OR REPLACE FUNCTION tidings.uuid_floor(moment timestamptz) RETURNS uuid
  LANGUAGE sql STABLE
  RETURN rpad(lpad(to_hex(greatest(0, extract(epoch FROM moment) * 1000)::bigint), 12, '0'), 32, '0')::uuid;

DROP FUNCTION tidings.make_partitions(integer);

CREATE FUNCTION tidings.is_partition(parent text, month date) RETURNS boolean
  LANGUAGE sql STABLE
  RETURN EXISTS (
    SELECT FROM pg_catalog.pg_inherits
    WHERE inhparent = pg_catalog.to_regclass(format('tidings.%I', parent))
      AND inhrelid = pg_catalog.to_regclass(format('tidings.%I', parent || '_' || to_char(month, 'YYYY_MM'))));

-- The partitions that are to be made: those of this month and of the months ahead, most urgent first; then those of
-- other months of which the default partitions hold rows, up to 24 of each. Ids of absurd times stay where they are.
CREATE FUNCTION tidings.missing_partitions(months_ahead integer DEFAULT 2)
  RETURNS TABLE (parent text, month date)
  LANGUAGE plpgsql STABLE SECURITY DEFINER
  SET search_path = pg_catalog, pg_temp
  AS $$
DECLARE
  this_month CONSTANT date := date_trunc('month', now() AT TIME ZONE 'UTC');
  parents CONSTANT text[] := ARRAY['submissions', 'attempts', 'results'];
  found_key uuid;
  from_key uuid;
BEGIN
  FOR i IN 0..least(months_ahead, 24) LOOP
    month := this_month + make_interval(months => i);
    FOREACH parent IN ARRAY parents LOOP
      IF NOT tidings.is_partition(parent, month) THEN
        RETURN NEXT;
      END IF;
    END LOOP;
  END LOOP;
  FOREACH parent IN ARRAY parents LOOP
    from_key := tidings.uuid_floor('2020-01-01Z');
    FOR i IN 1..24 LOOP
      -- From one month's first id to the next month's: an index look-up each.
      EXECUTE format('SELECT min_key FROM (SELECT %1$I AS min_key FROM tidings.%2$I WHERE %1$I >= $1 AND %1$I < $2'
        ' ORDER BY %1$I LIMIT 1) AS first', CASE parent WHEN 'submissions' THEN 'id' ELSE 'submission_id' END,
        parent || '_default') INTO found_key USING from_key, tidings.uuid_floor(this_month + interval '24 months');
      EXIT WHEN found_key IS NULL;
      month := date_trunc('month', to_timestamp(
        ('x' || left(replace(found_key::text, '-', ''), 12))::bit(48)::bigint / 1000.0) AT TIME ZONE 'UTC');
      from_key := tidings.uuid_floor((month + interval '1 month') AT TIME ZONE 'UTC');
      IF month < this_month OR month > this_month + make_interval(months => least(months_ahead, 24)) THEN
        RETURN NEXT;
      END IF;
    END LOOP;
  END LOOP;
END $$;

-- Rows of [lower, upper) in the default partition that `child` does not have, up to `rows_max`; `size` in bytes of
-- bodies.
CREATE FUNCTION tidings.not_copied(parent text, child text, lower uuid, upper uuid, rows_max integer)
  RETURNS TABLE (row_id tid, size bigint)
  LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp
  AS $$
BEGIN
  RETURN QUERY EXECUTE format($sql$
    SELECT d.ctid, %5$s::bigint FROM tidings.%1$I AS d
    WHERE d.%3$I >= $1 AND d.%3$I < $2
      AND NOT EXISTS (SELECT FROM tidings.%2$I AS c WHERE c.%3$I = d.%3$I %4$s)
    LIMIT $3
    $sql$, parent || '_default', child, CASE parent WHEN 'submissions' THEN 'id' ELSE 'submission_id' END,
    CASE parent WHEN 'attempts' THEN 'AND c.number = d.number' ELSE '' END,
    CASE parent WHEN 'attempts' THEN '0' ELSE 'coalesce(octet_length(d.body), 0)' END) USING lower, upper, rows_max;
END $$;

-- Copies up to 2,000 of those rows, and about 64 MiB of bodies; answers how many. A row is never updated, so a copy
-- stays true.
CREATE FUNCTION tidings.copy_from_default(parent text, child text, lower uuid, upper uuid) RETURNS integer
  LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp
  AS $$
DECLARE
  copied integer;
BEGIN
  EXECUTE format($sql$
    INSERT INTO tidings.%2$I SELECT d.* FROM tidings.%1$I AS d WHERE d.ctid = ANY (ARRAY(
      SELECT row_id FROM (
        SELECT row_id, sum(size) OVER (ORDER BY row_id) - size AS before
        FROM tidings.not_copied($1, $2, $3, $4, 2000)) AS sized
      WHERE before < 64 * 1024 * 1024))
    $sql$, parent || '_default', child) USING parent, child, lower, upper;
  GET DIAGNOSTICS copied = ROW_COUNT;
  RETURN copied;
END $$;

-- One step towards the partition of one month; to be called, in a transaction of its own, until the outcome is not
-- `copying`.
--   there    it was there
--   made     it was made, and `moved` more rows came into it from the default partition
--   copying  `moved` more rows were copied, and there are more
--   busy     somebody holds a lock on the table, or makes partitions; nothing waits, try again later
-- Rows are copied into the table before it is a partition. So every statement finds each row exactly once, and logical
-- decoding does not send them again: the table is in no publication at that time, and the publication has no DELETE. A
-- call locks one of the three tables only, so it cannot deadlock with a transaction that uses several. When there are
-- several steps, a REPEATABLE READ transaction whose snapshot is from between them may read a row twice.
CREATE FUNCTION tidings.make_partition(parent text, month date, OUT outcome text, OUT moved integer)
  LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, pg_temp
  -- For so long do readers wait behind a lock that is not granted; INSERTs into the months' partitions never do.
  SET lock_timeout = '200ms'
  AS $$
DECLARE
  child CONSTANT text := parent || '_' || to_char(month, 'YYYY_MM');
  checked CONSTANT text := child || '_month';
  key CONSTANT text := CASE parent WHEN 'submissions' THEN 'id' ELSE 'submission_id' END;
  lower CONSTANT uuid := tidings.uuid_floor(month::timestamp AT TIME ZONE 'UTC');
  upper CONSTANT uuid := tidings.uuid_floor((month + interval '1 month') AT TIME ZONE 'UTC');
  copied integer;
  many boolean;
BEGIN
  moved := 0;
  IF parent NOT IN ('submissions', 'attempts', 'results') OR extract(day FROM month) <> 1 THEN
    RAISE EXCEPTION 'no month of a partitioned table: % %', parent, month;
  END IF;
  IF NOT pg_try_advisory_xact_lock(hashtext('tidings.make_partition')) THEN
    outcome := 'busy';
    RETURN;
  END IF;
  IF tidings.is_partition(parent, month) THEN
    outcome := 'there';
    RETURN;
  END IF;
  IF to_regclass(format('tidings.%I', child)) IS NULL THEN
    -- The CHECK spares ATTACH a look at every row.
    EXECUTE format('CREATE TABLE tidings.%I (LIKE tidings.%I INCLUDING ALL,'
      ' CONSTRAINT %I CHECK (%I >= %L AND %I < %L))', child, parent, checked, key, lower, key, upper);
  END IF;
  SELECT count(*) = 100 OR sum(size) > 8 * 1024 * 1024 INTO many
  FROM tidings.not_copied(parent, child, lower, upper, 100);
  IF many THEN
    moved := tidings.copy_from_default(parent, child, lower, upper);
    outcome := 'copying';
    RETURN;
  END IF;
  BEGIN
    EXECUTE format('LOCK TABLE ONLY tidings.%I IN SHARE UPDATE EXCLUSIVE MODE', parent);
    EXECUTE format('LOCK TABLE ONLY tidings.%I IN ACCESS EXCLUSIVE MODE', parent || '_default');
    LOOP
      copied := tidings.copy_from_default(parent, child, lower, upper);
      EXIT WHEN copied = 0;
      moved := moved + copied;
    END LOOP;
    EXECUTE format('DELETE FROM tidings.%I WHERE %I >= $1 AND %I < $2', parent || '_default', key, key)
      USING lower, upper;
    EXECUTE format('ALTER TABLE tidings.%I ATTACH PARTITION tidings.%I FOR VALUES FROM (%L) TO (%L)',
      parent, child, lower, upper);
    EXECUTE format('ALTER TABLE tidings.%I DROP CONSTRAINT %I', child, checked);
    outcome := 'made';
  EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
    outcome := 'busy';
    moved := 0;
  END;
END $$;

REVOKE ALL ON FUNCTION tidings.is_partition(text, date), tidings.missing_partitions(integer),
  tidings.not_copied(text, text, uuid, uuid, integer), tidings.copy_from_default(text, text, uuid, uuid),
  tidings.make_partition(text, date) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION tidings.missing_partitions(integer), tidings.make_partition(text, date) TO tidings_api;

RESET ROLE;

-- depends: 0011_content_removal
-- When attempts begin, as the relay tells it: until an attempt's end nothing else is known of it. A row may be missing or
-- late, and is there to be shown, no more. Insert-only; in no publication.
SET ROLE tidings_owner;

CREATE TABLE tidings.attempt_starts (
  submission_id uuid        NOT NULL,
  number        integer     NOT NULL CHECK (number >= 1),  -- as in `attempts`
  started_at    timestamptz NOT NULL,
  PRIMARY KEY (submission_id, number)
) PARTITION BY RANGE (submission_id);
CREATE TABLE tidings.attempt_starts_default PARTITION OF tidings.attempt_starts DEFAULT;

-- The tables of which a month is one partition each, in the order in which an INSERT locks them. One more is to be named
-- here, and in `not_copied` if its key is not the submission alone.
CREATE FUNCTION tidings.month_tables() RETURNS text[]
  LANGUAGE sql IMMUTABLE
  RETURN ARRAY['submissions', 'attempts', 'results', 'attempt_starts'];

-- What follows is as in 0006 and 0010, but for the list of tables.

CREATE OR REPLACE FUNCTION tidings.missing_partitions(months_ahead integer DEFAULT 2)
  RETURNS TABLE (parent text, month date)
  LANGUAGE plpgsql STABLE SECURITY DEFINER
  SET search_path = pg_catalog, pg_temp
  AS $$
DECLARE
  this_month CONSTANT date := date_trunc('month', now() AT TIME ZONE 'UTC');
  parents CONSTANT text[] := tidings.month_tables();
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

CREATE OR REPLACE FUNCTION tidings.not_copied(parent text, child text, lower uuid, upper uuid, rows_max integer)
  RETURNS TABLE (row_id tid, size bigint)
  LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp
  AS $$
DECLARE
  numbered CONSTANT boolean := parent IN ('attempts', 'attempt_starts');
BEGIN
  RETURN QUERY EXECUTE format($sql$
    SELECT d.ctid, %5$s::bigint FROM tidings.%1$I AS d
    WHERE d.%3$I >= $1 AND d.%3$I < $2
      AND NOT EXISTS (SELECT FROM tidings.%2$I AS c WHERE c.%3$I = d.%3$I %4$s)
    LIMIT $3
    $sql$, parent || '_default', child, CASE parent WHEN 'submissions' THEN 'id' ELSE 'submission_id' END,
    CASE WHEN numbered THEN 'AND c.number = d.number' ELSE '' END,
    CASE WHEN numbered THEN '0' ELSE 'coalesce(octet_length(d.body), 0)' END) USING lower, upper, rows_max;
END $$;

CREATE OR REPLACE FUNCTION tidings.make_partition(parent text, month date, OUT outcome text, OUT moved integer)
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
  IF parent <> ALL (tidings.month_tables()) OR extract(day FROM month) <> 1 THEN
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

CREATE OR REPLACE FUNCTION tidings.months_before(before timestamptz)
  RETURNS TABLE (month text, submissions bigint, open bigint, bytes bigint)
  LANGUAGE plpgsql STABLE SECURITY DEFINER
  SET search_path = pg_catalog, pg_temp
  AS $$
DECLARE
  child text;
BEGIN
  FOR child IN
    SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'tidings.submissions'::regclass AND c.relname ~ '^submissions_[0-9]{4}_[0-9]{2}$'
    ORDER BY 1
  LOOP
    month := right(child, 7);
    CONTINUE WHEN (to_date(month, 'YYYY_MM') + interval '1 month') AT TIME ZONE 'UTC' > before;
    EXECUTE format('SELECT count(*), count(*) FILTER (WHERE r.submission_id IS NULL) FROM tidings.%I AS s'
      ' LEFT JOIN tidings.results AS r ON r.submission_id = s.id', child) INTO submissions, open;
    SELECT sum(pg_total_relation_size(to_regclass('tidings.' || parent || '_' || month))) INTO bytes
    FROM unnest(tidings.month_tables()) AS parent;
    RETURN NEXT;
  END LOOP;
END $$;

CREATE OR REPLACE FUNCTION tidings.drop_month(month text) RETURNS boolean
  LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, pg_temp
  SET lock_timeout = '500ms'
  AS $$
DECLARE
  parent text;
BEGIN
  IF NOT EXISTS (
    SELECT FROM tidings.months_before(now() - interval '31 days') AS m
    WHERE m.month = drop_month.month AND m.open = 0
  ) THEN
    RETURN false;
  END IF;
  FOREACH parent IN ARRAY tidings.month_tables() LOOP
    EXECUTE format('DROP TABLE IF EXISTS tidings.%I', parent || '_' || month);
  END LOOP;
  RETURN true;
END $$;

REVOKE ALL ON FUNCTION tidings.month_tables() FROM PUBLIC;

GRANT SELECT, INSERT ON tidings.attempt_starts TO tidings_api;
GRANT SELECT ON tidings.attempt_starts TO tidings_stream;

RESET ROLE;

-- depends: 0002_tables
-- A month of submissions, attempts and results is one partition of each. What has no partition yet falls into the
-- default one, so that no INSERT ever fails for want of a partition.
SET ROLE tidings_owner;

-- The smallest UUID v7 of a moment: 48 bits of Unix milliseconds, then zeros.
CREATE FUNCTION tidings.uuid_floor(moment timestamptz) RETURNS uuid
  LANGUAGE sql STABLE
  RETURN rpad(lpad(to_hex((extract(epoch FROM moment) * 1000)::bigint), 12, '0'), 32, '0')::uuid;

CREATE TABLE tidings.submissions_default PARTITION OF tidings.submissions DEFAULT;
CREATE TABLE tidings.attempts_default PARTITION OF tidings.attempts DEFAULT;
CREATE TABLE tidings.results_default PARTITION OF tidings.results DEFAULT;

-- Makes the partitions of this month and of those ahead; answers how many it made. Safe to run at any time and by two at
-- once: the advisory lock lets one work, and a month that is there is passed over.
CREATE FUNCTION tidings.make_partitions(months_ahead integer DEFAULT 2) RETURNS integer
  LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, pg_temp
  AS $$
DECLARE
  made integer := 0;
  month timestamptz;
  parent text;
  child text;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('tidings.make_partitions'));
  FOR i IN 0..least(months_ahead, 24) LOOP
    month := date_trunc('month', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' + make_interval(months => i);
    FOREACH parent IN ARRAY ARRAY['submissions', 'attempts', 'results'] LOOP
      child := parent || '_' || to_char(month AT TIME ZONE 'UTC', 'YYYY_MM');
      IF to_regclass('tidings.' || child) IS NULL THEN
        EXECUTE format('CREATE TABLE tidings.%I PARTITION OF tidings.%I FOR VALUES FROM (%L) TO (%L)',
          child, parent, tidings.uuid_floor(month), tidings.uuid_floor(month + interval '1 month'));
        made := made + 1;
      END IF;
    END LOOP;
  END LOOP;
  RETURN made;
END $$;
REVOKE ALL ON FUNCTION tidings.make_partitions(integer) FROM PUBLIC;

SELECT tidings.make_partitions();

RESET ROLE;

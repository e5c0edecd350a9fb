-- depends: 0009_reconciler
-- Dropping months. A function of the owner, so that whoever calls it can drop an old, ended month and nothing else.
SET ROLE tidings_owner;

CREATE INDEX idempotency_keys_created_at ON tidings.idempotency_keys (created_at);

-- The months whose last submission was made before `before`, oldest first; `open`: submissions without a result.
CREATE FUNCTION tidings.months_before(before timestamptz)
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
    FROM unnest(ARRAY['submissions', 'attempts', 'results']) AS parent;
    RETURN NEXT;
  END LOOP;
END $$;

-- Drops a month of all three tables; false: it has open submissions, is younger than any submission may be open, or is
-- not there. A month that is being read raises lock_not_available: a longer wait would hold up every INSERT behind it.
CREATE FUNCTION tidings.drop_month(month text) RETURNS boolean
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
  -- In the order in which an INSERT takes them.
  FOREACH parent IN ARRAY ARRAY['submissions', 'attempts', 'results'] LOOP
    EXECUTE format('DROP TABLE IF EXISTS tidings.%I', parent || '_' || month);
  END LOOP;
  RETURN true;
END $$;

-- A key outlives nobody's retries by much; deleted in batches, so that no statement is long.
CREATE FUNCTION tidings.prune_idempotency_keys(before timestamptz, batch_max integer) RETURNS bigint
  LANGUAGE sql SECURITY DEFINER
  SET search_path = pg_catalog, pg_temp
  AS $$
  WITH old AS (
    SELECT tenant, key FROM tidings.idempotency_keys WHERE created_at < least(before, now() - interval '1 day')
    ORDER BY created_at LIMIT batch_max FOR UPDATE SKIP LOCKED
  ), gone AS (
    DELETE FROM tidings.idempotency_keys AS k USING old WHERE k.tenant = old.tenant AND k.key = old.key RETURNING 1
  )
  SELECT count(*) FROM gone
$$;

REVOKE ALL ON FUNCTION tidings.months_before(timestamptz), tidings.drop_month(text),
  tidings.prune_idempotency_keys(timestamptz, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION tidings.months_before(timestamptz), tidings.drop_month(text),
  tidings.prune_idempotency_keys(timestamptz, integer) TO tidings_reconciler;

RESET ROLE;

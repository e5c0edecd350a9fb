-- depends: 0013_late_content
-- Removing contents costs what is there to be removed: a repeated request writes nothing, the last removal is carried out
-- by the reconciler itself and not told, and rows of long ago go with the retention.
SET ROLE tidings_owner;

-- As before, and a row that holds nothing any more is not written again.
CREATE OR REPLACE FUNCTION tidings.erase_content(of_id uuid) RETURNS void
  LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp
  AS $$
BEGIN
  UPDATE tidings.results SET body = NULL, body_size = NULL, body_sha256 = NULL, output = NULL, content_type = NULL,
    content_encoding = NULL, reason = CASE WHEN reason IS NOT NULL THEN 'the content was removed' END
  WHERE submission_id = of_id AND (body IS NOT NULL OR body_size IS NOT NULL OR body_sha256 IS NOT NULL
    OR output IS NOT NULL OR content_type IS NOT NULL OR content_encoding IS NOT NULL
    OR reason <> 'the content was removed');
  UPDATE tidings.submissions SET body = '', content_removed_at = coalesce(content_removed_at, clock_timestamp())
  WHERE id = of_id AND (body <> '' OR content_removed_at IS NULL);
  UPDATE tidings.attempts SET error = 'the content was removed'
  WHERE submission_id = of_id AND error <> 'the content was removed';
  DELETE FROM tidings.result_nudges WHERE submission_id = of_id;
END $$;

-- 'unknown', 'open' or 'removed'. To remove again while a removal is not settled changes nothing, takes no lock and tells
-- nobody: the reconciler removes once more. After that it is told again, as the relay may have been given the content of
-- a webhook since; a removal is settled after the reconciler's grace, so that one row is written in that time at most.
CREATE OR REPLACE FUNCTION tidings.remove_content(of_tenant text, of_id uuid) RETURNS text
  LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, pg_temp
  AS $$
DECLARE
  already boolean;
BEGIN
  SELECT content_removed_at IS NOT NULL INTO already FROM tidings.submissions WHERE id = of_id AND tenant = of_tenant;
  IF NOT FOUND THEN
    RETURN 'unknown';
  ELSIF already AND EXISTS (
    SELECT FROM tidings.content_removals WHERE submission_id = of_id AND settled_at IS NULL
  ) THEN
    RETURN 'removed';
  END IF;
  PERFORM FROM tidings.submissions WHERE id = of_id FOR UPDATE;
  IF EXISTS (SELECT FROM tidings.content_removals WHERE submission_id = of_id AND settled_at IS NULL) THEN
    RETURN 'removed';  -- by a request at the same time
  END IF;
  IF NOT EXISTS (SELECT FROM tidings.results WHERE submission_id = of_id) THEN
    RETURN 'open';
  END IF;
  PERFORM tidings.erase_content(of_id);
  PERFORM tidings.tell_removal(of_id, NULL);
  RETURN 'removed';
END $$;

-- The last removal was a row of content_removals, settled from the beginning. When the slot was lost before it was read,
-- nobody could know that the relay had not heard of it. So the reconciler removes at the relay by itself, and settles
-- after that.
DROP FUNCTION tidings.settle_removal(uuid, timestamptz);

-- What a transaction wrote which the removal did not see; the relay's ids of all attempts.
CREATE FUNCTION tidings.erase_again(of_id uuid) RETURNS text[]
  LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, pg_temp
  AS $$
BEGIN
  IF EXISTS (SELECT FROM tidings.submissions WHERE id = of_id AND content_removed_at IS NOT NULL) THEN
    PERFORM tidings.erase_content(of_id);
  END IF;
  RETURN (SELECT coalesce(array_agg(DISTINCT message_id), '{}') FROM tidings.attempts WHERE submission_id = of_id);
END $$;

-- Of each submission the removals up to a time: later ones may tell of something that came since the relay was asked.
CREATE FUNCTION tidings.settle_removals(ids uuid[], uptos timestamptz[]) RETURNS void
  LANGUAGE sql SECURITY DEFINER
  SET search_path = pg_catalog, pg_temp
  AS $$
  UPDATE tidings.content_removals AS r SET settled_at = clock_timestamp()
  FROM unnest(ids, uptos) AS v (id, upto)
  WHERE r.submission_id = v.id AND r.removed_at <= v.upto AND r.settled_at IS NULL
$$;

-- Removals of before 0013 are all unsettled. Of those older than 31 days nothing can come: a call may be open for 30 days,
-- its callback is tried for 83 hours, and a dead letter of it is kept for 7 days unless the operator chose more.
UPDATE tidings.content_removals SET settled_at = clock_timestamp()
WHERE settled_at IS NULL AND removed_at < now() - interval '31 days';

CREATE INDEX content_removals_settled ON tidings.content_removals (removed_at) WHERE settled_at IS NOT NULL;

-- Deleted in batches, so that no statement is long. What is not settled stays.
CREATE FUNCTION tidings.prune_content_removals(before timestamptz, batch_max integer) RETURNS bigint
  LANGUAGE sql SECURITY DEFINER
  SET search_path = pg_catalog, pg_temp
  AS $$
  WITH old AS (
    SELECT submission_id, removed_at FROM tidings.content_removals
    WHERE settled_at IS NOT NULL AND removed_at < least(before, now() - interval '31 days')
    ORDER BY removed_at LIMIT batch_max FOR UPDATE SKIP LOCKED
  ), gone AS (
    DELETE FROM tidings.content_removals AS r USING old
    WHERE r.submission_id = old.submission_id AND r.removed_at = old.removed_at RETURNING 1
  )
  SELECT count(*) FROM gone
$$;

REVOKE ALL ON FUNCTION tidings.erase_again(uuid), tidings.settle_removals(uuid[], timestamptz[]),
  tidings.prune_content_removals(timestamptz, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION tidings.erase_again(uuid), tidings.settle_removals(uuid[], timestamptz[]),
  tidings.prune_content_removals(timestamptz, integer) TO tidings_reconciler;

RESET ROLE;

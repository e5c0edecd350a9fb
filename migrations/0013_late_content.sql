-- depends: 0012_attempt_starts
-- What comes of a submission after its content was removed goes as well: an answer that was on its way, a callback that
-- ends among the relay's dead letters, what a transaction wrote that the removal did not see.
SET ROLE tidings_owner;

-- Null: something may still come. Removals of before this column are settled like new ones.
ALTER TABLE tidings.content_removals ADD COLUMN settled_at timestamptz;
REVOKE SELECT ON tidings.content_removals FROM tidings_cdc;
GRANT SELECT (submission_id, message_ids, removed_at) ON tidings.content_removals TO tidings_cdc;
CREATE INDEX content_removals_unsettled ON tidings.content_removals (removed_at, submission_id)
  WHERE settled_at IS NULL;

-- What a provider said of a failure may quote the input, so it goes too.
CREATE FUNCTION tidings.erase_content(of_id uuid) RETURNS void
  LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp
  AS $$
BEGIN
  UPDATE tidings.results SET body = NULL, body_size = NULL, body_sha256 = NULL, output = NULL, content_type = NULL,
    content_encoding = NULL, reason = CASE WHEN reason IS NOT NULL THEN 'the content was removed' END
  WHERE submission_id = of_id;
  UPDATE tidings.submissions SET body = '', content_removed_at = coalesce(content_removed_at, clock_timestamp())
  WHERE id = of_id;
  UPDATE tidings.attempts SET error = 'the content was removed' WHERE submission_id = of_id AND error IS NOT NULL;
  DELETE FROM tidings.result_nudges WHERE submission_id = of_id;
END $$;

-- Has the relay told. `settled`: null when something may still come.
CREATE FUNCTION tidings.tell_removal(of_id uuid, settled timestamptz) RETURNS void
  LANGUAGE sql
  SET search_path = pg_catalog, pg_temp
  AS $$
  INSERT INTO tidings.content_removals (submission_id, message_ids, settled_at)
  SELECT of_id, coalesce(array_agg(DISTINCT message_id), '{}'), settled
  FROM tidings.attempts WHERE submission_id = of_id;
$$;

-- 'unknown', 'open' or 'removed'; to remove again is harmless, and tells the relay again.
CREATE OR REPLACE FUNCTION tidings.remove_content(of_tenant text, of_id uuid) RETURNS text
  LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, pg_temp
  AS $$
BEGIN
  PERFORM FROM tidings.submissions WHERE id = of_id AND tenant = of_tenant FOR UPDATE;
  IF NOT FOUND THEN
    RETURN 'unknown';
  END IF;
  IF NOT EXISTS (SELECT FROM tidings.results WHERE submission_id = of_id) THEN
    RETURN 'open';
  END IF;
  PERFORM tidings.erase_content(of_id);
  PERFORM tidings.tell_removal(of_id, NULL);
  RETURN 'removed';
END $$;

-- A callback came, and its answer was not stored: whether it is one of a removed content, and is removed at the relay.
CREATE FUNCTION tidings.remove_late_content(of_id uuid) RETURNS boolean
  LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, pg_temp
  AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM tidings.submissions WHERE id = of_id AND content_removed_at IS NOT NULL) THEN
    RETURN false;
  END IF;
  PERFORM tidings.tell_removal(of_id, NULL);
  RETURN true;
END $$;

-- The relay has nothing under way any more: the last removal. It leaves those later than `upto` alone, as they may tell
-- of something that came since the relay was asked.
CREATE FUNCTION tidings.settle_removal(of_id uuid, upto timestamptz) RETURNS void
  LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, pg_temp
  AS $$
BEGIN
  PERFORM FROM tidings.submissions WHERE id = of_id AND content_removed_at IS NOT NULL FOR UPDATE;
  IF FOUND THEN
    PERFORM tidings.erase_content(of_id);
    PERFORM tidings.tell_removal(of_id, clock_timestamp());
  END IF;
  UPDATE tidings.content_removals SET settled_at = clock_timestamp()
  WHERE submission_id = of_id AND removed_at <= upto AND settled_at IS NULL;
END $$;

REVOKE ALL ON FUNCTION tidings.erase_content(uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION tidings.tell_removal(uuid, timestamptz) FROM PUBLIC;
REVOKE ALL ON FUNCTION tidings.remove_late_content(uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION tidings.settle_removal(uuid, timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION tidings.remove_late_content(uuid) TO tidings_api;
GRANT EXECUTE ON FUNCTION tidings.settle_removal(uuid, timestamptz) TO tidings_reconciler;
GRANT SELECT (submission_id, removed_at, settled_at) ON tidings.content_removals TO tidings_reconciler;

RESET ROLE;

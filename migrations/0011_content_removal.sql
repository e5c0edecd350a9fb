-- depends: 0010_retention
-- Erasing one submission's input and answer. The row, its outcome and its event stay.
SET ROLE tidings_owner;

ALTER TABLE tidings.submissions ADD COLUMN content_removed_at timestamptz;

-- Insert-only and published: the dispatcher has the relay remove what it kept. `message_ids`: the relay's, of all attempts.
CREATE TABLE tidings.content_removals (
  submission_id uuid        NOT NULL,
  message_ids   text[]      NOT NULL,
  removed_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (submission_id, removed_at)
);

-- 'unknown', 'open' or 'removed'; to remove again is harmless, and tells the relay again. What a provider said of a failure
-- may quote the input, so it goes too.
CREATE FUNCTION tidings.remove_content(of_tenant text, of_id uuid) RETURNS text
  LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, pg_temp
  AS $$
BEGIN
  PERFORM FROM tidings.submissions WHERE id = of_id AND tenant = of_tenant FOR UPDATE;
  IF NOT FOUND THEN
    RETURN 'unknown';
  END IF;
  UPDATE tidings.results SET body = NULL, body_size = NULL, body_sha256 = NULL, output = NULL, content_type = NULL,
    content_encoding = NULL, reason = CASE WHEN reason IS NOT NULL THEN 'the content was removed' END
  WHERE submission_id = of_id;
  IF NOT FOUND THEN
    RETURN 'open';
  END IF;
  UPDATE tidings.submissions SET body = '', content_removed_at = coalesce(content_removed_at, clock_timestamp())
  WHERE id = of_id;
  UPDATE tidings.attempts SET error = 'the content was removed' WHERE submission_id = of_id AND error IS NOT NULL;
  DELETE FROM tidings.result_nudges WHERE submission_id = of_id;
  INSERT INTO tidings.content_removals (submission_id, message_ids)
  SELECT of_id, coalesce(array_agg(DISTINCT message_id), '{}') FROM tidings.attempts WHERE submission_id = of_id;
  RETURN 'removed';
END $$;
REVOKE ALL ON FUNCTION tidings.remove_content(text, uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION tidings.remove_content(text, uuid) TO tidings_api;

GRANT SELECT ON tidings.content_removals TO tidings_cdc;

RESET ROLE;

ALTER PUBLICATION tidings_cdc ADD TABLE tidings.content_removals (submission_id, message_ids, removed_at);

-- Roles. They carry no password here: `python -m tidings migrate` sets the logins from its environment,
-- as verifiers made on the client, so that no password reaches the WAL or the server's log.
--
-- owner   owns every object; nobody logs in as it while the system runs
-- api     reads, and INSERTs; it can neither UPDATE nor DELETE what was submitted or answered
-- cdc     Debezium: replication, and SELECT on just the published columns
-- stream  reads, for live fan-out
-- relay   owns its own schema, and sees nothing of ours
DO $$
DECLARE
  role_name text;
BEGIN
  FOREACH role_name IN ARRAY ARRAY['tidings_owner', 'tidings_api', 'tidings_cdc', 'tidings_stream', 'tidings_relay']
  LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
      EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
    END IF;
  END LOOP;
END $$;

ALTER ROLE tidings_cdc REPLICATION;
CREATE SCHEMA IF NOT EXISTS tidings AUTHORIZATION tidings_owner;
CREATE SCHEMA IF NOT EXISTS relay AUTHORIZATION tidings_relay;
GRANT USAGE ON SCHEMA tidings TO tidings_api, tidings_cdc, tidings_stream;

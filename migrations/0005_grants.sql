-- depends: 0004_publication
SET ROLE tidings_owner;

GRANT SELECT, INSERT ON tidings.submissions, tidings.attempts, tidings.results, tidings.idempotency_keys TO tidings_api;
GRANT SELECT ON tidings.api_keys TO tidings_api;
GRANT EXECUTE ON FUNCTION tidings.make_partitions(integer), tidings.uuid_floor(timestamptz) TO tidings_api;

GRANT SELECT (id, tenant, target, content_type, channel, traceparent, created_at) ON tidings.submissions TO tidings_cdc;
GRANT SELECT (submission_id, number, tenant, status_code, error, retry_at, started_at, ended_at, message_id)
  ON tidings.attempts TO tidings_cdc;
GRANT SELECT (submission_id, event_id, tenant, target, channel, webhook, metadata, traceparent, outcome, reason,
  status_code, content_type, body_size, body_sha256, output, submitted_at, created_at) ON tidings.results TO tidings_cdc;
GRANT SELECT, INSERT, DELETE ON tidings.heartbeats TO tidings_cdc;

GRANT SELECT ON tidings.submissions, tidings.attempts, tidings.results TO tidings_stream;

RESET ROLE;

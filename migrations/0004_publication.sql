-- depends: 0003_partitions
-- What leaves by the WAL: inserts only, and of each table only these columns. Bodies, idempotency keys and key hashes
-- stay. Debezium's own making of publications is off; debezium/connector.json and a test agree with this list.

CREATE PUBLICATION tidings_cdc FOR TABLE
  tidings.submissions (id, tenant, target, content_type, channel, traceparent, created_at),
  tidings.attempts (submission_id, number, tenant, status_code, error, retry_at, started_at, ended_at, message_id),
  tidings.results (submission_id, event_id, tenant, target, channel, webhook, metadata, traceparent, outcome, reason,
    status_code, content_type, body_size, body_sha256, output, submitted_at, created_at),
  tidings.heartbeats (at)
  WITH (publish = 'insert', publish_via_partition_root = true);

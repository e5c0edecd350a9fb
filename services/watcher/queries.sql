-- name: slot
-- One row, even without a slot: then every column except `published` is null. A lost slot has no restart_lsn.
SELECT slots.active,
       slots.wal_status,
       pg_wal_lsn_diff(pg_current_wal_lsn(), slots.restart_lsn)::bigint AS retained_bytes,
       EXISTS (SELECT FROM pg_publication WHERE pubname = %(publication)s) AS published
  FROM (SELECT) AS one
  LEFT JOIN pg_replication_slots AS slots ON slots.slot_name = %(slot)s;

-- name: drop_lost_slot
-- Only a slot that Postgres has marked as lost: it can never be read again, and prevents Debezium from creating
-- another.
SELECT pg_drop_replication_slot(slot_name)
  FROM pg_replication_slots
 WHERE slot_name = %(slot)s AND wal_status = 'lost' AND NOT active;

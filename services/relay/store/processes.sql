-- name: renew
-- `kept`: by this clock, which a failover may have changed, the last renewal is at most half a lease ago.
WITH old AS (SELECT lease_until FROM relay.processes WHERE owner = %(owner)s)
INSERT INTO relay.processes (owner, lease_until) VALUES (%(owner)s, clock_timestamp() + make_interval(secs => %(lease_seconds)s))
ON CONFLICT (owner) DO UPDATE SET lease_until = excluded.lease_until
RETURNING clock_timestamp() AS now, coalesce((SELECT lease_until FROM old)
  >= clock_timestamp() + make_interval(secs => %(lease_seconds)s::float8 / 2), false) AS kept

-- name: cancellations
DELETE FROM relay.cancellations WHERE owner = %(owner)s RETURNING message_id

-- name: release
-- At the end of a drain: the unfinished claims are available to the other processes at once.
UPDATE relay.processes SET lease_until = '-infinity' WHERE owner = %(owner)s

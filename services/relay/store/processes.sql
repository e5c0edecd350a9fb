-- name: renew
INSERT INTO relay.processes (owner, lease_until) VALUES (%(owner)s, clock_timestamp() + make_interval(secs => %(lease_seconds)s))
ON CONFLICT (owner) DO UPDATE SET lease_until = excluded.lease_until
RETURNING clock_timestamp() AS now

-- name: cancellations
DELETE FROM relay.cancellations WHERE owner = %(owner)s RETURNING message_id

-- name: release
-- At the end of a drain: what could not be finished is given to the others at once.
UPDATE relay.processes SET lease_until = '-infinity' WHERE owner = %(owner)s

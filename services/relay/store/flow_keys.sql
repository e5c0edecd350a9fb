-- name: select
-- Counts are those of the messages. A rate window that has ended counts nothing.
SELECT f.key, e.parallelism AS parallelism_max, e.rate AS rate_max, e.period_seconds, f.paused, f.pinned_parallelism,
  f.pinned_rate, f.pinned_cooling, e.cools AS cooling, f.cooling_until,
  CASE WHEN isfinite(f.window_started_at) THEN f.window_started_at END AS period_start,
  CASE WHEN clock_timestamp() < f.window_started_at + make_interval(secs => e.period_seconds) THEN f.window_count ELSE 0 END
    AS rate_count,
  (SELECT count(*) FROM relay.messages AS m WHERE m.flow_key = f.key AND m.state = 'waiting') AS waiting,
  (SELECT count(*) FROM relay.messages AS m WHERE m.flow_key = f.key AND m.state = 'active') AS parallelism_count
FROM relay.flow_keys AS f JOIN relay.flow_limits_in_force AS e USING (key)
WHERE (%(key)s::text IS NULL OR f.key = %(key)s) AND position(%(text)s::text IN f.key) > 0
ORDER BY f.key
LIMIT %(keys_max)s

-- name: pause
INSERT INTO relay.flow_keys AS f (key, paused) VALUES (%(key)s, true)
ON CONFLICT (key) DO UPDATE SET paused = true, updated_at = clock_timestamp()

-- name: resume
INSERT INTO relay.flow_keys AS f (key) VALUES (%(key)s)
ON CONFLICT (key) DO UPDATE SET paused = false, ready_at = clock_timestamp(), updated_at = clock_timestamp()

-- name: pin
INSERT INTO relay.flow_keys AS f (key, parallelism, rate, period_seconds, pinned_parallelism, pinned_rate)
VALUES (%(key)s, %(parallelism)s, %(rate)s, coalesce(%(period_seconds)s::integer, 1), %(parallelism)s::integer IS NOT NULL,
  %(rate)s::integer IS NOT NULL)
ON CONFLICT (key) DO UPDATE SET
  parallelism = coalesce(excluded.parallelism, f.parallelism),
  rate = coalesce(excluded.rate, f.rate),
  period_seconds = coalesce(%(period_seconds)s::integer,
    (SELECT e.period_seconds FROM relay.flow_limits_in_force AS e WHERE e.key = f.key)),
  pinned_parallelism = f.pinned_parallelism OR excluded.pinned_parallelism,
  pinned_rate = f.pinned_rate OR excluded.pinned_rate,
  window_started_at = '-infinity', window_count = 0, ready_at = clock_timestamp(), updated_at = clock_timestamp()

-- name: unpin
-- Pinned limits stay in force until the next message with the key. The limits are locked first, as publishers do.
WITH kept AS (
  UPDATE relay.flow_limits AS l SET
    parallelism = CASE WHEN %(parallelism)s::boolean AND f.pinned_parallelism THEN f.parallelism ELSE l.parallelism END,
    rate = CASE WHEN %(rate)s::boolean AND f.pinned_rate THEN f.rate ELSE l.rate END,
    period_seconds = CASE WHEN %(rate)s::boolean AND f.pinned_rate THEN f.period_seconds ELSE l.period_seconds END,
    cools = CASE WHEN %(cooling)s::boolean AND f.pinned_cooling THEN f.cools ELSE l.cools END
  FROM relay.flow_keys AS f WHERE f.key = %(key)s AND l.key = f.key
  RETURNING l.key
)
INSERT INTO relay.flow_keys AS f (key) SELECT %(key)s FROM (SELECT count(*) FROM kept) AS done
ON CONFLICT (key) DO UPDATE SET
  pinned_parallelism = f.pinned_parallelism AND NOT %(parallelism)s::boolean,
  pinned_rate = f.pinned_rate AND NOT %(rate)s::boolean,
  pinned_cooling = f.pinned_cooling AND NOT %(cooling)s::boolean, updated_at = clock_timestamp()

-- name: reset_rate
INSERT INTO relay.flow_keys AS f (key) VALUES (%(key)s)
ON CONFLICT (key) DO UPDATE SET
  window_started_at = '-infinity', window_count = 0, ready_at = clock_timestamp(), updated_at = clock_timestamp()

-- name: set_cooling
-- The operator's choice, which messages do not change until the key is unpinned.
INSERT INTO relay.flow_keys AS f (key, cools, pinned_cooling) VALUES (%(key)s, %(enabled)s, true)
ON CONFLICT (key) DO UPDATE SET cools = excluded.cools, pinned_cooling = true, updated_at = clock_timestamp(),
  cooling_until = CASE WHEN excluded.cools THEN f.cooling_until END,
  ready_at = CASE WHEN excluded.cools THEN f.ready_at ELSE clock_timestamp() END

-- name: all_calls
SELECT (SELECT count(*) FROM relay.messages WHERE state = 'active') AS active,
  (SELECT count(*) FROM relay.processes WHERE lease_until > clock_timestamp()) AS processes

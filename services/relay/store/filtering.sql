-- name: common
-- The filters common to messages, events and dead letters. An unused filter is null, and its line folds away when the
-- statement is planned, so these statements are never prepared.
(%(url)s::text[] IS NULL OR url = ANY(%(url)s))
AND (%(host)s::text[] IS NULL OR lower(substring(url FROM '://([^/?#]+)')) = ANY(%(host)s)
  OR lower(substring(url FROM '://([^/?#:]+)')) = ANY(%(host)s))
AND (%(path)s::text[] IS NULL OR coalesce(substring(url FROM '://[^/?#]+(/[^?#]*)'), '/') = ANY(%(path)s))
AND (%(topic)s::text[] IS NULL OR topic = ANY(%(topic)s))
AND (%(queue)s::text[] IS NULL OR queue = ANY(%(queue)s))
AND (%(schedule)s::text[] IS NULL OR schedule_id = ANY(%(schedule)s))
AND (%(flow_key)s::text[] IS NULL OR flow_key = ANY(%(flow_key)s))
AND (%(caller_ip)s::text[] IS NULL OR caller_ip = ANY(%(caller_ip)s))

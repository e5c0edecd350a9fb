-- name: months
SELECT month, submissions, open, bytes FROM tidings.months_before(now() - make_interval(days => %(days)s))

-- name: drop
SELECT tidings.drop_month(%(month)s) AS dropped

-- name: prune_keys
SELECT tidings.prune_idempotency_keys(now() - make_interval(days => %(days)s), %(batch_max)s) AS pruned

-- name: prune_removals
SELECT tidings.prune_content_removals(now() - make_interval(days => %(days)s), %(batch_max)s) AS pruned

-- name: old_removals
SELECT count(*) AS removals FROM tidings.content_removals
WHERE settled_at IS NOT NULL AND removed_at < now() - make_interval(days => %(days)s)

-- name: old_keys
SELECT count(*) AS keys FROM tidings.idempotency_keys WHERE created_at < now() - make_interval(days => %(days)s)

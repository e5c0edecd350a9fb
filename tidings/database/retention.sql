-- name: months
SELECT month, submissions, open, bytes FROM tidings.months_before(now() - make_interval(days => %(days)s))

-- name: drop
SELECT tidings.drop_month(%(month)s) AS dropped

-- name: prune
SELECT tidings.prune_idempotency_keys(now() - make_interval(days => %(days)s), %(batch_max)s) AS pruned

-- name: old_keys
SELECT count(*) AS keys FROM tidings.idempotency_keys WHERE created_at < now() - make_interval(days => %(days)s)

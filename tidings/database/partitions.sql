-- name: missing
SELECT parent, month FROM tidings.missing_partitions()

-- name: make
SELECT outcome, moved FROM tidings.make_partition(%(parent)s, %(month)s)

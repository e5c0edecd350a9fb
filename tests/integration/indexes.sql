-- name: doubled
-- Indexes that another one of their table makes superfluous: the same method and predicate, and their columns are the
-- first ones of the other. One that is unique is needed for that. Of two alike, the younger one is doubled. Indexes of
-- partitions are looked at by way of their parents, unless one of the two has none.
WITH one AS (
  SELECT i.indexrelid, i.indrelid, c.relam, c.relispartition AS inherited, i.indisunique, i.indnkeyatts, i.indnatts,
    coalesce(pg_get_expr(i.indpred, i.indrelid), '') AS predicate,
    ARRAY(
      SELECT concat_ws(' ', pg_get_indexdef(i.indexrelid, k, true), i.indclass[k - 1], i.indcollation[k - 1],
        i.indoption[k - 1])
      FROM generate_series(1, i.indnkeyatts::integer) AS k
    ) AS columns
  FROM pg_index AS i
  JOIN pg_class AS c ON c.oid = i.indexrelid
  WHERE c.relnamespace = ANY(%(schemas)s::regnamespace[])
)
SELECT DISTINCT a.indexrelid::regclass::text AS doubled, b.indexrelid::regclass::text AS by
FROM one AS a
JOIN one AS b ON b.indrelid = a.indrelid AND b.indexrelid <> a.indexrelid AND b.relam = a.relam
  AND b.predicate = a.predicate
WHERE NOT a.indisunique AND a.indnatts = a.indnkeyatts AND b.columns[1:a.indnkeyatts] = a.columns
  AND (b.indnkeyatts > a.indnkeyatts OR b.indisunique OR b.indexrelid < a.indexrelid)
  AND NOT (a.inherited AND b.inherited)
ORDER BY 1, 2

-- title: Synapse counts between two sets of neurons, zeros included
-- parameters:
--   pre: list of uint64 — Presynaptic neurons (object ids).
--   post: list of uint64 — Postsynaptic neurons (object ids).
--   min_quality: float = 0 — Count only synapses of at least this local quality, 0-1; 0 counts all.
-- columns:
--   pre — Presynaptic neuron.
--   post — Postsynaptic neuron.
--   synapses — Counted synapses; 0 when there is no connection.
-- example: pre=4612249037100285953,4612249037100285954 post=4612249037100285953,4612249037100285954,4612249037117063170
SELECT a.pre, b.post, coalesce(c.synapses, 0) AS synapses
FROM (SELECT DISTINCT unnest($pre::UBIGINT[]) AS pre) a
CROSS JOIN (SELECT DISTINCT unnest($post::UBIGINT[]) AS post) b
LEFT JOIN (
  FROM connections_between($pre::UBIGINT[], $post::UBIGINT[]) WHERE $min_quality = 0
  UNION ALL
  SELECT pre, post, synapses FROM connections(min_quality => $min_quality) WHERE $min_quality <> 0
) c ON c.pre = a.pre AND c.post = b.post
ORDER BY a.pre, b.post

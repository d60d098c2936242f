-- title: Connections that rest on the weakest merges
-- parameters:
--   max_merge: float = 0.6 — Show connections with a merge score of at most this in either neuron, 0-1.
--   limit: int = 20 — How many.
-- columns:
--   pre — Presynaptic neuron.
--   post — Postsynaptic neuron.
--   synapses — Counted synapses.
--   weakest_merge — Lowest merge score in either neuron, 0-1.
-- example: max_merge=0.8
SELECT pre, post, synapses, weakest_merge
FROM connection
WHERE weakest_merge <= $max_merge
ORDER BY weakest_merge, synapses DESC, pre, post
LIMIT $limit

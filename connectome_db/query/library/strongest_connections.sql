-- title: The connections with the most synapses
-- parameters:
--   min_confidence: float = 0 — Lowest mean confidence of the synapses, 0-1.
--   limit: int = 20 — How many.
-- columns:
--   pre — Presynaptic neuron.
--   post — Postsynaptic neuron.
--   synapses — Counted synapses.
--   size_vx — Cleft voxels of all of them.
--   confidence — Mean confidence of the synapses, 0-1.
--   weakest_merge — Lowest merge score in either neuron, 0-1.
-- example: limit=5
SELECT pre, post, synapses, size_vx, confidence, weakest_merge
FROM connection
WHERE confidence >= $min_confidence
ORDER BY synapses DESC, size_vx DESC, pre, post
LIMIT $limit

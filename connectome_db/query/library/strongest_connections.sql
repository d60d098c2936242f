-- title: The connections with the most synapses
-- parameters:
--   min_confidence: float = 0 — Lowest mean confidence of the synapses, 0-1.
--   min_quality: float = 0 — Count only synapses of at least this local quality, 0-1; 0 counts all.
--   limit: int = 20 — How many.
-- columns:
--   pre — Presynaptic neuron.
--   post — Postsynaptic neuron.
--   synapses — Counted synapses.
--   size_vx — Cleft voxels of all of them.
--   confidence — Mean confidence of the synapses, 0-1.
--   weakest_merge — Lowest merge score in either neuron, 0-1.
-- example: limit=5
SELECT c.pre, c.post, e.synapses, e.size_vx, e.confidence, c.weakest_merge
FROM connection c JOIN (
  SELECT pre, post, synapses, size_vx, confidence FROM connection WHERE $min_quality = 0
  UNION ALL
  SELECT pre, post, synapses, size_vx, confidence FROM connections(min_quality => $min_quality) WHERE $min_quality <> 0
) e ON e.pre = c.pre AND e.post = c.post
WHERE coalesce(e.confidence >= $min_confidence, $min_confidence = 0)
ORDER BY e.synapses DESC, e.size_vx DESC, c.pre, c.post
LIMIT $limit

-- title: Partners of a neuron, strongest first
-- parameters:
--   neuron: uint64 — Neuron (object id).
--   direction: text = both — out (it is presynaptic), in (it is postsynaptic) or both.
--   min_synapses: int = 1 — Leave out weaker connections.
--   min_quality: float = 0 — Count only synapses of at least this local quality, 0-1; 0 counts all.
-- columns:
--   direction — out or in, as seen from the neuron.
--   partner — Neuron on the other side.
--   synapses — Counted synapses.
--   confidence — Mean confidence of the synapses, 0-1.
--   weakest_merge — Lowest merge score in either neuron, 0-1.
--   partner_touches_border — True when the partner is cut by the border of the volume.
-- example: neuron=4612249037100285953 direction=out
WITH counted AS (
  SELECT pre, post, synapses, confidence FROM connection WHERE $min_quality = 0
  UNION ALL
  SELECT pre, post, synapses, confidence FROM connections(min_quality => $min_quality) WHERE $min_quality <> 0
),
edge AS (
  SELECT 'out' AS direction, c.post AS partner, n.synapses, n.confidence, c.weakest_merge
  FROM connection c JOIN counted n USING (pre, post) WHERE c.pre = $neuron
  UNION ALL
  SELECT 'in', c.pre, n.synapses, n.confidence, c.weakest_merge
  FROM connection c JOIN counted n USING (pre, post) WHERE c.post = $neuron
)
SELECT e.direction, e.partner, e.synapses, e.confidence, e.weakest_merge, n.touches_border AS partner_touches_border
FROM edge e JOIN neuron n ON n.neuron = e.partner
WHERE $direction IN ('both', e.direction) AND e.synapses >= $min_synapses
ORDER BY e.synapses DESC, e.direction, e.partner

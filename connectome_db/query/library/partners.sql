-- title: Partners of a neuron, strongest first
-- parameters:
--   neuron: uint64 — Neuron (object id).
--   direction: one of out in both = both — out (it is presynaptic), in (it is postsynaptic) or both.
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
WITH edge AS (
  SELECT 'out' AS direction, post AS partner, pre, post, synapses, confidence, weakest_merge
  FROM connection WHERE pre = $neuron AND $direction <> 'in'
  UNION ALL
  SELECT 'in', pre, pre, post, synapses, confidence, weakest_merge
  FROM connection_by_post WHERE post = $neuron AND $direction <> 'out'
),
counted AS (
  SELECT direction, partner, synapses, confidence, weakest_merge FROM edge WHERE $min_quality = 0
  UNION ALL
  SELECT e.direction, e.partner, c.synapses, c.confidence, e.weakest_merge
  FROM edge e JOIN connections(min_quality => $min_quality) c USING (pre, post) WHERE $min_quality <> 0
)
SELECT c.direction, c.partner, c.synapses, c.confidence, c.weakest_merge, n.touches_border AS partner_touches_border
FROM counted c JOIN neuron n ON n.neuron = c.partner
WHERE c.synapses >= $min_synapses
ORDER BY c.synapses DESC, c.direction, c.partner

-- title: Partners of a neuron, strongest first
-- parameters:
--   neuron: uint64 — Neuron (object id).
--   direction: text = both — out (it is presynaptic), in (it is postsynaptic) or both.
--   min_synapses: int = 1 — Leave out weaker connections.
-- columns:
--   direction — out or in, as seen from the neuron.
--   partner — Neuron on the other side.
--   synapses — Counted synapses.
--   confidence — Mean confidence of the synapses, 0-1.
--   weakest_merge — Lowest merge score in either neuron, 0-1.
--   partner_touches_border — True when the partner is cut by the border of the volume.
-- example: neuron=4612249037100285953 direction=out
WITH edge AS (
  SELECT 'out' AS direction, post AS partner, * FROM connection WHERE pre = $neuron
  UNION ALL
  SELECT 'in', pre, * FROM connection WHERE post = $neuron
)
SELECT e.direction, e.partner, e.synapses, e.confidence, e.weakest_merge, n.touches_border AS partner_touches_border
FROM edge e JOIN neuron n ON n.neuron = e.partner
WHERE $direction IN ('both', e.direction) AND e.synapses >= $min_synapses
ORDER BY e.synapses DESC, e.direction, e.partner

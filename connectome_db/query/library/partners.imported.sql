-- title: Partners of a neuron, strongest first
-- parameters:
--   neuron: uint64 — Neuron (object id).
--   direction: one of out in both = both — out (it is presynaptic), in (it is postsynaptic) or both.
--   min_synapses: int = 1 — Leave out weaker connections.
--   min_quality: float = 0 — Only 0: a list has no images, so there is no quality to ask for.
-- columns:
--   direction — out or in, as seen from the neuron.
--   partner — Neuron on the other side.
--   synapses — Synapses of the list.
--   confidence — Null: connections of a list have none; `edge_synapses` gives that of its synapses.
--   weakest_merge — Null: nothing was merged here.
--   partner_touches_border — Null: a list does not say.
-- example: neuron=4612249037100285953 direction=out
WITH edge AS (
  SELECT 'out' AS direction, partner, synapses FROM outputs_of($neuron) WHERE $direction <> 'in'
  UNION ALL
  SELECT 'in', partner, synapses FROM inputs_of($neuron) WHERE $direction <> 'out'
),
counted AS (
  FROM edge WHERE $min_quality = 0
  UNION ALL
  SELECT 'out', post, synapses FROM connections(min_quality => $min_quality) WHERE $min_quality <> 0
)
SELECT direction, partner, synapses, NULL::DOUBLE AS confidence, NULL::DOUBLE AS weakest_merge,
       NULL::BOOLEAN AS partner_touches_border
FROM counted
WHERE synapses >= $min_synapses
ORDER BY synapses DESC, direction, partner

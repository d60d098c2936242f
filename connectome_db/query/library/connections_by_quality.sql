-- title: Connections counted from the synapses that lie where the data is good enough
-- works: reconstructed
-- parameters:
--   min_quality: float = 0.5 — Lowest local quality of a synapse, 0-1; 0 for no condition.
--   exclude_flagged: bool = false — Leave out synapses in regions flagged as a warning or serious.
--   min_synapses: int = 1 — Leave out connections with fewer such synapses.
--   limit: int = 20 — How many.
-- columns:
--   pre — Presynaptic neuron.
--   post — Postsynaptic neuron.
--   synapses — Counted synapses that meet the condition.
--   left_out — Counted synapses that do not.
--   confidence — Mean confidence of those that do, 0-1.
--   quality_mean — Their mean quality, 0-1.
--   quality_min — Their lowest quality, 0-1.
-- example: min_quality=0.5 min_synapses=1
SELECT pre, post, synapses, left_out, confidence, quality_mean, quality_min
FROM connections(min_quality => $min_quality, exclude_flagged => $exclude_flagged, min_synapses => $min_synapses)
ORDER BY synapses DESC, quality_mean DESC NULLS LAST, pre, post
LIMIT $limit

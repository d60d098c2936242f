-- title: Connections with the number of true synapses to be expected, and its 95 % interval
-- works: reconstructed
-- parameters:
--   min_synapses: int = 1 — Leave out connections with fewer counted synapses.
--   min_low: float = 0 — Lowest value of the interval's lower end: 1 asks for connections that are sure to exist.
--   limit: int = 20 — How many.
-- columns:
--   pre — Presynaptic neuron.
--   post — Postsynaptic neuron.
--   synapses — Counted synapses.
--   expected — Expected number of true ones among them.
--   estimate — Expected number of true synapses, those missed included.
--   low — Lower end of the 95 % interval of the estimate.
--   high — Upper end.
--   quality_mean — Mean local quality of the counted synapses, 0-1.
-- example: min_synapses=1
SELECT pre, post, synapses, expected, estimate, low, high, quality_mean
FROM weighted_connections(min_synapses => $min_synapses)
WHERE low >= $min_low
ORDER BY estimate DESC, pre, post
LIMIT $limit

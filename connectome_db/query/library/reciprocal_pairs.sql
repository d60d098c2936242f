-- title: Pairs of neurons that connect to each other
-- parameters:
--   min_synapses: int = 1 — Fewest synapses in each direction.
-- columns:
--   a — Neuron with the lower id.
--   b — Neuron with the higher id.
--   synapses_ab — Synapses from a to b.
--   synapses_ba — Synapses from b to a.
-- example: min_synapses=1
SELECT x.pre AS a, x.post AS b, x.synapses AS synapses_ab, y.synapses AS synapses_ba
FROM connection x JOIN connection y ON y.pre = x.post AND y.post = x.pre
WHERE x.pre < x.post AND x.synapses >= $min_synapses AND y.synapses >= $min_synapses
ORDER BY least(x.synapses, y.synapses) DESC, a, b

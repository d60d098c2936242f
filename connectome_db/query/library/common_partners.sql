-- title: Neurons that two neurons both connect to, or are both connected from
-- parameters:
--   a: uint64 — First neuron (object id).
--   b: uint64 — Second neuron (object id).
--   min_synapses: int = 1 — Leave out weaker connections.
-- columns:
--   direction — out: both connect to the partner; in: the partner connects to both.
--   partner — The shared neuron.
--   synapses_a — Synapses between the first neuron and the partner.
--   synapses_b — Synapses between the second neuron and the partner.
-- example: a=4612249037100285953 b=4612249037117063170
SELECT 'out' AS direction, x.post AS partner, x.synapses AS synapses_a, y.synapses AS synapses_b
FROM connection x JOIN connection y ON y.post = x.post
WHERE x.pre = $a AND y.pre = $b AND x.synapses >= $min_synapses AND y.synapses >= $min_synapses
UNION ALL
SELECT 'in', x.pre, x.synapses, y.synapses
FROM connection_by_post x JOIN connection_by_post y ON y.pre = x.pre
WHERE x.post = $a AND y.post = $b AND x.synapses >= $min_synapses AND y.synapses >= $min_synapses
ORDER BY least(synapses_a, synapses_b) DESC, direction, partner

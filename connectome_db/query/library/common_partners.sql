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
SELECT 'out' AS direction, partner, x.synapses AS synapses_a, y.synapses AS synapses_b
FROM outputs_of($a) x JOIN outputs_of($b) y USING (partner)
WHERE x.synapses >= $min_synapses AND y.synapses >= $min_synapses
UNION ALL
SELECT 'in', partner, x.synapses, y.synapses
FROM inputs_of($a) x JOIN inputs_of($b) y USING (partner)
WHERE x.synapses >= $min_synapses AND y.synapses >= $min_synapses
ORDER BY least(synapses_a, synapses_b) DESC, direction, partner

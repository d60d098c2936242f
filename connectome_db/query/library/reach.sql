-- title: Neurons that can be reached from a neuron in a few synaptic steps
-- parameters:
--   neuron: uint64 — Where to start (object id).
--   steps: int = 2 — How far, 1 to 10.
--   min_synapses: int = 1 — Follow connections of at least so many synapses.
-- columns:
--   neuron — Neuron reached.
--   steps — Fewest steps to it.
--   synapses_in — All counted synapses onto it.
-- example: neuron=4612249037100285953 steps=2
WITH RECURSIVE hop(neuron, steps) USING KEY (neuron) AS (
  SELECT $neuron::UBIGINT, 0
  UNION
  SELECT c.partner, h.steps + 1
  FROM hop h, outputs_of(h.neuron) c
  WHERE h.steps < least($steps, 10) AND c.synapses >= $min_synapses
    AND c.partner NOT IN (SELECT neuron FROM recurring.hop)
)
SELECT h.neuron, h.steps, n.synapses_in
FROM hop h JOIN neuron n USING (neuron)
WHERE h.neuron <> $neuron
ORDER BY h.steps, n.synapses_in DESC, h.neuron

-- title: One shortest path between two neurons, in synaptic steps
-- parameters:
--   pre: uint64 — Where to start (object id).
--   post: uint64 — Where to end (object id).
--   min_synapses: int = 1 — Follow connections of at least so many synapses.
--   max_steps: int = 6 — Give up after so many steps.
-- columns:
--   step — 0 at the start.
--   neuron — Neuron there. No rows: there is no such path.
--   synapses — Synapses of the connection to it; null at the start.
-- example: pre=4612249037100285953 post=4612249037117063170
WITH RECURSIVE hop(neuron, previous, synapses, steps) USING KEY (neuron) AS (
  SELECT $pre::UBIGINT, NULL::UBIGINT, NULL::BIGINT, 0
  UNION
  SELECT c.partner, arg_max(h.neuron, (c.synapses, -h.neuron::HUGEINT)), max(c.synapses), any_value(h.steps) + 1
  FROM hop h, outputs_of(h.neuron) c
  WHERE h.steps < $max_steps AND c.synapses >= $min_synapses
    AND c.partner NOT IN (SELECT neuron FROM recurring.hop)
    AND $post NOT IN (SELECT neuron FROM recurring.hop)
  GROUP BY c.partner
),
back(neuron, previous, synapses, steps) AS (
  SELECT * FROM hop WHERE neuron = $post
  UNION ALL
  SELECT h.* FROM back b JOIN hop h ON h.neuron = b.previous
)
SELECT steps AS step, neuron, synapses FROM back ORDER BY step

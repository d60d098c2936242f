-- title: Feed-forward triangles of a neuron: it connects to a target directly and by way of another
-- parameters:
--   neuron: uint64 — The neuron that both ways start from (object id).
--   min_synapses: int = 1 — Fewest synapses of each of the three connections.
--   limit: int = 50 — How many.
-- columns:
--   via — The neuron between.
--   target — The neuron that both ways end at.
--   synapses_direct — Synapses onto the target.
--   synapses_first — Synapses onto the neuron between.
--   synapses_second — Synapses from there onto the target.
-- example: neuron=4612249037100285954
WITH sent AS MATERIALIZED (
  SELECT post, synapses FROM connection WHERE pre = $neuron AND synapses >= $min_synapses AND post <> $neuron
)
SELECT v.post AS via, t.post AS target, t.synapses AS synapses_direct, v.synapses AS synapses_first,
       c.synapses AS synapses_second
FROM sent v JOIN connection c ON c.pre = v.post JOIN sent t ON t.post = c.post
WHERE c.synapses >= $min_synapses AND v.post <> t.post
ORDER BY least(t.synapses, v.synapses, c.synapses) DESC, via, target
LIMIT $limit

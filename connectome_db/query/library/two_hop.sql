-- title: Neurons two synaptic steps away, by the synapses on the way
-- parameters:
--   neuron: uint64 — Where to start (object id).
--   direction: one of out in = out — out (downstream) or in (upstream).
--   min_synapses: int = 1 — Follow connections of at least so many synapses.
--   limit: int = 10 — How many.
-- columns:
--   neuron — Neuron two steps away; the start itself is left out.
--   via — Neurons between the two.
--   strength — Sum over them of the smaller of the two connections, synapses.
--   strongest_via — The one between with the strongest such pair.
-- example: neuron=4612249037100285953
WITH step AS (
  SELECT post AS via, synapses FROM connection
  WHERE $direction = 'out' AND pre = $neuron AND synapses >= $min_synapses
  UNION ALL
  SELECT pre, synapses FROM connection_by_post
  WHERE $direction = 'in' AND post = $neuron AND synapses >= $min_synapses
),
pair AS (
  SELECT c.post AS neuron, s.via, least(s.synapses, c.synapses) AS strength
  FROM step s JOIN connection c ON c.pre = s.via WHERE $direction = 'out' AND c.synapses >= $min_synapses
  UNION ALL
  SELECT c.pre, s.via, least(s.synapses, c.synapses)
  FROM step s JOIN connection_by_post c ON c.post = s.via WHERE $direction = 'in' AND c.synapses >= $min_synapses
)
SELECT neuron, count(*) AS via, sum(strength)::BIGINT AS strength, arg_max(via, (strength, via)) AS strongest_via
FROM pair WHERE neuron <> $neuron
GROUP BY neuron
ORDER BY strength DESC, neuron
LIMIT $limit

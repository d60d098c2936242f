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
  SELECT partner AS via, synapses FROM outputs_of($neuron)
  WHERE $direction = 'out' AND synapses >= $min_synapses
  UNION ALL
  SELECT partner, synapses FROM inputs_of($neuron)
  WHERE $direction = 'in' AND synapses >= $min_synapses
),
pair AS (
  SELECT c.partner AS neuron, s.via, least(s.synapses, c.synapses) AS strength
  FROM step s, outputs_of(s.via) c WHERE $direction = 'out' AND c.synapses >= $min_synapses
  UNION ALL
  SELECT c.partner, s.via, least(s.synapses, c.synapses)
  FROM step s, inputs_of(s.via) c WHERE $direction = 'in' AND c.synapses >= $min_synapses
)
SELECT neuron, count(*) AS via, sum(strength)::BIGINT AS strength, arg_max(via, (strength, via)) AS strongest_via
FROM pair WHERE neuron <> $neuron
GROUP BY neuron
ORDER BY strength DESC, neuron
LIMIT $limit

-- title: How many neurons have how many partners
-- parameters:
--   whole_only: bool = false — Leave out neurons that the border of the volume cuts, and those of which it is unknown.
-- columns:
--   direction — out (postsynaptic partners) or in (presynaptic partners).
--   partners — Number of partners.
--   neurons — Neurons with that many.
--   synapses — Synapses that these neurons make in that direction.
-- example: whole_only=false
SELECT direction, partners, count(*) AS neurons, sum(made)::BIGINT AS synapses
FROM (
  SELECT 'out' AS direction, partners_out AS partners, synapses_out AS made, touches_border FROM neuron
  UNION ALL
  SELECT 'in', partners_in, synapses_in, touches_border FROM neuron
)
WHERE NOT ($whole_only AND coalesce(touches_border, true))
GROUP BY direction, partners
ORDER BY direction, partners

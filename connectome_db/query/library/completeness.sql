-- title: How complete the graph is: what counts, and how much hangs on fragments
-- parameters:
--   min_synapses: int = 5 — A neuron with fewer synapses in and out together is a fragment (an orphan).
-- columns:
--   measure — What is counted.
--   value — How many.
--   of — Out of how many.
--   share — value / of, 0-1.
-- example: min_synapses=2
WITH body AS (
  SELECT neuron, synapses_in, synapses_out, synapses_in + synapses_out < $min_synapses AS orphan FROM neuron
),
side AS (
  SELECT sum(synapses_out)::BIGINT AS made, sum(synapses_in)::BIGINT AS received,
         coalesce(sum(synapses_out) FILTER (NOT orphan), 0)::BIGINT AS made_whole,
         coalesce(sum(synapses_in) FILTER (NOT orphan), 0)::BIGINT AS received_whole,
         count(*) AS neurons, count(*) FILTER (orphan) AS orphans,
         count(*) FILTER (synapses_in > 0 AND synapses_out > 0) AS both_ways
  FROM body
),
whole AS (
  SELECT coalesce(sum(c.synapses), 0)::BIGINT AS synapses
  FROM connection c JOIN body a ON a.neuron = c.pre JOIN body b ON b.neuron = c.post
  WHERE NOT a.orphan AND NOT b.orphan
),
counted AS (SELECT count(*) FILTER (counted) AS counted, count(*) AS found FROM link)
SELECT measure, value, "of", value / nullif("of", 0) AS share
FROM (
  SELECT 1 AS place, 'rows of synapses that count in a connection' AS measure, counted AS value, found AS "of" FROM counted
  UNION ALL SELECT 2, 'synapses whose presynaptic side is no fragment', made_whole, made FROM side
  UNION ALL SELECT 3, 'synapses whose postsynaptic side is no fragment', received_whole, received FROM side
  UNION ALL SELECT 4, 'synapses between two neurons that are no fragments', synapses, made FROM whole, side
  UNION ALL SELECT 5, 'neurons that are fragments (orphans)', orphans, neurons FROM side
  UNION ALL SELECT 6, 'neurons with synapses both in and out', both_ways, neurons FROM side
)
ORDER BY place

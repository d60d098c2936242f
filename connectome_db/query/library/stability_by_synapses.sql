-- title: What is left of the graph as connections need more synapses
-- parameters:
--   max_threshold: int = 10 — Thresholds from 1 up to this many synapses.
-- columns:
--   min_synapses — Connections of at least so many synapses are kept.
--   connections — Connections kept.
--   connections_share — Their share of all connections, 0-1.
--   synapses — Synapses kept.
--   synapses_share — Their share of all synapses in connections, 0-1.
--   neurons — Neurons that still have a connection.
-- example: max_threshold=3
WITH strength AS (
  SELECT neuron, max(synapses) AS strongest
  FROM (SELECT pre AS neuron, synapses FROM connection UNION ALL SELECT post, synapses FROM connection) GROUP BY neuron
),
threshold AS (SELECT range AS t FROM range(1, $max_threshold + 1)),
left_over AS (SELECT t, count(*) AS neurons FROM threshold JOIN strength ON strongest >= t GROUP BY t),
kept AS (
  SELECT t, count(*) AS connections, sum(c.synapses)::BIGINT AS synapses
  FROM threshold JOIN connection c ON c.synapses >= t GROUP BY t
),
total AS (SELECT count(*) AS connections, sum(synapses) AS synapses FROM connection)
SELECT k.t AS min_synapses, k.connections, k.connections / a.connections AS connections_share, k.synapses,
       k.synapses / a.synapses AS synapses_share, l.neurons
FROM kept k JOIN left_over l USING (t) CROSS JOIN total a
ORDER BY min_synapses

-- title: How strong connections and neurons are: counts in bins that double
-- columns:
--   what — connection, neuron_out (synapses it makes) or neuron_in (synapses it receives).
--   at_least — Synapses, lower end of the bin; 0 for none at all.
--   below — Upper end, left out.
--   count — Connections or neurons in the bin.
--   synapses — Their synapses.
--   share — Share of all synapses of this kind, 0-1.
-- example:
WITH value AS (
  SELECT 'connection' AS what, synapses AS v, 1 AS n FROM connection
  UNION ALL SELECT 'neuron_out', synapses_out, 1 FROM neuron
  UNION ALL SELECT 'neuron_in', synapses_in, 1 FROM neuron
),
binned AS (
  SELECT what, CASE WHEN v < 1 THEN -1 ELSE floor(log2(v))::INTEGER END AS bin, count(*) AS count,
         sum(v)::BIGINT AS synapses
  FROM value GROUP BY ALL
)
SELECT what, CASE WHEN bin < 0 THEN 0 ELSE 1::BIGINT << bin END AS at_least,
       CASE WHEN bin < 0 THEN 1 ELSE 2::BIGINT << bin END AS below, count, synapses,
       synapses / nullif(sum(synapses) OVER (PARTITION BY what), 0) AS share
FROM binned
ORDER BY what, bin

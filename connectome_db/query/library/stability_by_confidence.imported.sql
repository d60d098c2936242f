-- title: What is left of the graph as synapses need more confidence
-- works: imported
-- parameters:
--   steps: int = 10 — Thresholds between the lowest and the highest confidence, evenly spaced.
--   min_synapses: int = 1 — A connection needs so many synapses that are kept.
-- columns:
--   min_confidence — Synapses of at least this confidence are kept.
--   synapses — Synapses kept.
--   synapses_share — Their share of all that have a confidence, 0-1.
--   connections — Connections that they make.
--   connections_share — Their share of those without a threshold, 0-1.
-- example: steps=3
WITH found AS MATERIALIZED (
  SELECT pre, post, confidence, synapses
  FROM listed_synapse WHERE confidence IS NOT NULL
),
span AS (SELECT min(confidence) AS low, max(confidence) AS high, sum(synapses) AS n FROM found),
threshold AS (SELECT low + (high - low) * range / greatest($steps, 1) AS t FROM span, range(0, greatest($steps, 1) + 1)),
edge AS (
  SELECT t, f.pre, f.post, sum(f.synapses) AS synapses FROM threshold JOIN found f ON f.confidence >= t GROUP BY ALL
  HAVING sum(f.synapses) >= $min_synapses
),
kept AS (SELECT t, sum(synapses)::BIGINT AS synapses, count(*) AS connections FROM edge GROUP BY t)
SELECT t AS min_confidence, k.synapses, k.synapses / s.n AS synapses_share, k.connections,
       k.connections / first_value(k.connections) OVER (ORDER BY t) AS connections_share
FROM kept k CROSS JOIN span s
ORDER BY min_confidence

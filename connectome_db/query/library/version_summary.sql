-- title: Two revisions side by side: neurons, connections, synapses
-- needs: a, b
-- columns:
--   measure — What is counted.
--   in_a — In revision a.
--   in_b — In revision b.
--   in_both — In both, by id.
--   jaccard — Shared over all that either has, 0-1.
-- example:
WITH edge AS (
  SELECT x.pre IS NOT NULL AS in_a, y.pre IS NOT NULL AS in_b, coalesce(x.synapses, 0) AS sa,
         coalesce(y.synapses, 0) AS sb
  FROM a.connection x FULL JOIN b.connection y ON y.pre = x.pre AND y.post = x.post
),
body AS (
  SELECT x.neuron IS NOT NULL AS in_a, y.neuron IS NOT NULL AS in_b
  FROM a.neuron x FULL JOIN b.neuron y ON y.neuron = x.neuron
),
counts AS (
  SELECT 1 AS place, 'neurons' AS measure, count(*) FILTER (in_a) AS in_a, count(*) FILTER (in_b) AS in_b,
         count(*) FILTER (in_a AND in_b) AS in_both, count(*) AS either FROM body
  UNION ALL
  SELECT 2, 'connections', count(*) FILTER (in_a), count(*) FILTER (in_b), count(*) FILTER (in_a AND in_b), count(*)
  FROM edge
  UNION ALL
  SELECT 3, 'synapses of connections', sum(sa)::BIGINT, sum(sb)::BIGINT, sum(least(sa, sb))::BIGINT,
         sum(greatest(sa, sb))::BIGINT FROM edge
)
SELECT measure, in_a, in_b, in_both, in_both / nullif(either, 0) AS jaccard FROM counts ORDER BY place

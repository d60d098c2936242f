-- title: Counts of small motifs: reciprocal pairs, feed-forward and feedback triangles, convergence, divergence
-- parameters:
--   min_synapses: int = 1 — Count connections of at least so many synapses; 5 or more in a whole brain.
-- columns:
--   motif — Name; other connections between its neurons may exist (these are not induced subgraphs).
--   pattern — Its connections.
--   count — How often it occurs, each set of neurons in each role once.
-- example: min_synapses=1
WITH edge AS MATERIALIZED (SELECT pre, post FROM connection WHERE synapses >= $min_synapses AND pre <> post),
mutual AS (SELECT e.pre, e.post FROM edge e JOIN edge r ON r.pre = e.post AND r.post = e.pre),
sent AS (SELECT pre, count(*) AS n FROM edge GROUP BY pre),
received AS (SELECT post, count(*) AS n FROM edge GROUP BY post),
triangle AS (
  SELECT count(*) FILTER (f.pre IS NOT NULL) AS forward, count(*) FILTER (b.pre IS NOT NULL) AS backward
  FROM edge x JOIN edge y ON y.pre = x.post AND y.post <> x.pre
  LEFT JOIN edge f ON f.pre = x.pre AND f.post = y.post
  LEFT JOIN edge b ON b.pre = y.post AND b.post = x.pre
)
SELECT 'connection' AS motif, 'A>B' AS pattern, count(*)::BIGINT AS count FROM edge
UNION ALL SELECT 'reciprocal pair', 'A>B B>A', count(*)::BIGINT // 2 FROM mutual
UNION ALL SELECT 'divergence', 'A>B A>C', coalesce(sum(n * (n - 1) // 2), 0)::BIGINT FROM sent
UNION ALL SELECT 'convergence', 'A>C B>C', coalesce(sum(n * (n - 1) // 2), 0)::BIGINT FROM received
UNION ALL SELECT 'chain', 'A>B B>C',
  (SELECT coalesce(sum(r.n * s.n), 0) FROM received r JOIN sent s ON s.pre = r.post)::BIGINT - count(*)::BIGINT FROM mutual
UNION ALL SELECT 'feed-forward triangle', 'A>B B>C A>C', forward::BIGINT FROM triangle
UNION ALL SELECT 'feedback triangle', 'A>B B>C C>A', backward::BIGINT // 3 FROM triangle

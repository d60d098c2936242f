-- title: All paths between two neurons up to a length, strongest first
-- parameters:
--   pre: uint64 — Where to start (object id).
--   post: uint64 — Where to end (object id).
--   max_steps: int = 3 — Longest path, 1 to 6 steps.
--   min_synapses: int = 2 — Follow connections of at least so many synapses; raise it where there are too many paths.
--   limit: int = 100 — How many.
-- columns:
--   path — Neurons of the path, " > " between; none comes twice.
--   steps — Connections of the path.
--   weakest — Fewest synapses of a connection on the path.
--   synapses — Synapses of all its connections.
-- example: pre=4612249037100285953 post=4612249037117063170 min_synapses=1
WITH RECURSIVE back(neuron, left_over) USING KEY (neuron) AS (
  SELECT $post::UBIGINT, least($max_steps, 6)
  UNION
  SELECT c.pre, b.left_over - 1
  FROM back b JOIN connection_by_post c ON c.post = b.neuron
  WHERE b.left_over > 1 AND c.synapses >= $min_synapses AND c.pre NOT IN (SELECT neuron FROM recurring.back)
),
walk(path, neuron, weakest, synapses) AS (
  SELECT [$pre::UBIGINT], $pre::UBIGINT, NULL::BIGINT, 0::BIGINT
  UNION ALL
  SELECT list_append(w.path, c.post), c.post, least(w.weakest, c.synapses), w.synapses + c.synapses
  FROM walk w JOIN connection c ON c.pre = w.neuron JOIN back b ON b.neuron = c.post
  WHERE w.neuron <> $post AND c.synapses >= $min_synapses AND b.left_over >= len(w.path)
    AND NOT list_contains(w.path, c.post)
)
SELECT array_to_string(path, ' > ') AS path, len(path) - 1 AS steps, weakest, synapses
FROM walk WHERE neuron = $post AND len(path) > 1
ORDER BY weakest DESC, steps, synapses DESC, path
LIMIT $limit

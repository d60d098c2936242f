-- title: The cheapest path between two neurons, where strong connections cost little
-- parameters:
--   pre: uint64 — Where to start (object id).
--   post: uint64 — Where to end (object id).
--   cost: one of share count = share — share: -ln(share of the input of the postsynaptic neuron); count: 1 / synapses.
--   min_synapses: int = 1 — Follow connections of at least so many synapses.
--   max_steps: int = 6 — Longest path.
-- columns:
--   step — 0 at the start.
--   neuron — Neuron there. No rows: there is no such path.
--   synapses — Synapses of the connection to it; null at the start.
--   share — Its share of all synapses onto that neuron, 0-1.
--   cost — Cost of the path up to there.
-- example: pre=4612249037100285953 post=4612249037117063170
WITH RECURSIVE hop(neuron, path, cost, steps) USING KEY (neuron) AS (
  SELECT $pre::UBIGINT, [$pre::UBIGINT], 0.0::DOUBLE, 0
  UNION
  SELECT e.post, arg_min(e.path, (e.cost, e.last)), min(e.cost), any_value(e.steps)
  FROM (
    SELECT c.post, list_append(h.path, c.post) AS path, c.pre AS last, h.steps + 1 AS steps,
           h.cost + CASE $cost WHEN 'count' THEN 1.0 / c.synapses ELSE -ln(c.synapses / n.synapses_in) END AS cost
    FROM hop h JOIN connection c ON c.pre = h.neuron JOIN neuron n ON n.neuron = c.post
    WHERE h.steps < $max_steps AND c.synapses >= $min_synapses
  ) e
  LEFT JOIN recurring.hop known ON known.neuron = e.post
  LEFT JOIN recurring.hop there ON there.neuron = $post
  WHERE e.cost < coalesce(known.cost, 'inf') AND e.cost < coalesce(there.cost, 'inf')
  GROUP BY e.post
),
along AS (
  SELECT unnest(path) AS neuron, unnest(range(len(path))) AS step FROM hop WHERE neuron = $post
),
edge AS (
  SELECT a.step, a.neuron, c.synapses, c.synapses / n.synapses_in AS share
  FROM along a LEFT JOIN along b ON b.step = a.step - 1
  LEFT JOIN connection c ON c.pre = b.neuron AND c.post = a.neuron LEFT JOIN neuron n ON n.neuron = a.neuron
)
SELECT step, neuron, synapses, share,
       sum(CASE WHEN synapses IS NULL THEN 0 WHEN $cost = 'count' THEN 1.0 / synapses ELSE -ln(share) END)
         OVER (ORDER BY step) AS cost
FROM edge ORDER BY step

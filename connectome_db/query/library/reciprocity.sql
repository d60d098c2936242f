-- title: How many connections go both ways, over all and by strength
-- parameters:
--   max_threshold: int = 10 — Thresholds from 1 up to this many synapses.
-- columns:
--   min_synapses — Connections of at least so many synapses are counted.
--   connections — Connections between two different neurons.
--   reciprocal — Those whose reverse is one of them.
--   reciprocity — Their share, 0-1.
--   by_chance — Share to be expected at this density without structure: connections / possible pairs.
-- example: max_threshold=3
WITH pair AS (
  SELECT x.synapses, y.synapses AS back
  FROM connection x LEFT JOIN connection_by_post y ON y.post = x.pre AND y.pre = x.post
  WHERE x.pre <> x.post
),
counted AS (
  SELECT t.range AS min_synapses, count(*) AS connections,
         count(*) FILTER (p.back >= t.range) AS reciprocal
  FROM range(1, $max_threshold + 1) t JOIN pair p ON p.synapses >= t.range
  GROUP BY t.range
)
SELECT min_synapses, connections, reciprocal, reciprocal / connections AS reciprocity,
       connections / (n.neurons * (n.neurons - 1.0)) AS by_chance
FROM counted CROSS JOIN (SELECT count(*) AS neurons FROM neuron) n
ORDER BY min_synapses

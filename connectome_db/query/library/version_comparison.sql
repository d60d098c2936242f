-- title: Connections that differ between two revisions
-- needs: a, b
-- parameters:
--   min_change: int = 1 — Show connections whose number of synapses changed by at least this.
--   limit: int = 100 — How many.
-- columns:
--   pre — Presynaptic neuron.
--   post — Postsynaptic neuron.
--   synapses_a — Synapses in revision a; 0 where there is no connection.
--   synapses_b — Synapses in revision b.
--   change — synapses_b less synapses_a.
--   what — gone, new, weaker or stronger. Ids are those of each revision: `connectome map-ids` follows renamed ones.
-- example: min_change=0
SELECT coalesce(x.pre, y.pre) AS pre, coalesce(x.post, y.post) AS post, coalesce(x.synapses, 0) AS synapses_a,
       coalesce(y.synapses, 0) AS synapses_b, coalesce(y.synapses, 0) - coalesce(x.synapses, 0) AS change,
       CASE WHEN y.pre IS NULL THEN 'gone' WHEN x.pre IS NULL THEN 'new' WHEN change < 0 THEN 'weaker'
            WHEN change > 0 THEN 'stronger' ELSE 'same' END AS what
FROM a.connection x FULL JOIN b.connection y ON y.pre = x.pre AND y.post = x.post
WHERE abs(coalesce(y.synapses, 0) - coalesce(x.synapses, 0)) >= $min_change
ORDER BY abs(change) DESC, pre, post
LIMIT $limit

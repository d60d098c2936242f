-- title: Counted synapses where the data is worst, with the metric that makes it so
-- works: reconstructed
-- parameters:
--   max_quality: float = 1 — Show synapses with a local quality of at most this, 0-1.
--   limit: int = 20 — How many.
-- columns:
--   synapse — Synapse id.
--   pre — Presynaptic neuron.
--   post — Postsynaptic neuron.
--   quality — Local quality, 0-1.
--   worst_metric — The metric that decides it.
--   worst_dev — Its deviation from the dataset's median, in robust spreads; negative is worse.
--   confidence — Mean cleft probability, 0-1.
--   p_true — Probability that it is true and its partners right.
--   flags — Flags whose region holds it.
-- example: max_quality=1
SELECT q.synapse, l.pre, l.post, q.quality, q.worst_metric, q.worst_dev, s.confidence, q.p_true, q.flags
FROM synapse_quality q JOIN synapse s USING (synapse) JOIN link l USING (synapse)
WHERE l.counted AND q.quality <= $max_quality
ORDER BY q.quality, q.synapse
LIMIT $limit

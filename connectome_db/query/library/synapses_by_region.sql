-- title: Synapses and neurons of each region (ROI) that the list names
-- works: imported
-- parameters:
--   min_confidence: float = 0 — Lowest confidence, as the list scores it; rows without one count at 0 only.
-- columns:
--   roi — Region; (none) where the list names none.
--   rows — Rows of the list.
--   synapses — Synapses that they stand for.
--   connections — Pairs of neurons that meet there.
--   pre_neurons — Neurons that are presynaptic there.
--   post_neurons — Neurons that are postsynaptic there.
-- example:
SELECT coalesce(roi, '(none)') AS roi, count(*) AS "rows", sum(synapses)::BIGINT AS synapses,
       count(DISTINCT (pre, post)) AS connections, count(DISTINCT pre) AS pre_neurons,
       count(DISTINCT post) AS post_neurons
FROM listed_synapse
WHERE coalesce(confidence >= $min_confidence, $min_confidence = 0)
GROUP BY ALL
ORDER BY synapses DESC, roi

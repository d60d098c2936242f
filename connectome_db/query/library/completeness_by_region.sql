-- title: How complete each region (ROI) is: share of its synapses between annotated neurons
-- works: imported
-- parameters:
--   kind: text = type — Annotation that a neuron must have to count as known.
-- columns:
--   roi — Region; (none) where the list names none.
--   synapses — Synapses there.
--   known_pre — Share whose presynaptic neuron is known, 0-1.
--   known_post — Share whose postsynaptic neuron is known, 0-1.
--   known_both — Share with both known, 0-1.
-- example: kind=type
WITH typed AS (SELECT DISTINCT neuron FROM annotation WHERE kind = $kind)
SELECT coalesce(s.roi, '(none)') AS roi, sum(s.synapses)::BIGINT AS synapses,
       coalesce(sum(s.synapses) FILTER (a.neuron IS NOT NULL), 0) / sum(s.synapses) AS known_pre,
       coalesce(sum(s.synapses) FILTER (b.neuron IS NOT NULL), 0) / sum(s.synapses) AS known_post,
       coalesce(sum(s.synapses) FILTER (a.neuron IS NOT NULL AND b.neuron IS NOT NULL), 0) / sum(s.synapses) AS known_both
FROM listed_synapse s LEFT JOIN typed a ON a.neuron = s.pre LEFT JOIN typed b ON b.neuron = s.post
GROUP BY ALL
ORDER BY synapses DESC, roi

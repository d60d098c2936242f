-- title: Synapses between groups of neurons: a connection matrix by type, class, hemisphere, ...
-- works: imported
-- parameters:
--   kind: text = type — Annotation that makes the groups; `annotation.kind` has those there are.
--   pre_kind: text = same — Another annotation for the presynaptic side; same: `kind`.
--   roi: text = all — Count only synapses in this region of the list; all: count all.
--   min_synapses: int = 1 — Leave out pairs of groups with fewer.
-- columns:
--   pre_group — Value of the presynaptic neurons; (none) where they have no such annotation.
--   post_group — Value of the postsynaptic neurons.
--   connections — Connections between neurons of the two groups.
--   synapses — Their synapses.
--   pre_neurons — Presynaptic neurons that take part.
--   post_neurons — Postsynaptic neurons that take part.
--   share_of_input — Share of all synapses onto the postsynaptic group, 0-1.
-- example: kind=type
WITH edge AS (
  SELECT pre, post, synapses FROM connection WHERE $roi = 'all'
  UNION ALL
  SELECT pre, post, sum(synapses)::BIGINT FROM listed_synapse WHERE $roi <> 'all' AND roi = $roi GROUP BY pre, post
),
pre_of AS (
  SELECT neuron, value FROM annotation WHERE kind = CASE WHEN $pre_kind = 'same' THEN $kind ELSE $pre_kind END
),
post_of AS (SELECT neuron, value FROM annotation WHERE kind = $kind),
grouped AS (
  SELECT coalesce(a.value, '(none)') AS pre_group, coalesce(b.value, '(none)') AS post_group, count(*) AS connections,
         sum(e.synapses)::BIGINT AS synapses, count(DISTINCT e.pre) AS pre_neurons, count(DISTINCT e.post) AS post_neurons
  FROM edge e LEFT JOIN pre_of a ON a.neuron = e.pre LEFT JOIN post_of b ON b.neuron = e.post
  GROUP BY ALL
)
SELECT *, synapses / sum(synapses) OVER (PARTITION BY post_group) AS share_of_input
FROM grouped QUALIFY synapses >= $min_synapses
ORDER BY synapses DESC, pre_group, post_group

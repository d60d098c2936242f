-- title: How complete each type of neurons is: share of its synapses with annotated partners
-- works: imported
-- parameters:
--   kind: text = type — Annotation that makes the groups, and that a partner must have to count as known.
-- columns:
--   group — Value of the annotation; (none) for neurons without.
--   neurons — Neurons.
--   synapses_in — Synapses onto them.
--   known_in — Share of these that come from annotated neurons, 0-1.
--   synapses_out — Synapses that they make.
--   known_out — Share of these that go to annotated neurons, 0-1.
-- example: kind=type
WITH typed AS (SELECT neuron, any_value(value) AS value FROM annotation WHERE kind = $kind GROUP BY neuron),
received AS (
  SELECT c.post AS neuron, sum(c.synapses) FILTER (t.neuron IS NOT NULL) AS known
  FROM connection c LEFT JOIN typed t ON t.neuron = c.pre GROUP BY c.post
),
made AS (
  SELECT c.pre AS neuron, sum(c.synapses) FILTER (t.neuron IS NOT NULL) AS known
  FROM connection c LEFT JOIN typed t ON t.neuron = c.post GROUP BY c.pre
)
SELECT coalesce(t.value, '(none)') AS "group", count(*) AS neurons, sum(n.synapses_in)::BIGINT AS synapses_in,
       coalesce(sum(r.known), 0) / nullif(sum(n.synapses_in), 0) AS known_in,
       sum(n.synapses_out)::BIGINT AS synapses_out,
       coalesce(sum(m.known), 0) / nullif(sum(n.synapses_out), 0) AS known_out
FROM neuron n LEFT JOIN typed t USING (neuron) LEFT JOIN received r USING (neuron) LEFT JOIN made m USING (neuron)
GROUP BY ALL
ORDER BY neurons DESC, "group"

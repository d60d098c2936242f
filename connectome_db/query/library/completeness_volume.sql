-- title: How much of the volume belongs to neurons, by the size of objects
-- works: reconstructed
-- columns:
--   at_least_vx — Objects of at least so many voxels (lower end of a bin that is ten times as wide as the last).
--   objects — Objects in the bin.
--   voxels — Their voxels.
--   share — Share of all voxels in objects, 0-1.
--   neurons — Those objects that are neurons.
--   orphans — Neurons among them without a single synapse.
--   orphan_share — Their share of these neurons, 0-1.
-- example:
SELECT (10::BIGINT ** floor(log10(greatest(o.size_vx, 1))))::BIGINT AS at_least_vx, count(*) AS objects,
       sum(o.size_vx)::BIGINT AS voxels, sum(o.size_vx) / sum(sum(o.size_vx)) OVER () AS share,
       count(n.neuron) AS neurons, count(*) FILTER (n.synapses_in + n.synapses_out = 0) AS orphans,
       count(*) FILTER (n.synapses_in + n.synapses_out = 0) / nullif(count(n.neuron), 0) AS orphan_share
FROM object o LEFT JOIN neuron n ON n.neuron = o.object
GROUP BY ALL
ORDER BY at_least_vx DESC

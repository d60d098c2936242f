-- title: The rows of the list behind one connection
-- works: imported
-- parameters:
--   pre: uint64 — Presynaptic neuron.
--   post: uint64 — Postsynaptic neuron.
-- columns:
--   synapse — Row of the list, counted from 1 without the header.
--   synapses — Synapses that the row stands for.
--   source_id — The list's own name of the synapse.
--   z_vx — Place, z in voxels of dataset.voxel_nm.
--   y_vx — y in voxels.
--   x_vx — x in voxels.
--   size — Size, in the list's own unit.
--   confidence — Confidence, as the list scores it.
--   roi — Region that the list names.
-- example: pre=4612249037100285953 post=4612249037100285954
SELECT synapse, synapses, source_id, z_vx, y_vx, x_vx, size, confidence, roi
FROM listed_synapse_by_pre
WHERE pre = $pre AND post = $post
ORDER BY synapse

-- title: The synapses of one connection, with their supervoxels and scores
-- works: reconstructed
-- parameters:
--   pre: uint64 — Presynaptic neuron (object id).
--   post: uint64 — Postsynaptic neuron (object id).
-- columns:
--   synapse — Synapse id.
--   z_vx — Centroid of the cleft, z in voxels.
--   y_vx — y in voxels.
--   x_vx — x in voxels.
--   size_vx — Cleft voxels.
--   confidence — Mean cleft probability, 0-1.
--   polarity — Evidence for pre over post, 0-1.
--   pre_supervoxel — Presynaptic supervoxel.
--   pre_boundary — Its mean boundary probability, 0-1.
--   post_supervoxel — Postsynaptic supervoxel.
--   post_boundary — Its mean boundary probability, 0-1.
--   counted — True when it counts in the connection.
--   reason — Why, or why not.
--   unit_key — Key of the result it came from.
-- example: pre=4612249037100285953 post=4612249037100285954
SELECT s.synapse, s.z_vx, s.y_vx, s.x_vx, s.size_vx, s.confidence, s.polarity, s.pre_supervoxel,
       a.boundary AS pre_boundary, s.post_supervoxel, b.boundary AS post_boundary, l.counted, l.reason, u.unit_key
FROM link_by_pre l
JOIN synapse s USING (synapse)
LEFT JOIN supervoxel a ON a.supervoxel = s.pre_supervoxel
LEFT JOIN supervoxel b ON b.supervoxel = s.post_supervoxel
LEFT JOIN unit u ON u.stage = 'synapses' AND u.unit = s.unit
WHERE l.pre = $pre AND l.post = $post
ORDER BY l.counted DESC, s.confidence DESC, s.synapse

-- title: Synapses whose cleft lies in a box
-- parameters:
--   box: box — Half-open box "z0:z1,y0:y1,x0:x1 nm" (or vx), from the corner of voxel (0, 0, 0).
--   min_confidence: float = 0 — Lowest confidence, 0-1.
-- columns:
--   synapse — Synapse id.
--   pre — Presynaptic neuron.
--   post — Postsynaptic neuron.
--   z_nm — Centroid of the cleft (its voxel's centre), z in nm.
--   y_nm — y in nm.
--   x_nm — x in nm.
--   size_vx — Cleft voxels.
--   confidence — Mean cleft probability, 0-1.
--   counted — True when it counts in a connection.
-- example: "box=0:80,0:960,0:480 nm"
WITH place AS (
  SELECT s.*, (s.z_vx + 0.5) * r.voxel_z_nm AS z_nm, (s.y_vx + 0.5) * r.voxel_y_nm AS y_nm,
         (s.x_vx + 0.5) * r.voxel_x_nm AS x_nm
  FROM synapse s CROSS JOIN (SELECT * FROM stage_record WHERE stage = 'synapses') r
)
SELECT p.synapse, l.pre, l.post, p.z_nm, p.y_nm, p.x_nm, p.size_vx, p.confidence, l.counted
FROM place p JOIN link l USING (synapse)
WHERE p.z_nm >= $box_z0_nm AND p.z_nm < $box_z1_nm
  AND p.y_nm >= $box_y0_nm AND p.y_nm < $box_y1_nm
  AND p.x_nm >= $box_x0_nm AND p.x_nm < $box_x1_nm
  AND p.confidence >= $min_confidence
ORDER BY p.synapse

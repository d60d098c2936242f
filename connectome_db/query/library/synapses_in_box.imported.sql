-- title: Rows of the list whose place lies in a box
-- works: imported
-- parameters:
--   box: box — Half-open box "z0:z1,y0:y1,x0:x1 nm" (or vx), from the corner of voxel (0, 0, 0).
--   min_confidence: float = 0 — Lowest confidence, as the list scores it; rows without one count at 0 only.
-- columns:
--   synapse — Row of the list.
--   pre — Presynaptic neuron.
--   post — Postsynaptic neuron.
--   z_nm — Centre of the voxel, z in nm.
--   y_nm — y in nm.
--   x_nm — x in nm.
--   size — Size, in the list's own unit.
--   confidence — Confidence, as the list scores it.
--   roi — Region that the list names.
-- example: "box=0:80,0:960,0:480 nm"
SELECT s.synapse, s.pre, s.post, (s.z_vx + 0.5) * r.voxel_z_nm AS z_nm, (s.y_vx + 0.5) * r.voxel_y_nm AS y_nm,
       (s.x_vx + 0.5) * r.voxel_x_nm AS x_nm, s.size, s.confidence, s.roi
FROM listed_synapse_by_place s CROSS JOIN (SELECT * FROM stage_record WHERE stage = 'listing') r
WHERE s.z_vx >= $box_z0_vx AND s.z_vx < $box_z1_vx
  AND s.y_vx >= $box_y0_vx AND s.y_vx < $box_y1_vx
  AND s.x_vx >= $box_x0_vx AND s.x_vx < $box_x1_vx
  AND coalesce(s.confidence >= $min_confidence, $min_confidence = 0)
ORDER BY s.synapse

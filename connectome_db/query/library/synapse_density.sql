-- title: Density of synapses on a grid of cells
-- parameters:
--   cell: float [nm] = 1000 — Edge length of a cell.
--   min_confidence: float = 0 — Lowest confidence; synapses without one count at 0 only.
-- columns:
--   z0_nm — Lower corner of the cell, z in nm. Cells without synapses are left out.
--   y0_nm — y in nm.
--   x0_nm — x in nm.
--   synapses — Synapses in the cell; rows of the list in an imported connectome.
--   density_um3 — Synapses per cubic micrometre.
-- example: cell=480
WITH voxel AS (
  SELECT voxel_z_nm AS z, voxel_y_nm AS y, voxel_x_nm AS x FROM stage_record WHERE stage IN ('synapses', 'listing')
)
SELECT floor((s.z_vx + 0.5) * v.z / $cell) * $cell AS z0_nm, floor((s.y_vx + 0.5) * v.y / $cell) * $cell AS y0_nm,
       floor((s.x_vx + 0.5) * v.x / $cell) * $cell AS x0_nm, count(*) AS synapses,
       count(*) / ($cell / 1000) ** 3 AS density_um3
FROM synapse s CROSS JOIN voxel v
WHERE s.z_vx IS NOT NULL AND coalesce(s.confidence >= $min_confidence, $min_confidence = 0)
GROUP BY ALL
ORDER BY synapses DESC, z0_nm, y0_nm, x0_nm

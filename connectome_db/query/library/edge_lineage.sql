-- title: Lineage of a connection as flat rows: one per synapse, side and raw tile that shows it
-- works: reconstructed
-- parameters:
--   pre: uint64 — Presynaptic neuron (object id).
--   post: uint64 — Postsynaptic neuron (object id).
-- columns:
--   synapse — Synapse id.
--   synapse_key — Key of the unit that found it.
--   side — pre or post.
--   supervoxel — Supervoxel on that side.
--   segment_key — Key of the unit that segmented it.
--   segment_model — Model that segmented it.
--   segment_commit — Git commit it was segmented with.
--   weakest_merge — Lowest merge score in that side's object, 0-1.
--   section — Section through the synapse.
--   tile — Raw tile that shows that place of the section.
--   sha256 — Digest of the tile's file.
-- example: pre=4612249037100285953 post=4612249037100285954
WITH side AS (
  SELECT l.synapse, s.unit, 'pre' AS side, s.pre_supervoxel AS supervoxel, l.pre AS object,
         s.pre_z_vx AS z, s.pre_y_vx AS y, s.pre_x_vx AS x
  FROM link_by_pre l JOIN synapse s USING (synapse) WHERE l.pre = $pre AND l.post = $post AND l.counted
  UNION ALL
  SELECT l.synapse, s.unit, 'post', s.post_supervoxel, l.post, s.post_z_vx, s.post_y_vx, s.post_x_vx
  FROM link_by_pre l JOIN synapse s USING (synapse) WHERE l.pre = $pre AND l.post = $post AND l.counted
)
SELECT d.synapse, f.unit_key AS synapse_key, d.side, d.supervoxel, g.unit_key AS segment_key,
       r.model_id AS segment_model, e.git_commit AS segment_commit, o.weakest_merge, i.section, i.tile, t.sha256
FROM side d
JOIN unit f ON f.stage = 'synapses' AND f.unit = d.unit
JOIN supervoxel v USING (supervoxel)
JOIN unit g ON g.stage = 'segment' AND g.unit = v.unit
JOIN stage_record r ON r.stage = 'segment'
LEFT JOIN execution e ON e.stage = 'segment' AND e.unit = v.unit
JOIN object o ON o.object = d.object
JOIN (SELECT DISTINCT section, tile, y0_px, x0_px, y1_px, x1_px FROM image_source) i
  ON i.section = floor(d.z) AND d.y >= i.y0_px AND d.y < i.y1_px AND d.x >= i.x0_px AND d.x < i.x1_px
JOIN tile t ON t.section = i.section AND t.tile = i.tile
ORDER BY d.synapse, d.side DESC, i.section, i.tile

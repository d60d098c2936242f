-- title: Connections that a raw tile shows: what would its loss put in doubt?
-- works: reconstructed
-- parameters:
--   tile: text — Tile name.
-- columns:
--   pre — Presynaptic neuron.
--   post — Postsynaptic neuron.
--   synapses_on_tile — Synapses of the connection whose cleft the tile shows.
--   synapses — All counted synapses of the connection.
-- example: tile=s0/t00.png
SELECT l.pre, l.post, count(DISTINCT s.synapse) AS synapses_on_tile, any_value(c.synapses) AS synapses
FROM image_source i
JOIN synapse s ON floor(s.z_vx) = i.section
  AND s.y_vx >= i.y0_px AND s.y_vx < i.y1_px AND s.x_vx >= i.x0_px AND s.x_vx < i.x1_px
JOIN link l ON l.synapse = s.synapse AND l.counted
JOIN connection c ON c.pre = l.pre AND c.post = l.post
WHERE i.tile = $tile
GROUP BY l.pre, l.post
ORDER BY synapses_on_tile DESC, l.pre, l.post

-- title: Units that depend on a raw tile, as `connectome impact tile` counts them
-- works: reconstructed
-- parameters:
--   tile: text — Tile name.
-- columns:
--   stage — Stage.
--   unit — Unit of that stage; results name it in their column `unit`.
--   direct — True: through pixels and local evidence. False: only through a solve of the whole dataset.
-- example: tile=s0/t00.png
WITH RECURSIVE solve AS MATERIALIZED (
  SELECT stage FROM stage_record WHERE kind = 'once'
),
place AS MATERIALIZED (
  SELECT section FROM tile WHERE tile = $tile UNION SELECT section FROM tile_issue WHERE tile = $tile
),
walked(stage, unit) AS (
  SELECT DISTINCT 'render', unit FROM image_source WHERE tile = $tile
  UNION
  SELECT r.stage, r.unit
  FROM walked w JOIN part p ON p.stage = w.stage AND p.unit = w.unit
  JOIN unit_read r ON r.input = p.output
    AND p.z0 < r.z1 AND r.z0 < p.z1 AND p.y0 < r.y1 AND r.y0 < p.y1 AND p.x0 < r.x1 AND r.x0 < p.x1
    AND r.z0 < r.z1 AND r.y0 < r.y1 AND r.x0 < r.x1
  WHERE r.stage NOT IN (SELECT stage FROM solve)
),
direct AS MATERIALIZED (
  SELECT stage, unit FROM walked
  UNION
  SELECT r.stage, r.unit FROM unit_read r JOIN unit u USING (stage, unit), place p
  WHERE r.input = 'raw.tiles' AND r.z0 <= p.section AND p.section < r.z1 AND u.kind IN ('sections', 'pairs')
),
later(stage) AS (
  SELECT i.stage FROM stage_input i
  WHERE i.stage IN (SELECT stage FROM solve) AND split_part(i.input, '.', 1) IN (SELECT stage FROM direct)
  UNION
  SELECT i.stage FROM later l JOIN stage_input i ON split_part(i.input, '.', 1) = l.stage
)
SELECT stage, unit, bool_or(found) AS direct
FROM (
  SELECT stage, unit, true AS found FROM direct
  UNION ALL
  SELECT stage, unit, false FROM unit WHERE stage IN (SELECT stage FROM later)
)
GROUP BY stage, unit
ORDER BY direct DESC, stage, unit

-- title: Units that depend on a unit, as `connectome impact block` counts them
-- parameters:
--   stage: text — Stage of the unit.
--   unit: uint64 — Unit code.
-- columns:
--   stage — Stage.
--   unit — Unit of that stage; results name it in their column `unit`.
--   direct — True: through pixels and local evidence. False: only through a solve of the whole dataset.
-- example: stage=segment unit=274911465472
WITH RECURSIVE solve AS MATERIALIZED (
  SELECT stage FROM stage_record WHERE kind = 'once'
),
direct(stage, unit) AS (
  SELECT stage, unit FROM unit WHERE stage = $stage AND unit = $unit
  UNION
  SELECT r.stage, r.unit
  FROM direct d JOIN part p ON p.stage = d.stage AND p.unit = d.unit
  JOIN unit_read r ON r.input = p.output
    AND p.z0 < r.z1 AND r.z0 < p.z1 AND p.y0 < r.y1 AND r.y0 < p.y1 AND p.x0 < r.x1 AND r.x0 < p.x1
    AND r.z0 < r.z1 AND r.y0 < r.y1 AND r.x0 < r.x1
  WHERE r.stage NOT IN (SELECT stage FROM solve) AND d.stage NOT IN (SELECT stage FROM solve)
),
later(stage) AS (
  SELECT i.stage FROM stage_input i, solve s
  WHERE split_part(i.input, '.', 1) IN (SELECT stage FROM direct)
    AND s.stage IN (i.stage, split_part(i.input, '.', 1))
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

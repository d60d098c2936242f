-- title: The code, model, parameters, commits and environments behind each stage
-- columns:
--   stage — Stage name.
--   units — Units of the stage.
--   code_digest — Digest of the stage's code and all it reaches.
--   model_id — Model, or null for a stage without one.
--   params — Parameters outside all regions, as JSON.
--   regions — Regions whose parameters differ, in the order in which they apply.
--   commits — Git commits of the units.
--   dirty — True when the last run had uncommitted changes.
--   environments — Environment digests of the units.
-- example:
SELECT s.stage, s.units, s.code_digest, s.model_id, s.params, coalesce(o.regions, []) AS regions,
       coalesce(e.commits, []) AS commits, r.git_dirty AS dirty, coalesce(e.environments, []) AS environments
FROM stage_record s
LEFT JOIN run r USING (stage)
LEFT JOIN (
  SELECT stage, list_sort(list(DISTINCT git_commit)) AS commits, list_sort(list(DISTINCT environment)) AS environments
  FROM execution GROUP BY stage
) e USING (stage)
LEFT JOIN (SELECT stage, list(region ORDER BY place) AS regions FROM stage_override GROUP BY stage) o USING (stage)
ORDER BY r.started, s.stage

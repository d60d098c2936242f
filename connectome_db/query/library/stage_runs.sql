-- title: What each stage computed and what it reused, with times
-- columns:
--   stage — Stage name.
--   run_id — The run that last finished it.
--   units — Units of the stage.
--   computed — Units computed by that run.
--   reused — Units taken from the store.
--   seconds_computed — Compute time spent by that run, s.
--   seconds_saved — Compute time of the reused units when they were made, s.
--   median_unit_s — Median time of a unit, s.
--   slowest_unit_s — Longest time of a unit, s.
--   commits — Git commits that the units were computed with.
--   environments — Environments that they were computed in.
-- example:
SELECT e.stage, any_value(r.run_id) AS run_id, count(*) AS units, count(*) FILTER (NOT e.reused) AS computed,
       count(*) FILTER (e.reused) AS reused,
       coalesce(sum(e.seconds) FILTER (NOT e.reused), 0) AS seconds_computed,
       coalesce(sum(e.seconds) FILTER (e.reused), 0) AS seconds_saved, median(e.seconds) AS median_unit_s,
       max(e.seconds) AS slowest_unit_s, count(DISTINCT e.git_commit) AS commits,
       count(DISTINCT e.environment) AS environments
FROM execution e LEFT JOIN run r ON r.stage = e.stage
GROUP BY e.stage
ORDER BY min(r.started), e.stage

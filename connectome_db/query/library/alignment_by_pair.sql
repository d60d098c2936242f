-- title: What alignment left over, pair by pair
-- works: reconstructed
-- parameters:
--   min_median_px: float = 0 — Show pairs whose median residual is at least this, px.
-- columns:
--   section_a — Lower section.
--   section_b — Upper section.
--   matches — Matches measured.
--   used — Matches with weight in the solve.
--   median_px — Median residual of the used ones, px.
--   p95_px — 95th percentile, px.
--   max_px — Largest, px.
--   coarse_accepted — True when the pair's coarse map was found from features.
-- example: min_median_px=0
SELECT r.section_a, r.section_b, count(*) AS matches, count(*) FILTER (r.weight > 0) AS used,
       median(r.px) FILTER (r.weight > 0) AS median_px, quantile_cont(r.px, 0.95) FILTER (r.weight > 0) AS p95_px,
       max(r.px) FILTER (r.weight > 0) AS max_px, any_value(p.accepted) AS coarse_accepted
FROM (SELECT *, sqrt(residual_y_px ** 2 + residual_x_px ** 2) AS px FROM alignment_residual) r
LEFT JOIN pair_affine p ON p.section_a = r.section_a AND p.section_b = r.section_b
GROUP BY r.section_a, r.section_b
HAVING coalesce(median_px, 0) >= $min_median_px
ORDER BY median_px DESC NULLS FIRST, r.section_a, r.section_b

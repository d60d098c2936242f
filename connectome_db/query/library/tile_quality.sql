-- title: Quality of the raw tiles, section by section
-- works: reconstructed
-- parameters:
--   first: int = 0 — First section.
--   last: int = 1000000 — Last section.
-- columns:
--   section — Section number.
--   tiles — Usable tiles.
--   problems — Tiles that could not be used, or had another problem.
--   mean — Mean grey value over the tiles.
--   sharpness — Median sharpness, 0-1.
--   least_sharp — Lowest sharpness.
--   least_sharp_tile — The tile that has it.
--   noise — Median noise, grey values.
--   saturation — Highest saturated fraction, 0-1.
--   membrane_contrast — Median membrane contrast.
-- example: first=0 last=1
SELECT t.section, count(*) AS tiles, coalesce(any_value(i.problems), 0) AS problems, avg(t.mean) AS mean,
       median(t.sharpness) AS sharpness, min(t.sharpness) AS least_sharp,
       arg_min(t.tile, (t.sharpness, t.tile)) AS least_sharp_tile, median(t.noise) AS noise,
       max(t.saturation) AS saturation, median(t.membrane_contrast) AS membrane_contrast
FROM tile t
LEFT JOIN (SELECT section, count(*) AS problems FROM tile_issue GROUP BY section) i USING (section)
WHERE t.section BETWEEN $first AND $last
GROUP BY t.section
ORDER BY t.section

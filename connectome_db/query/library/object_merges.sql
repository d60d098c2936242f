-- title: The merges that made an object, in the order they were made
-- works: reconstructed
-- parameters:
--   object: uint64 — Object id.
--   max_score: float = 1 — Show merges up to this score; lower it to see the doubtful ones.
-- columns:
--   rank — Place in the order of all merges; 0 is the first.
--   a — Group that kept its name.
--   b — Group that joined it.
--   score — Mean affinity between the two, 0-1.
--   area_nm2 — Contact area that carries the score, nm2.
-- example: object=4612249037100285954
SELECT g.rank, g.a, g.b, g.score, g.area_nm2
FROM merge g JOIN member m ON m.supervoxel = g.b
WHERE m.object = $object AND g.score <= $max_score
ORDER BY g.rank

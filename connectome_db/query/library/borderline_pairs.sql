-- title: Objects left apart whose score came near the threshold, largest stakes first
-- works: reconstructed
-- parameters:
--   min_score: float = 0 — Lowest score shown, 0-1.
--   limit: int = 50 — How many.
-- columns:
--   a — Lower object.
--   b — Higher object.
--   score — Mean affinity between the two, 0-1.
--   area_nm2 — Contact area, nm2.
--   smaller_vx — Voxels of the smaller object.
--   synapses — Synapses of both that a merge would move.
-- example: limit=10
SELECT p.a, p.b, p.score, p.area_nm2, least(x.size_vx, y.size_vx) AS smaller_vx,
       (coalesce(m.synapses_in + m.synapses_out, 0) + coalesce(n.synapses_in + n.synapses_out, 0))::BIGINT AS synapses
FROM borderline p
JOIN object x ON x.object = p.a
JOIN object y ON y.object = p.b
LEFT JOIN neuron m ON m.neuron = p.a
LEFT JOIN neuron n ON n.neuron = p.b
WHERE p.score >= $min_score
ORDER BY synapses DESC, p.score DESC, p.a, p.b
LIMIT $limit

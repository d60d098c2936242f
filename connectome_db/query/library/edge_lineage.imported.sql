-- title: Lineage of a connection as flat rows: one per row of the list, with the unit that read it
-- works: imported
-- parameters:
--   pre: uint64 — Presynaptic neuron.
--   post: uint64 — Postsynaptic neuron.
-- columns:
--   synapse — Row of the list, counted from 1 without the header.
--   synapses — Synapses that the row stands for.
--   source_id — The list's own name of the synapse.
--   listing_unit — Unit that read this block of rows.
--   listing_key — Its key.
--   listing_commit — Git commit it was read with.
--   graph_key — Key of the unit that made the connection.
--   list_digest — Digest of all that the listing was read from.
-- example: pre=4612249037100285953 post=4612249037100285954
SELECT s.synapse, s.synapses, s.source_id, s.unit AS listing_unit, u.unit_key AS listing_key,
       e.git_commit AS listing_commit, g.unit_key AS graph_key, i.digest AS list_digest
FROM listed_synapse_by_pre s
LEFT JOIN unit u ON u.stage = 'listing' AND u.unit = s.unit
LEFT JOIN execution e ON e.stage = 'listing' AND e.unit = s.unit
LEFT JOIN unit g ON g.stage = 'graph'
LEFT JOIN stage_input i ON i.stage = 'listing' AND i.input = 'raw.synapses'
WHERE s.pre = $pre AND s.post = $post
ORDER BY s.synapse

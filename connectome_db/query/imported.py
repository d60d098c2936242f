"""The lineage of an edge of an imported connectome: its rows in the list it came from, and that file's digest."""

from __future__ import annotations

from connectome_db.errors import QueryError
from connectome_db.query.database import Database
from connectome_db.query.trace import Id, Trace
from connectome_db.query.units import unit_traces
from connectome_db.query.views import read_json

_ROWS = """
SELECT unit, synapse, coalesce(pre_name, pre::VARCHAR) AS pre_name, coalesce(post_name, post::VARCHAR) AS post_name,
  synapses, source_id, count(*) OVER () AS "of"
FROM listed_synapse_by_pre WHERE pre = $pre AND post = $post ORDER BY synapse LIMIT $n
"""


def trace_imported_edge(db: Database, pre: int, post: int, *, limit: int | None = 10) -> Trace:
    """The connection `pre` -> `post`, its rows, and the file; nothing further back is known. Raises QueryError."""
    edges = db.fetch("SELECT * FROM connection WHERE pre = $pre AND post = $post", {"pre": pre, "post": post})
    if not edges:
        out = "SELECT post FROM connection WHERE pre = $pre ORDER BY synapses DESC, post LIMIT 5"
        partners = ", ".join(str(r["post"]) for r in db.fetch(out, {"pre": pre})) or "(nobody)"
        raise QueryError(f"no connection {pre} -> {post}. {pre} connects to {partners}")
    rows = db.fetch(_ROWS, {"pre": pre, "post": post, "n": limit if limit is not None else 1 << 40})
    blocks = list(dict.fromkeys(r["unit"] for r in rows))
    units = unit_traces(db, [("graph", edges[0]["unit"]), *(("listing", block) for block in blocks)])
    source = read_json(db.project / "data" / "listing" / "record.json").get("source", {})
    file = Trace(f"file {source.get('file')}", "file", {
        "sha256": source.get("sha256"), "bytes": source.get("bytes"),
        **{k: source.get(k, "unknown") for k in ("source", "licence", "citation")},
        **{k: v for k in ("sheet", "pre", "post", "weight", "where") if (v := source.get(k))},
        "before": "unknown: the list does not say what it was made from",
    })  # fmt: skip
    listed = tuple(
        Trace(
            f"row {r['synapse']}: {r['pre_name']} -> {r['post_name']}",
            "row",
            {"row": Id(r["synapse"]), **{n: r[n] for n in ("synapses", "source_id")}},
        )
        for r in rows
    )
    listing = [units["listing", block].under(file) for block in blocks]
    shown = Trace("rows of the list", "group", {"shown": len(rows), "of": rows[0]["of"] if rows else 0}, listed)
    facts = {"pre": Id(pre), "post": Id(post), "synapses": edges[0]["synapses"]}
    return Trace(f"edge {pre} -> {post}", "edge", facts, (units["graph", edges[0]["unit"]], shown, *listing))

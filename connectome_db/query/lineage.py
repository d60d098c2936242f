"""What made this? From an edge, a synapse, an object or a voxel down to raw tiles, with provenance at every step.

    edge -> synapses -> supervoxels -> overlaps and merges -> segmentation blocks -> image blocks -> sections -> tiles

Every step that a unit of work made carries the six facts of that unit (see `trace.Trace`). The number of queries does
not grow with the number of synapses, supervoxels or units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, floor
from typing import Any

from connectome_db.errors import QueryError
from connectome_db.geometry import Box
from connectome_db.query.bodies import Bodies, bodies_of, merge_step
from connectome_db.query.database import Database
from connectome_db.query.images import Images, images_at
from connectome_db.query.imported import trace_imported_edge
from connectome_db.query.inmemory.ledger import Key, ledger_of
from connectome_db.query.trace import Id, Trace, without_collection
from connectome_db.query.units import unit_traces

_SYNAPSES = "SELECT * FROM synapse WHERE synapse IN (SELECT unnest($ids::UBIGINT[]))"
_QUALITY = """
SELECT synapse, quality, worst_metric, worst_dev, nullif(flags, '') AS flags FROM synapse_quality
WHERE synapse IN (SELECT unnest($ids::UBIGINT[]))
"""
_READ_BLOCKS = """
WITH r AS MATERIALIZED (
  SELECT * FROM unit_read
  WHERE stage = 'segment' AND input = 'render.image' AND unit IN (SELECT unnest($ids::UBIGINT[]))
)
SELECT DISTINCT r.unit, p.unit AS upstream_unit FROM r JOIN part p ON p.stage = 'render' AND p.output = r.input
  AND p.z0 < r.z1 AND r.z0 < p.z1 AND p.y0 < r.y1 AND r.y0 < p.y1 AND p.x0 < r.x1 AND r.x0 < p.x1
"""


@without_collection()
def trace_edge(db: Database, pre: int, post: int, *, limit: int | None = 10) -> Trace:
    """The lineage of the connection `pre` -> `post`; its `limit` most confident synapses are unfolded (None: all)."""
    db = db.in_memory()
    if db.has("listed_synapse"):
        return trace_imported_edge(db, pre, post, limit=limit)
    rows = db.fetch("SELECT * FROM connection WHERE pre = $pre AND post = $post", {"pre": pre, "post": post})
    if not rows:
        raise _no_edge(db, pre, post)
    edge = rows[0]
    links = db.fetch(
        "SELECT l.synapse, l.counted, l.reason FROM link l JOIN synapse s USING (synapse) "
        "WHERE l.pre = $pre AND l.post = $post ORDER BY l.counted DESC, s.confidence DESC, l.synapse",
        {"pre": pre, "post": post},
    )
    shown = links if limit is None else links[:limit]
    steps, units = _synapse_steps(db, [r["synapse"] for r in shown], {("graph", edge["unit"])}, links=links)
    facts = {
        "pre": Id(pre),
        "post": Id(post),
        **{n: edge[n] for n in ("synapses", "size_vx", "confidence", "weakest_merge")},
        "synapses_unfolded": len(shown),
        "synapses_seen": len(links),
    }
    made_by = [units["graph", edge["unit"]]]
    return Trace(f"edge {pre} -> {post}", "edge", facts, (*made_by, *steps))


@without_collection()
def trace_synapse(db: Database, synapse: int) -> Trace:
    """The lineage of one synapse."""
    db = db.in_memory()
    if not db.fetch("SELECT 1 FROM synapse WHERE synapse = $id", {"id": synapse}):
        some = db.fetch("SELECT synapse FROM synapse ORDER BY confidence DESC, synapse LIMIT 5")
        raise QueryError(f"no synapse {synapse}; {_such_as('the most confident are', some, 'synapse')}")
    link = "SELECT synapse, pre, post, counted, reason FROM link WHERE synapse = $id"
    links = db.fetch(link, {"id": synapse}) if db.has("link") else []
    steps, _ = _synapse_steps(db, [synapse], set(), links=links)
    return steps[0]


def trace_object(db: Database, obj: int, *, limit: int | None = 20) -> Trace:
    """The lineage of an object: its supervoxels, merges, blocks and tiles, `limit` of each (None: all).

    Supervoxels are listed by size, merges weakest first, blocks by voxels of the object, tiles by name.
    """
    rows = db.fetch("SELECT * FROM object WHERE object = $id", {"id": obj})
    if not rows:
        raise _no_object(db, obj)
    r = rows[0]
    params = {"id": obj, "n": limit if limit is not None else 1 << 40}
    supervoxels = db.fetch(_OBJECT_SUPERVOXELS, params)
    merges = db.fetch(_OBJECT_MERGES, params)
    blocks = db.fetch(_OBJECT_BLOCKS, params)
    tiles = db.fetch(_OBJECT_TILES, params)
    once = [(x["stage"], x["unit"]) for x in db.fetch(_ONCE_UNITS)]
    units = unit_traces(db, [*once, *((stage, b["unit"]) for b in blocks for stage in ("segment", "flood"))])
    facts = {
        "object": Id(obj),
        **{n: r[n] for n in ("supervoxels", "fragments", "size_vx", "volume_nm3", "weakest_merge", "touches_border")},
        "box_vx": [r[f"{axis}{end}_vx"] for end in (0, 1) for axis in "zyx"],
    }
    groups = (
        _group("supervoxels", "by size", supervoxels, [
            Trace(f"supervoxel {s['supervoxel']}", "supervoxel", {
                "supervoxel": Id(s["supervoxel"]), "size_vx": s["size_vx"], "boundary": s["boundary"],
                "fragment": Id(s["fragment"]),
            }) for s in supervoxels
        ]),
        _group("merges", "weakest first", merges, [merge_step(m) for m in merges]),
        _group("segmentation blocks", "by voxels of the object", blocks,
               [units[k].under(*(units[f] for f in [("flood", b["unit"])] if f in units))
                for b in blocks if (k := ("segment", b["unit"])) in units]),
        _group("raw tiles", "that show it", tiles, [
            Trace(f"tile {t['tile']}", "tile", {
                "path": t["tile"], "sha256": t["sha256"], "section": t["section"], "sharpness": t["sharpness"],
                "noise": t["noise"],
            }) for t in tiles
        ]),
    )  # fmt: skip
    made_by = [units[k] for k in once if k in units]
    return Trace(f"object {obj}", "object", facts, (*made_by, *groups))


def trace_voxel(db: Database, z: int, y: int, x: int, *, supervoxel: int | None = None) -> Trace:
    """The lineage of one voxel of the aligned volume: the image there and, where it is known, what it belongs to.

    `supervoxel` is the value of the supervoxel volume there. This layer does not read volumes: without it, the
    supervoxels whose bounding box holds the voxel are listed as candidates.
    """
    place = Box((z, y, x), (z + 1, y + 1, x + 1))
    images = images_at(db, [place])
    if not images.blocks[0]:
        row = db.fetch(_RENDERED)[0]
        box = ", ".join(f"{a} {row[a + '0']}:{row[a + '1']}" for a in "zyx") if row["z0"] is not None else "(nothing)"
        raise QueryError(f"voxel ({z}, {y}, {x}) is outside the image, which covers {box} (in voxels)")
    params = {"z": z, "y": y, "x": x}
    inside = db.fetch(_SEGMENT_AT, params)
    candidates = [r["supervoxel"] for r in db.fetch(_CANDIDATES, params)] if db.has("supervoxel") else []
    bodies = bodies_of(db, [supervoxel] if supervoxel else []) if db.has("supervoxel") else Bodies({})
    if supervoxel and supervoxel not in bodies.rows:
        raise QueryError(f"no supervoxel {supervoxel}; {_such_as('boxes around the voxel:', candidates[:5], None)}")
    segments = {("segment", r["unit"]) for r in inside}
    units = unit_traces(db, images.units() | segments | bodies.units())
    facts = {
        "z_vx": z, "y_vx": y, "x_vx": x,
        "nm": [v * s for v, s in zip((z, y, x), db.voxel_nm, strict=True)],
        "supervoxel": None if supervoxel is None else Id(supervoxel),
        "candidates": [Id(c) for c in candidates],
    }  # fmt: skip
    chain = [s for key in sorted(segments) if (s := _segment(key, 0, images, units, None)) is not None]
    if supervoxel:
        chain = [bodies.step(supervoxel, "supervoxel", units, chain[0] if chain else None)]
    return Trace(f"voxel z {z}, y {y}, x {x}", "voxel", facts, tuple(chain) or images.steps(0, units))


def _synapse_steps(
    db: Database, synapses: Sequence[int], extra: set[Key], *, links: Sequence[Mapping[str, Any]]
) -> tuple[list[Trace], dict[Key, Trace]]:
    """A step per synapse, in the order given, and the steps of all units on the way (and of `extra`)."""
    rows = {r["synapse"]: r for r in db.fetch(_SYNAPSES, {"ids": list(synapses)})}
    quality = {r.pop("synapse"): r for r in db.fetch(_QUALITY, {"ids": list(synapses)})}
    ordered = [rows[s] for s in synapses]
    places = [_place(r) for r in ordered]
    images = images_at(db, places)
    bodies = bodies_of(db, [r[f"{side}_supervoxel"] for r in ordered for side in ("pre", "post")])
    made = {("synapses", r["unit"]) for r in ordered}
    units = unit_traces(db, extra | made | images.units() | bodies.units())
    read: dict[int, set[int]] = {}
    segmented = sorted({b["unit"] for b in bodies.rows.values()})
    ledger = ledger_of(db)
    for r in ledger.image_read_by(segmented) if ledger else db.fetch(_READ_BLOCKS, {"ids": segmented}):
        read.setdefault(r["unit"], set()).add(r["upstream_unit"])
    by_synapse = {link["synapse"]: link for link in links}
    steps = []
    for i, r in enumerate(ordered):
        segments: dict[Key, Trace] = {}
        sides = []
        for side, title in (("pre", "presynaptic supervoxel"), ("post", "postsynaptic supervoxel")):
            body = bodies.rows.get(r[f"{side}_supervoxel"])
            segment = None
            if body is not None:
                key = ("segment", body["unit"])
                if key not in segments and (step := _segment(key, i, images, units, read.get(key[1]))) is not None:
                    segments[key] = step
                segment = segments.get(key)
            sides.append(bodies.step(r[f"{side}_supervoxel"], title, units, segment))
        link = by_synapse.get(r["synapse"], {})
        facts = {
            "synapse": Id(r["synapse"]),
            **{n: r[n] for n in ("z_vx", "y_vx", "x_vx", "size_vx", "confidence", "polarity")},
            "counted": link.get("counted"),
            "reason": link.get("reason"),
            **quality.get(r["synapse"], {}),
        }
        made_by = [units[k] for k in [("synapses", r["unit"])] if k in units]
        steps.append(Trace(f"synapse {r['synapse']}", "synapse", facts, (*made_by, *sides)))
    return steps, units


def _place(r: Mapping[str, Any]) -> Box:
    """The box around a synapse's cleft and its two sides."""
    lo = tuple(floor(min(r[f"{p}{axis}_vx"] for p in ("", "pre_", "post_"))) for axis in "zyx")
    hi = tuple(ceil(max(r[f"{p}{axis}_vx"] for p in ("", "pre_", "post_"))) + 1 for axis in "zyx")
    return Box((lo[0], lo[1], lo[2]), (hi[0], hi[1], hi[2]))


def _segment(key: Key, place: int, images: Images, units: Mapping[Key, Trace], read: set[int] | None) -> Trace | None:
    """A segmentation block with the image blocks it read that hold the place."""
    if key not in units:
        return None
    steps = images.steps(place, units)
    return units[key].under(*(s for s in steps if read is None or int(s.facts["unit"]) in read))


def _group(what: str, order: str, rows: Sequence[Mapping[str, Any]], steps: Sequence[Trace]) -> Trace:
    """Steps of one sort; the queries count all of them in the column `of`."""
    return Trace(f"{what}, {order}", "group", {"shown": len(steps), "of": rows[0]["of"] if rows else 0}, tuple(steps))


_OBJECT_SUPERVOXELS = """
SELECT s.*, m.fragment, count(*) OVER () AS "of" FROM member m JOIN supervoxel s USING (supervoxel) WHERE m.object = $id
ORDER BY s.size_vx DESC, s.supervoxel LIMIT $n
"""
_OBJECT_MERGES = """
SELECT g.*, count(*) OVER () AS "of" FROM merge g JOIN member m ON m.supervoxel = g.b WHERE m.object = $id
ORDER BY g.score, g.rank LIMIT $n
"""
_OBJECT_BLOCKS = """
SELECT s.unit, sum(s.size_vx) AS voxels, count(*) OVER () AS "of"
FROM member m JOIN supervoxel s USING (supervoxel) WHERE m.object = $id
GROUP BY s.unit ORDER BY voxels DESC, s.unit LIMIT $n
"""
_OBJECT_TILES = """
WITH seen AS (
  SELECT DISTINCT i.section, i.tile FROM member m JOIN supervoxel s USING (supervoxel) JOIN image_source i
    ON i.section >= s.z0_vx AND i.section < s.z1_vx AND i.y0_px < s.y1_vx AND s.y0_vx < i.y1_px
   AND i.x0_px < s.x1_vx AND s.x0_vx < i.x1_px
  WHERE m.object = $id
)
SELECT t.*, count(*) OVER () AS "of" FROM seen JOIN tile t USING (section, tile) ORDER BY section, tile LIMIT $n
"""
_ONCE_UNITS = """
SELECT stage, min(unit) AS unit FROM unit WHERE stage IN ('agglomerate', 'reconcile', 'align')
GROUP BY stage ORDER BY stage
"""
_RENDERED = (
    "SELECT "
    + ", ".join(f"{f}(core_{axis}{end}) AS {axis}{end}" for end, f in ((0, "min"), (1, "max")) for axis in "zyx")
    + " FROM unit WHERE stage = 'render'"
)
_INSIDE = " AND ".join(f"core_{axis}0 <= ${axis} AND ${axis} < core_{axis}1" for axis in "zyx")
_SEGMENT_AT = f"SELECT unit FROM unit WHERE stage = 'segment' AND {_INSIDE}"
_CANDIDATES = (
    "SELECT supervoxel FROM supervoxel WHERE "
    + " AND ".join(f"{axis}0_vx <= ${axis} AND ${axis} < {axis}1_vx" for axis in "zyx")
    + " ORDER BY size_vx, supervoxel"
)


def _such_as(words: str, rows: Sequence[Any], column: str | None) -> str:
    values = [str(r[column] if column else r) for r in rows]
    return f"{words} {', '.join(values)}" if values else "there are none"


def _no_edge(db: Database, pre: int, post: int) -> QueryError:
    known = {
        r["neuron"]
        for r in db.fetch("SELECT neuron FROM neuron WHERE neuron IN ($pre, $post)", {"pre": pre, "post": post})
    }
    for neuron in (pre, post):
        if neuron not in known:
            some = db.fetch("SELECT neuron FROM neuron ORDER BY synapses_out + synapses_in DESC, neuron LIMIT 5")
            return QueryError(f"no neuron {neuron}; {_such_as('the most connected are', some, 'neuron')}")
    out = db.fetch(
        "SELECT post, synapses FROM connection WHERE pre = $pre ORDER BY synapses DESC, post LIMIT 5", {"pre": pre}
    )
    partners = ", ".join(f"{r['post']} ({r['synapses']} synapses)" for r in out) or "(nobody)"
    back = db.fetch("SELECT synapses FROM connection WHERE pre = $b AND post = $a", {"a": pre, "b": post})
    reverse = f"; the other way round there is one, of {back[0]['synapses']} synapses" if back else ""
    return QueryError(f"no connection {pre} -> {post}{reverse}. {pre} connects to {partners}")


def _no_object(db: Database, obj: int) -> QueryError:
    inside = db.fetch("SELECT object FROM member WHERE supervoxel = $id", {"id": obj})
    if inside:
        return QueryError(f"{obj} is a supervoxel, not an object: it belongs to object {inside[0]['object']}")
    some = db.fetch("SELECT object FROM object ORDER BY size_vx DESC, object LIMIT 5")
    return QueryError(f"no object {obj}; {_such_as('the largest are', some, 'object')}")

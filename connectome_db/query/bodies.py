"""From supervoxels to objects: the overlaps and merges that joined them, as steps of a lineage."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import networkx as nx

from connectome_db.query.database import Database
from connectome_db.query.inmemory.ledger import Key, ledger_of
from connectome_db.query.trace import Id, Trace

_SUPERVOXELS = """
SELECT s.*, m.fragment, m.object, o.weakest_merge, o.supervoxels AS object_supervoxels
FROM supervoxel s LEFT JOIN member m ON m.supervoxel = s.supervoxel LEFT JOIN object o ON o.object = m.object
WHERE s.supervoxel IN (SELECT unnest($ids::UBIGINT[]))
"""

_OVERLAPS = """
SELECT f.fragment, o.a, o.b, o.score, o.iou, o.overlap_vx, o.reason, o.unit
FROM overlap o JOIN fragment f ON f.supervoxel = o.a
WHERE o.accepted AND f.fragment IN (SELECT unnest($ids::UBIGINT[]))
ORDER BY o.a, o.b
"""

_MERGE_PATHS = """
WITH RECURSIVE path AS (
  SELECT m.b AS start, m.a, m.b, m.score, m.area_nm2, m.rank FROM merge m WHERE m.b IN (SELECT unnest($ids::UBIGINT[]))
  UNION ALL
  SELECT p.start, m.a, m.b, m.score, m.area_nm2, m.rank FROM path p JOIN merge m ON m.b = p.a AND m.rank > p.rank
)
SELECT * FROM path ORDER BY start, rank
"""
"""A group keeps the lower name, so the name of a fragment's group changes exactly at the merges on this path."""

_FLOODED = """
SELECT l.supervoxel, l.voxels AS shared_vx, b.*, o.moves, o.voxels, o.reason, o.overlap_vx
FROM supervoxel_body l JOIN flood_body b ON b.body = l.body LEFT JOIN flood_object o
    ON o.unit = b.unit AND o.seed_z_vx = b.seed_z_vx AND o.seed_y_vx = b.seed_y_vx AND o.seed_x_vx = b.seed_x_vx
WHERE l.supervoxel IN (SELECT unnest($ids::UBIGINT[]))
QUALIFY row_number() OVER (PARTITION BY l.supervoxel, b.body ORDER BY o.direction DESC) = 1
ORDER BY l.supervoxel, l.voxels DESC, b.body
"""
_REFILLED = """
SELECT unnest([r.a, r.b]) AS supervoxel, r.*
FROM resegmentation r JOIN member x ON x.supervoxel = r.a JOIN member y ON y.supervoxel = r.b
WHERE x.object = y.object AND (r.a IN (SELECT unnest($ids::UBIGINT[])) OR r.b IN (SELECT unnest($ids::UBIGINT[])))
ORDER BY r.a, r.b, r.unit
"""
_ONCE = """
SELECT stage, min(unit) AS unit FROM unit WHERE stage IN ('reconcile', 'agglomerate') GROUP BY stage ORDER BY stage DESC
"""


@dataclass
class Bodies:
    """What is known of some supervoxels, by id."""

    rows: dict[int, dict[str, Any]]
    overlaps: dict[int, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    merges: dict[int, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    joiners: list[Key] = field(default_factory=list)
    flooded: dict[int, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    """The bodies of a flood-filling network that they have voxels of, most voxels first: seeds, what became of them."""
    refilled: dict[int, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    """Contacts of theirs within their object at which the fragments were filled once more."""

    def units(self) -> set[Key]:
        """The units that made these supervoxels and joined them to their objects."""
        found: set[Key] = {("segment", r["unit"]) for r in self.rows.values()} | set(self.joiners)
        found |= {("flood", b["unit"]) for rows in self.flooded.values() for b in rows}
        found |= {("resegment", r["unit"]) for rows in self.refilled.values() for r in rows}
        return found | {("overlap", o["unit"]) for rows in self.overlaps.values() for o in rows}

    def step(self, supervoxel: int, title: str, units: Mapping[Key, Trace], segment: Trace | None) -> Trace:
        """A supervoxel, what joined it to its object, and (as `segment`) the block that made it."""
        r = self.rows.get(supervoxel)
        if r is None:
            return Trace(f"{title}: none", "supervoxel", {"supervoxel": Id(supervoxel)})
        facts = {
            "supervoxel": Id(supervoxel),
            "object": None if r["object"] is None else Id(r["object"]),
            "size_vx": r["size_vx"],
            "boundary": r["boundary"],
            "origin": r["origin"],
            "fragment": None if r["fragment"] is None else Id(r["fragment"]),
        }
        steps = [] if r["object"] is None else [self._joining(r, units)]
        steps += [self._flooding(b, units) for b in self.flooded.get(supervoxel, [])]
        return Trace(f"{title} {supervoxel}", "supervoxel", facts, (*steps, *([segment] if segment else [])))

    def _flooding(self, b: Mapping[str, Any], units: Mapping[Key, Trace]) -> Trace:
        named = ("shared_vx", "moves", "voxels", "reason", "overlap_vx")
        seeds = [f"{kind}{axis}_vx" for kind in ("seed_", "second_seed_") for axis in "zyx"]
        facts = {"body": Id(b["body"]), **{n: b[n] for n in (*seeds, *named) if b[n] is not None}}
        made_by = [units[k] for k in [("flood", b["unit"])] if k in units]
        return Trace(f"filled from a seed as body {b['body']}", "body", facts, tuple(made_by))

    def _joining(self, r: Mapping[str, Any], units: Mapping[Key, Trace]) -> Trace:
        across = self._across(r["supervoxel"], r["fragment"])
        merges = self.merges[r["fragment"]]
        steps = [
            *(
                Trace(
                    f"overlap {o['a']} = {o['b']}",
                    "overlap",
                    {"a": Id(o["a"]), "b": Id(o["b"]), **{n: o[n] for n in ("score", "iou", "overlap_vx", "reason")}},
                    (units["overlap", o["unit"]],) if ("overlap", o["unit"]) in units else (),
                )
                for o in across
            ),
            *(merge_step(m) for m in merges),
            *(_refilling(again, r["supervoxel"], units) for again in self.refilled.get(r["supervoxel"], [])),
            *(units[k] for k in self.joiners if k in units),
        ]
        facts = {
            "object": Id(r["object"]),
            "overlaps_on_path": len(across),
            "merges_on_path": len(merges),
            "weakest_on_path": min((m["score"] for m in merges), default=None),
            "weakest_in_object": r["weakest_merge"],
            "supervoxels_in_object": r["object_supervoxels"],
        }
        return Trace(f"joined to object {r['object']}", "joining", facts, tuple(steps))

    def _across(self, supervoxel: int, fragment: int) -> list[dict[str, Any]]:
        """Accepted overlaps on a shortest way from the supervoxel to the one that names its fragment."""
        if supervoxel == fragment:
            return []
        graph = nx.Graph()
        for o in self.overlaps[fragment]:
            graph.add_edge(o["a"], o["b"], row=o)
        if supervoxel not in graph or fragment not in graph:
            return []
        way = nx.shortest_path(graph, supervoxel, fragment)
        return [graph.edges[pair]["row"] for pair in pairwise(way)]


def _refilling(r: Mapping[str, Any], supervoxel: int, units: Mapping[Key, Trace]) -> Trace:
    """A contact within an object at which the two fragments were filled once more."""
    other = r["b"] if supervoxel == r["a"] else r["a"]
    shares = ("a_own", "a_other", "b_own", "b_other", "iou", "a_moves", "b_moves")
    facts = {"a": Id(r["a"]), "b": Id(r["b"]), **{n: r[n] for n in ("z_vx", "y_vx", "x_vx", *shares)}}
    made_by = [units[k] for k in [("resegment", r["unit"])] if k in units]
    return Trace(f"filled again at the contact with {other}", "refilling", facts, tuple(made_by))


def merge_step(m: Mapping[str, Any]) -> Trace:
    """One merge."""
    facts = {"a": Id(m["a"]), "b": Id(m["b"]), **{n: m[n] for n in ("score", "area_nm2", "rank")}}
    return Trace(f"merge {m['b']} into {m['a']}", "merge", facts)


def bodies_of(db: Database, supervoxels: Iterable[int]) -> Bodies:
    """Look up supervoxels and what joined them to their objects; before agglomerate has run, the supervoxels alone."""
    wanted = sorted(set(supervoxels))
    if not wanted:
        return Bodies({})
    flooded: dict[int, list[dict[str, Any]]] = defaultdict(list)
    if db.has("supervoxel_body", "flood_body", "flood_object"):
        for r in db.fetch(_FLOODED, {"ids": wanted}):
            flooded[r["supervoxel"]].append(r)
    if not db.has("member", "object", "merge", "overlap", "fragment"):
        rows = db.fetch(
            "SELECT *, NULL AS fragment, NULL AS object FROM supervoxel "
            "WHERE supervoxel IN (SELECT unnest($ids::UBIGINT[]))",
            {"ids": wanted},
        )
        return Bodies({r["supervoxel"]: r for r in rows}, flooded=flooded)
    found = Bodies({r["supervoxel"]: r for r in db.fetch(_SUPERVOXELS, {"ids": wanted})}, flooded=flooded)
    fragments = sorted({r["fragment"] for r in found.rows.values() if r["fragment"] is not None})
    split = sorted({r["fragment"] for r in found.rows.values() if r["fragment"] not in {None, r["supervoxel"]}})
    for o in db.fetch(_OVERLAPS, {"ids": split}):
        found.overlaps[o["fragment"]].append(o)
    if db.has("resegmentation"):
        for r in db.fetch(_REFILLED, {"ids": wanted}):
            found.refilled[r["supervoxel"]].append(r)
    for m in db.fetch(_MERGE_PATHS, {"ids": fragments}):
        found.merges[m["start"]].append(m)
    if ledger := ledger_of(db):
        solved = [(stage, ledger.first(stage)) for stage in ("reconcile", "agglomerate")]
        found.joiners = [(stage, unit) for stage, unit in solved if unit is not None]
    else:
        found.joiners = [(r["stage"], r["unit"]) for r in db.fetch(_ONCE)]
    return found

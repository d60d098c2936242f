"""What depends on this? From a tile, a section, a block, a region, a model, a parameter or code down to the graph.

Two answers, which frame the truth:

direct     what the change reaches through pixels and local evidence: units that read what a reached unit made, the
           supervoxels that these made, the objects that hold them, the synapses that were found there or attach to
           them, and the connections that count such a synapse
possible   what it may also reach through the solves of the whole dataset (stages with one unit: align, reconcile,
           agglomerate, graph): when the change reaches what a solve reads, all units of all stages after it

Of a tile, only the blocks of the image that really show it are direct (`image_source`), although every block of its
section read where it lies. These are units that could change: some will come out as they were.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from connectome_db.errors import QueryError, nearest
from connectome_db.geometry import Box, Vec3
from connectome_db.query import reach
from connectome_db.query.database import Database
from connectome_db.query.reach import Pipeline, Reached
from connectome_db.schema.all import STAGE_OF
from connectome_db.spec import RAW

IN_A_BOX = " AND ".join(f"core_{axis}0 < ${axis}1 AND ${axis}0 < core_{axis}1" for axis in "zyx")


@dataclass(frozen=True)
class Impact:
    """What depends on something."""

    asked: str
    """What it was, in words: "tile s0/t00.png"."""
    direct: Reached
    """Units reached without going through a solve of the whole dataset."""
    after: tuple[str, ...]
    """Stages all of whose units may be reached: those solves and all stages after them."""
    solves: tuple[str, ...]
    """The solves among them."""


def of_tile(db: Database, tile: str) -> Impact:
    """What depends on one raw tile. Raises QueryError for an unknown name, with the nearest."""
    tables = [t for t in ("tile", "tile_issue") if db.has(t)]
    found = [r for t in tables for r in db.fetch(f"SELECT section FROM {t} WHERE tile = $tile", {"tile": tile})]
    if not found:
        known = [r["tile"] for t in tables for r in db.fetch(f"SELECT DISTINCT tile FROM {t} ORDER BY tile")]
        raise QueryError(f"no tile {tile!r}{nearest(tile, known)}")
    return _shown(db, f"tile {tile}", found[0]["section"], "tile = $tile", {"tile": tile})


def of_section(db: Database, section: int) -> Impact:
    """What depends on all tiles of a section."""
    if not db.has("tile") or not db.fetch("SELECT 1 FROM tile WHERE section = $z LIMIT 1", {"z": section}):
        known = db.fetch("SELECT min(section) AS a, max(section) AS b FROM tile") if db.has("tile") else [{"a": None}]
        there = "no section" if known[0]["a"] is None else f"sections {known[0]['a']} to {known[0]['b']}"
        raise QueryError(f"no section {section} with a usable tile; the project has {there}")
    return _shown(db, f"section {section}", section, "section = $z", {"z": section})


def of_block(db: Database, stage: str, position: Vec3) -> Impact:
    """What depends on the units of a stage at a lattice position (z, y, x); for faces, up to three.

    Sections are at (section, 0, 0), pairs of sections at (lower section, distance, 0), solves at (0, 0, 0).
    """
    _check_stage(db, stage)
    z, y, x = position
    rows = db.rows(
        "SELECT stage, unit FROM unit WHERE stage = $stage AND z = $z AND y = $y AND x = $x",
        {"stage": stage, "z": z, "y": y, "x": x},
    )
    if not rows.num_rows:
        hull = ", ".join(f"min({a}) AS {a}0, max({a}) AS {a}1" for a in "zyx")
        r = db.fetch(f"SELECT {hull}, any_value(kind) AS kind FROM unit WHERE stage = $stage", {"stage": stage})[0]
        there = ", ".join(f"{a} {r[a + '0']} to {r[a + '1']}" for a in "zyx")
        raise QueryError(f"stage {stage} has no unit at {z} {y} {x}; its {r['kind']} have {there}")
    return _spread(db, f"{stage} {z} {y} {x}", reach.by_stage(rows))


def of_box(db: Database, name: str, box: Box) -> Impact:
    """What depends on what lies in a box of the volume (voxels): blocks and faces that touch it, of all stages.

    Sections and their pairs are left out: they lie in frames of their own, and a box says nothing about those.
    """
    wanted = f"SELECT stage, unit FROM unit WHERE kind IN ('blocks', 'faces') AND {IN_A_BOX}"
    return _spread(db, name, reach.by_stage(db.rows(wanted, _ends(box))))


def of_model(db: Database, name: str) -> Impact:
    """What depends on a model: `name`, for all versions of it that were used, or `name@digest`."""
    known = [r["m"] for r in db.fetch("SELECT DISTINCT model_id AS m FROM unit WHERE model_id IS NOT NULL ORDER BY m")]
    ids = [m for m in known if name in {m, m.partition("@")[0]}]
    if not ids:
        raise QueryError(f"no unit was made with a model {name!r}{nearest(name, [*known, *_before_at(known)])}")
    rows = db.rows("SELECT stage, unit FROM unit WHERE model_id IN (SELECT unnest($ids::VARCHAR[]))", {"ids": ids})
    return _spread(db, f"model {', '.join(ids)}", reach.by_stage(rows))


def of_parameter(db: Database, name: str, region: tuple[str, Box] | None = None) -> Impact:
    """What depends on a parameter, `stage.parameter`: all units of the stage, or those that an override would hit."""
    stage, _, parameter = name.partition(".")
    _check_stage(db, stage)
    record = db.fetch("SELECT params, kind FROM stage_record WHERE stage = $stage", {"stage": stage})[0]
    known = json.loads(record["params"])
    if parameter not in known:
        raise QueryError(f"stage {stage} has no parameter {parameter!r}{nearest(parameter, known)}")
    if region is None:
        return of_stages(db, [stage], f"parameter {name}")
    if record["kind"] == "once":
        raise QueryError(f"stage {stage} runs once for the whole dataset, so a region cannot change its parameters")
    wanted = f"SELECT stage, unit FROM unit WHERE stage = $stage AND {IN_A_BOX}"
    rows = db.rows(wanted, {"stage": stage} | _ends(region[1]))
    return _spread(db, f"parameter {name} in region {region[0]}", reach.by_stage(rows))


def of_stages(db: Database, stages: Sequence[str], asked: str) -> Impact:
    """What depends on all units of some stages: those of a parameter, or whose code reaches a module."""
    for stage in stages:
        _check_stage(db, stage)
    wanted = "SELECT stage, unit FROM unit WHERE stage IN (SELECT unnest($stages::VARCHAR[]))"
    return _spread(db, asked, reach.by_stage(db.rows(wanted, {"stages": list(stages)})))


def _shown(db: Database, asked: str, section: int, where: str, params: Mapping[str, Any]) -> Impact:
    """Of raw pixels of a section: what reads that section's tiles as a whole, and the blocks that show these."""
    readers = db.rows(
        "SELECT r.stage, r.unit FROM unit_read r JOIN unit u USING (stage, unit) "
        f"WHERE r.input = '{RAW}' AND r.z0 <= $z AND $z < r.z1 AND u.kind IN ('sections', 'pairs')",
        {"z": section},
    )
    start: Reached = {}
    if db.has("image_source"):
        codes = reach.codes_of(db.rows(f"SELECT DISTINCT unit FROM image_source WHERE {where}", params))
        start = {STAGE_OF["image_source"]: codes} if len(codes) else {}
    return _spread(db, asked, start, beside=reach.by_stage(readers))


def _spread(db: Database, asked: str, start: Reached, *, beside: Reached | None = None) -> Impact:
    """Walk from the units that are asked about; `beside` are units that depend on it, and that no walk starts from."""
    pipe = reach.pipeline(db)
    direct = reach.downstream(db, start, stop=pipe.solves)
    for stage, codes in (beside or {}).items():
        direct[stage] = np.union1d(direct.get(stage, codes), codes)
    after = _after(pipe, direct)
    ordered = {s: direct[s] for s in pipe.inputs if s in direct}
    return Impact(asked, ordered, after, tuple(s for s in after if s in pipe.solves))


def _after(pipe: Pipeline, direct: Reached) -> tuple[str, ...]:
    """The solves that read what was reached, and every stage after them (and after a solve that was asked about)."""
    after: list[str] = []
    for stage in pipe.inputs:
        sources = pipe.upstream(stage)
        if any(s in after or (s in direct and (s in pipe.solves or stage in pipe.solves)) for s in sources):
            after.append(stage)
    return tuple(after)


# What came of it ----------------------------------------------------------------------------------------------------

UNITS = "SELECT stage, unit FROM reached"
_SUPERVOXELS = "SELECT supervoxel FROM supervoxel WHERE unit IN (SELECT unit FROM reached WHERE stage = 'segment')"
_OBJECTS = f"""
SELECT object FROM member WHERE supervoxel IN ({_SUPERVOXELS})
UNION SELECT object FROM object WHERE unit IN (SELECT unit FROM reached WHERE stage = 'agglomerate')
"""
_SYNAPSES = f"""
SELECT synapse FROM synapse
WHERE unit IN (SELECT unit FROM reached WHERE stage = 'synapses')
   OR pre_supervoxel IN ({_SUPERVOXELS}) OR post_supervoxel IN ({_SUPERVOXELS})
"""
_EDGES = f"""
SELECT pre, post FROM link WHERE counted AND synapse IN ({_SYNAPSES})
UNION SELECT pre, post FROM connection WHERE unit IN (SELECT unit FROM reached WHERE stage = 'graph')
"""


@dataclass(frozen=True)
class _Thing:
    """One sort of result: its table, that table's key, the query for what is direct, and how a list of it looks."""

    table: str
    key: tuple[str, ...]
    direct: str
    needs: tuple[str, ...]
    """Tables that the query reads."""
    shown: str
    order: str


_UNIT_ORDER = "list_position($stages::VARCHAR[], stage), unit"
THINGS: Mapping[str, _Thing] = {
    "units": _Thing("unit", ("stage", "unit"), UNITS, (), "stage, unit, kind, z, y, x, axis", _UNIT_ORDER),
    "supervoxels": _Thing(
        "supervoxel",
        ("supervoxel",),
        _SUPERVOXELS,
        ("supervoxel",),
        "supervoxel, size_vx, z_vx, y_vx, x_vx, boundary",
        "size_vx DESC, supervoxel",
    ),
    "objects": _Thing(
        "object",
        ("object",),
        _OBJECTS,
        ("object", "member", "supervoxel"),
        "object, supervoxels, size_vx, weakest_merge, touches_border",
        "size_vx DESC, object",
    ),
    "synapses": _Thing(
        "synapse",
        ("synapse",),
        _SYNAPSES,
        ("synapse", "supervoxel"),
        "synapse, z_vx, y_vx, x_vx, size_vx, confidence",
        "confidence DESC, synapse",
    ),
    "edges": _Thing(
        "connection",
        ("pre", "post"),
        _EDGES,
        ("connection", "link", "synapse", "supervoxel"),
        "pre, post, synapses, confidence",
        "synapses DESC, pre, post",
    ),
}
"""What can be counted and listed, by name."""


def counts(db: Database, impact: Impact) -> pa.Table:
    """(what, direct, possible, all): units of each stage, then of all stages, then results that are there."""
    total = {r["stage"]: r["n"] for r in db.fetch("SELECT stage, units AS n FROM stage_record")}
    rows: list[tuple[str, int, int, int]] = []
    for stage in reach.pipeline(db).inputs:
        direct = len(impact.direct.get(stage, ()))
        rows.append((f"{stage} units", direct, total[stage] if stage in impact.after else direct, total[stage]))
    rows.append(("units", sum(r[1] for r in rows), sum(r[2] for r in rows), sum(r[3] for r in rows)))
    beside = {"reached": reach.as_rows(impact.direct)}
    for name, thing in THINGS.items():
        if name != "units" and db.has(*thing.needs):
            every = db.fetch(f"SELECT count(*) AS n FROM {thing.table}")[0]["n"]
            direct = db.rows(f"SELECT count(*) AS n FROM ({thing.direct})", beside=beside)["n"][0].as_py()
            rows.append((name, direct, every if STAGE_OF[thing.table] in impact.after else direct, every))
    return pa.table({n: [r[k] for r in rows] for k, n in enumerate(("what", "direct", "possible", "all"))})


def listing(db: Database, impact: Impact, what: str, *, possible: bool = False) -> pa.Table:
    """What depends on it, of one sort of `THINGS`: the column `direct`, then what names and judges each.

    Only what is direct, unless `possible`. Units come in the order of the pipeline; objects, synapses and connections
    come with the largest, surest and strongest first.
    """
    if what not in THINGS:
        raise QueryError(f"cannot list {what!r}{nearest(what, THINGS)}")
    thing = THINGS[what]
    if missing := [t for t in thing.needs if not db.has(t)]:
        raise QueryError(f"{what} cannot be listed yet: there is no table `{missing[0]}`; run `dvc repro`")
    made_by = "stage" if what == "units" else f"'{STAGE_OF[thing.table]}'"
    key = ", ".join(thing.key)
    params = {"after": list(impact.after), "possible": possible}
    if "$stages" in thing.order:
        params["stages"] = list(reach.pipeline(db).inputs)
    return db.rows(
        f"SELECT coalesce(found, false) AS direct, {thing.shown} FROM {thing.table} "
        f"LEFT JOIN (SELECT {key}, true AS found FROM ({thing.direct})) USING ({key}) "
        f"WHERE found OR ($possible AND {made_by} IN (SELECT unnest($after::VARCHAR[]))) "
        f"ORDER BY direct DESC, {thing.order}",
        params,
        beside={"reached": reach.as_rows(impact.direct)},
    )


def _ends(box: Box) -> dict[str, int]:
    return dict(zip(reach.BOX, box.flat(), strict=True))


def _before_at(names: Sequence[str]) -> list[str]:
    return [n.partition("@")[0] for n in names]


def _check_stage(db: Database, stage: str) -> None:
    pipe = reach.pipeline(db)
    if stage not in pipe.inputs:
        raise QueryError(f"no stage {stage!r} with data{nearest(stage, pipe.inputs)}")

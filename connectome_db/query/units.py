"""Units of work as steps of a lineage: the six provenance facts, and what lies above and below a unit."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from connectome_db.errors import QueryError, nearest
from connectome_db.geometry import box_of
from connectome_db.query import reach
from connectome_db.query.database import Database
from connectome_db.query.inmemory.ledger import WHOLE, Found, Key, ledger_of
from connectome_db.query.reach import Reached
from connectome_db.query.trace import Id, Trace
from connectome_db.schema.all import OUTPUTS
from connectome_db.spec import RAW, Unit

_WANTED = "WITH w AS (SELECT unnest($stages::VARCHAR[]) AS stage, unnest($units::UBIGINT[]) AS unit) "

_UNITS = (
    _WANTED
    + """
SELECT u.*, r.code_digest, r.params, e.git_commit, e.git_dirty, e.environment, e.run_id, e.started,
       e.host, e.seconds, e.reused
FROM w JOIN unit u USING (stage, unit) JOIN stage_record r USING (stage) LEFT JOIN execution e USING (stage, unit)
"""
)

_INPUTS = (
    _WANTED.rstrip()
    + """,
r AS MATERIALIZED (
  SELECT r.* FROM w JOIN unit_read r USING (stage, unit)
  WHERE stage NOT IN (SELECT stage FROM stage_record WHERE kind = 'once')
)
SELECT stage, unit, input, list({'unit': part, 'digest': digest} ORDER BY part) AS parts
FROM (
  SELECT DISTINCT r.stage, r.unit, r.input, p.unit AS part, p.digest FROM r JOIN part p ON p.output = r.input
    AND p.z0 < r.z1 AND r.z0 < p.z1 AND p.y0 < r.y1 AND r.y0 < p.y1 AND p.x0 < r.x1 AND r.x0 < p.x1
    AND r.z0 < r.z1 AND r.y0 < r.y1 AND r.x0 < r.x1
)
GROUP BY ALL ORDER BY ALL
"""
)
"""`unit_edge` of the units asked for, who are looked up first: the join has few rows on one side."""

_TILES = (
    _WANTED
    + f"""
SELECT r.stage, r.unit, list({{'tile': t.tile, 'digest': t.sha256}} ORDER BY t.section, t.tile) AS parts
FROM w JOIN unit_read r USING (stage, unit) JOIN tile t ON t.section >= r.z0 AND t.section < r.z1
WHERE r.input = '{RAW}' GROUP BY ALL
"""
)

_OUTPUTS = (
    _WANTED
    + """
SELECT p.stage, p.unit, p.output, p.digest FROM w JOIN part p USING (stage, unit)
WHERE stage NOT IN (SELECT stage FROM stage_record WHERE kind = 'once') ORDER BY ALL
"""
)

_OVERRIDES = (
    _WANTED
    + """
SELECT u.stage, u.unit, o.region, o.params FROM w JOIN unit u USING (stage, unit) JOIN stage_override o
  ON o.stage = u.stage AND o.z0 < u.core_z1 AND u.core_z0 < o.z1 AND o.y0 < u.core_y1 AND u.core_y0 < o.y1
 AND o.x0 < u.core_x1 AND u.core_x0 < o.x1
WHERE u.kind <> 'once' ORDER BY u.stage, u.unit, o.place
"""
)


def title_of(row: dict[str, Any]) -> str:
    """How a unit is called: "segment block 0/1/2", "align whole"."""
    core = box_of(row[f"core_{axis}{end}"] for end in (0, 1) for axis in "zyx")
    unit = Unit(row["kind"], row["unit"], (row["z"], row["y"], row["x"]), row["axis"], core, ())
    return f"{row['stage']} {unit}"


def unit_traces(db: Database, keys: Iterable[Key]) -> dict[Key, Trace]:
    """Steps of the units named, with their facts: from memory, or in a handful of queries, however many units.

    A unit of a `once` stage reads and makes everything, so its inputs and outputs are the Merkle digests of the stage's
    record; other units list the digest of each part they touched.
    """
    wanted = sorted(set(keys))
    inputs: dict[Key, dict[str, Any]] = {k: {} for k in wanted}
    outputs: dict[Key, dict[str, str]] = {k: {} for k in wanted}
    overrides: dict[Key, list[dict[str, Any]]] = {k: [] for k in wanted}
    ledger = ledger_of(db)
    found = ledger.look_up(wanted) if ledger else _ask(db, wanted)
    once = {r["stage"]: (r["stage"], r["unit"]) for r in found.units if r["kind"] == "once"}
    for r in found.tiles:
        if r["stage"] not in once:
            inputs[r["stage"], r["unit"]][RAW] = r["parts"]
    for r in found.inputs:
        inputs[r["stage"], r["unit"]][r["input"]] = [{**p, "unit": Id(p["unit"])} for p in r["parts"]]
    for r in found.outputs:
        outputs[r["stage"], r["unit"]][r["output"]] = r["digest"]
    for r in found.whole:
        (inputs if r["side"] == "inputs" else outputs)[once[r["stage"]]][r["name"]] = r["digest"]
    if ledger is None or ledger.overridden:
        for r in db.fetch(_OVERRIDES, _params(wanted)):
            overrides[r["stage"], r["unit"]].append({"region": r["region"], "params": json.loads(r["params"])})
    rows = found.units
    return {
        (key := (r["stage"], r["unit"])): _trace(r, inputs[key], outputs[key], overrides[key])
        for r in rows
    }  # fmt: skip


def _params(keys: Sequence[Key]) -> dict[str, Any]:
    return {"stages": [s for s, _ in keys], "units": [u for _, u in keys]}


def _ask(db: Database, keys: Sequence[Key]) -> Found:
    """What the tables on disk say of these units."""
    params = _params(keys)
    units = db.fetch(_UNITS, params)
    tiles = db.fetch(_TILES, params) if db.has("tile") else []
    whole = db.fetch(WHOLE, {"stages": sorted({r["stage"] for r in units if r["kind"] == "once"})})
    return Found(units, tiles, db.fetch(_INPUTS, params), db.fetch(_OUTPUTS, params), whole)


def _trace(
    r: dict[str, Any], inputs: dict[str, Any], outputs: dict[str, str], overrides: list[dict[str, Any]]
) -> Trace:
    params = json.loads(r["params"])
    for override in overrides:
        params.update(override["params"])
    facts = {
        "stage": r["stage"],
        "unit": Id(r["unit"]),
        "core_box_vx": [r[f"core_{axis}{end}"] for end in (0, 1) for axis in "zyx"],
        "unit_key": r["unit_key"],
        "inputs": inputs,
        "git_commit": r["git_commit"],
        "git_dirty": r["git_dirty"],
        "code_digest": r["code_digest"],
        "model_id": r["model_id"],
        "params": params,
        "params_digest": r["params_digest"],
        "overrides": overrides,
        "environment": r["environment"],
        "outputs": outputs,
        **{n: r[n] for n in ("run_id", "started", "host", "seconds", "reused")},
    }
    return Trace(title_of(r), "unit", facts)


_FOUND = """
SELECT u.stage, u.unit, u.kind, u.z, u.y, u.x, u.axis, u.unit_key,
       u.core_z0, u.core_y0, u.core_x0, u.core_z1, u.core_y1, u.core_x1
FROM found JOIN unit u USING (stage, unit)
WHERE NOT (stage = $stage AND unit = $unit)
ORDER BY list_position($order::VARCHAR[], u.stage), u.unit
"""


def upstream_units(db: Database, stage: str, unit: int) -> pa.Table:
    """Every unit whose output went into this one, directly or not, in the order of the pipeline."""
    return _others(db, reach.upstream(db, _known(db, stage, unit)), stage, unit)


def downstream_units(db: Database, stage: str, unit: int) -> pa.Table:
    """Every unit that this one's output went into, directly or not, in the order of the pipeline."""
    return _others(db, reach.downstream(db, _known(db, stage, unit)), stage, unit)


def _known(db: Database, stage: str, unit: int) -> Reached:
    """The unit named, when there is one."""
    known = reach.codes_of(db.rows("SELECT unit FROM unit WHERE stage = $stage", {"stage": stage}))
    if not len(known):
        ran = [r["stage"] for r in db.fetch("SELECT DISTINCT stage FROM unit")]
        if stage in OUTPUTS:
            raise QueryError(f"stage {stage!r} has not been run; run `dvc repro {stage}`")
        raise QueryError(f"unknown stage {stage!r}{nearest(stage, ran)}")
    if not (known == unit).any():
        some = ", ".join(str(u) for u in known[:5].tolist())
        raise QueryError(f"stage {stage} has no unit {unit}; it has {len(known)}: {some}, ...")
    return {stage: np.asarray([unit], dtype=np.uint64)}


def _others(db: Database, found: Reached, stage: str, unit: int) -> pa.Table:
    order = list(reach.pipeline(db).inputs)
    return db.rows(_FOUND, {"stage": stage, "unit": unit, "order": order}, beside={"found": reach.as_rows(found)})

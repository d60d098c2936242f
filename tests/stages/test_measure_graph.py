"""measure_graph against plain loops over made-up objects, synapses and neurons."""

from __future__ import annotations

from math import log10
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from connectome_db import ids
from connectome_db.errors import StageError
from connectome_db.geometry import Box
from connectome_db.schema.quality import METRICS
from connectome_db.schema.segmentation import BORDERLINE, MEMBER, OBJECT, SUPERVOXEL
from connectome_db.schema.wiring import LINK, NEURON, SYNAPSE
from connectome_db.spec import Extent, Table
from connectome_db.stages.measure_graph import STAGE, MeasureGraphParams
from tests.stages.memory import Memory

NM = (30.0, 8.0, 10.0)
UM3 = 30 * 8 * 10 * 1e-9
SHAPE = (8, 40, 48)
CELL = (4, 16, 16)
PARAMS = MeasureGraphParams(cell_vx=CELL, orphan_um3=700 * UM3, min_tissue=0.05)
OBJECTS, ATOMS, SYNAPSES = 12, 90, 40
Rows = dict[str, list[dict[str, Any]]]
Values = dict[tuple[str, int, int, int], tuple[float, float]]


def made(seed: int = 3) -> Rows:
    """Supervoxels strewn over the volume (one cell left all but empty), dealt to objects of very different size."""
    rng = np.random.default_rng(seed)
    owner = np.concatenate([np.arange(OBJECTS), rng.choice(OBJECTS, ATOMS - OBJECTS, p=np.arange(12) / 66)])
    place = rng.uniform((-0.4,) * 3, np.asarray(SHAPE) - 0.6, (ATOMS, 3))
    place[(place[:, 0] > 3.4) & (place[:, 1] > 31.4) & (place[:, 2] > 31.4)] = (6.0, 39.0, 47.0)
    size = rng.integers(100, 400, ATOMS)
    size[place[:, 0] == 6.0] = 1
    atoms = [
        {"supervoxel": 1000 + k, "size_vx": int(size[k]), "origin": "x"}
        | {f"{axis}_vx": place[k, i] for i, axis in enumerate("zyx")}
        for k in range(ATOMS)
    ]
    names = [min(1000 + k for k in range(ATOMS) if owner[k] == n) for n in range(OBJECTS)]
    objects = [
        {"object": names[n], "touches_border": n in {5, 11}, "size_vx": int(size[owner == n].sum())}
        for n in range(OBJECTS)
    ]
    links = []
    for k in range(SYNAPSES):
        pre, post = (names[v] for v in rng.choice(np.arange(3, OBJECTS), 2))
        links.append({"synapse": 1 + k, "pre": pre, "post": post, "counted": pre != post and k % 5 > 0, "reason": ""})
    where = rng.uniform((-0.4,) * 3, np.asarray(SHAPE) - 0.6, (SYNAPSES, 3))
    return {
        "segment.supervoxel": atoms,
        "agglomerate.member": [{"supervoxel": 1000 + k, "object": names[owner[k]]} for k in range(ATOMS)],
        "agglomerate.object": objects,
        "agglomerate.borderline": [
            {"a": min(names[a], names[b]), "b": max(names[a], names[b])} for a, b in ((0, 1), (4, 7), (2, 11), (10, 11))
        ],
        "synapses.synapse": [
            {"synapse": 1 + k} | {f"{axis}_vx": where[k, i] for i, axis in enumerate("zyx")} for k in range(SYNAPSES)
        ],
        "graph.link": links,
        "graph.neuron": [
            {"neuron": names[n], "partners_in": n % 4, "partners_out": n % 3, "touches_border": n in {5, 11}}
            for n in range(3, OBJECTS)
        ],
    }


TABLES: dict[str, Table] = {
    "segment.supervoxel": SUPERVOXEL,
    "agglomerate.member": MEMBER,
    "agglomerate.object": OBJECT,
    "agglomerate.borderline": BORDERLINE,
    "synapses.synapse": SYNAPSE,
    "graph.link": LINK,
    "graph.neuron": NEURON,
}


def stored(table: Table, rows: list[dict[str, Any]]) -> pa.Table:
    plain = {c.name: None if c.nullable else "" if c.dtype == "string" else 0 for c in table.columns}
    return pa.Table.from_pylist([{"unit": 0, **plain, **r} for r in rows], schema=table.stored())


def run(rows: Rows, params: MeasureGraphParams = PARAMS) -> pa.Table:
    memory = Memory(NM, {}, Box((0, 0, 0), SHAPE))
    for name, table in TABLES.items():
        memory.tables[name] = stored(table, rows[name])
        memory.extents[name] = Extent(ids.pack([(0, 0, 0)]), np.asarray([[0, 0, 0, *SHAPE]], np.int64))
    memory.run(STAGE, params)
    return memory.tables["measure_graph.quality_graph"]


def values(table: pa.Table) -> Values:
    return {
        (r["metric"], round(r["z0_nm"] / 30), round(r["y0_nm"] / 8), round(r["x0_nm"] / 10)): (r["value"], r["weight"])
        for r in table.to_pylist()
    }


def cell(place: dict[str, float] | np.ndarray) -> tuple[int, int, int]:
    at = [place[f"{axis}_vx"] for axis in "zyx"] if isinstance(place, dict) else place
    z, y, x = (int(np.floor(v + 0.5)) // n * n for v, n in zip(at, CELL, strict=True))
    return z, y, x


def expected(rows: Rows) -> Values:
    owner = {r["supervoxel"]: r["object"] for r in rows["agglomerate.member"]}
    atoms, objects = rows["segment.supervoxel"], [r["object"] for r in rows["agglomerate.object"]]
    parts = {o: [a for a in atoms if owner[a["supervoxel"]] == o] for o in objects}
    volume = {o: sum(a["size_vx"] for a in own) * UM3 for o, own in parts.items()}
    border = {r["object"] for r in rows["agglomerate.object"] if r["touches_border"]}
    counted = [r for r in rows["graph.link"] if r["counted"]]
    wired = {r[side] for r in counted for side in ("pre", "post")}
    orphan = {o for o in objects if o not in border | wired and volume[o] < PARAMS.orphan_um3}
    degree = {r["neuron"]: r["partners_in"] + r["partners_out"] for r in rows["graph.neuron"]}
    at = {r["synapse"]: cell(r) for r in rows["synapses.synapse"]}
    near: list[tuple[int, int, int]] = []
    for pair in rows["agglomerate.borderline"]:
        own = parts[min((pair["a"], pair["b"]), key=lambda o: volume[o])]
        places = np.asarray([[a[f"{axis}_vx"] for axis in "zyx"] for a in own])
        near.append(cell(np.average(places, axis=0, weights=[a["size_vx"] for a in own])))
    out: Values = {}
    for here in {cell(a) for a in atoms}:
        own = [(a["size_vx"] * UM3, owner[a["supervoxel"]]) for a in atoms if cell(a) == here]
        um3 = sum(v for v, _ in own)
        shape = [min(n, end - lo) for n, end, lo in zip(CELL, SHAPE, here, strict=True)]
        if um3 < 0.05 * np.prod(shape) * UM3:
            continue
        seen = [r["counted"] for r in rows["graph.link"] if at[r["synapse"]] == here]
        neurite = sum(v for v, o in own if o in degree)
        for name, amount in {
            "object_density": sum(v / volume[o] for v, o in own),
            "object_size": sum(v * log10(volume[o]) for v, o in own),
            "orphan_fraction": sum(v for v, o in own if o in orphan),
            "borderline": near.count(here),
            "connection_density": sum(seen),
            "border_cut": sum(v for v, o in own if o in border & set(degree)),
        }.items():
            out[name, *here] = (amount / um3, um3)
        if seen:
            out["uncounted", *here] = (1 - sum(seen) / len(seen), len(seen))
        if neurite:
            out["degree", *here] = (sum(v * degree[o] for v, o in own if o in degree) / neurite, neurite)
    assert orphan, "the case must have orphans"
    return out


def test_every_metric_of_every_cell() -> None:
    rows = made()
    got, wanted = values(run(rows)), expected(rows)
    assert {k[0] for k in wanted} == {m for m in METRICS if METRICS[m].layer in {"agglomerate", "graph"}}
    assert got.keys() == wanted.keys()
    assert ("object_size", 4, 32, 32) not in got, "a cell with hardly any tissue has no values"
    for key, pair in wanted.items():
        assert got[key] == pytest.approx(pair, rel=1e-5, abs=1e-12), key


def test_every_object_counts_once() -> None:
    every = MeasureGraphParams(cell_vx=CELL, min_tissue=0.0)
    objects = [v * w for (name, *_), (v, w) in values(run(made(), every)).items() if name == "object_density"]
    assert sum(objects) == pytest.approx(OBJECTS, rel=1e-4)


def test_the_order_of_rows_changes_nothing() -> None:
    rows = made()
    turned = {name: list(reversed(part)) for name, part in rows.items()}
    order = [(k, "ascending") for k in ("metric", "z0_nm", "y0_nm", "x0_nm")]
    assert run(turned).sort_by(order).equals(run(rows).sort_by(order))


def test_nothing_was_found() -> None:
    assert len(run({name: [] for name in TABLES})) == 0


def test_tables_that_do_not_fit_are_refused() -> None:
    rows = made()
    with pytest.raises(StageError, match=r"run agglomerate again"):
        run(rows | {"agglomerate.member": rows["agglomerate.member"][1:]})

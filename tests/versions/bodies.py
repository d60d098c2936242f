"""Revisions of a made-up column of supervoxels, one per block, with the contacts between them written by hand.

Supervoxel k fills block k of `segment` and touches k + 1; the contact is a row of block k + 1 of `score`. Affinities
are outputs of `segment`, so what makes a contact weaker is a parameter of `segment`, in the region around its block.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from connectome_db.geometry import Box
from connectome_db.prepare import stage_code
from connectome_db.revisions import WORKING_TREE, Revision
from connectome_db.spec import Block, Unit
from connectome_db.stages.agglomerate import STAGE, AgglomerateParams
from connectome_db.tables import with_unit
from tests.versions.ledgers import code, write_stage

SIZE_VX = 1000


def column(
    root: Path,
    affinity: Mapping[int, float],
    threshold: float,
    *,
    weakened: Collection[int] = (),
    known_code: bool = True,
    named: Mapping[int, int] | None = None,
    n: int = 6,
) -> Revision:
    """Supervoxels 1 ... n; `affinity[k]` is that of the contact of k and k + 1; blocks `weakened` are in a region.

    `named` gives supervoxels other ids, and their blocks other content. Without `known_code` the records name a version
    of `agglomerate` that is not at hand.
    """
    cores = {k: (k, 0, 0, k + 1, 50, 20) for k in range(1, n + 1)}
    below = {k: (k - 1, 0, 0, k + 1, 50, 20) for k in cores}
    whole = {0: (1, 0, 0, n + 1, 50, 20)}
    outputs = ("supervoxels", "affinity_z", "affinity_y", "affinity_x", "supervoxel", "apron")
    seen = {k: f"{affinity.get(k - 1, 0)}" for k in cores}
    name = np.asarray([0, *((named or {}).get(k, k) for k in cores)], np.uint64)
    regions = [{"region": f"around {k}", "box_vx": list(cores[k]), "params": {"boundary": 0.9}} for k in weakened]
    bounds = {"bounds": list(whole[0]), "block_vx": [1, 50, 20]}
    segment = write_stage(
        root, "segment", "blocks", cores, reads={}, parts={
            out: {k: f"{out} {name[k]} {seen[k] if out == 'affinity_z' else ''}" for k in cores} for out in outputs
        }, keys={k: f"{name[k]} {k in weakened}" for k in cores},
        record={"params": {"boundary": 0.5}, "overrides": regions, **bounds, "outputs": dict.fromkeys(outputs, "")},
    )  # fmt: skip
    ids = name[1:]
    units = np.asarray([code(k) for k in cores], np.uint64)
    rows = {"supervoxel": ids, "size_vx": np.full(n, SIZE_VX)}
    rows |= {f"{axis}{end}_vx": np.asarray([cores[k][i + 3 * end] for k in cores], np.int32)
             for i, axis in enumerate("zyx") for end in (0, 1)}  # fmt: skip
    supervoxel = with_unit(pa.table(rows), units)
    pq.write_table(supervoxel, segment / "supervoxel.parquet")
    score = write_stage(
        root, "score", "blocks", cores, reads={
            "segment.supervoxels": below, **{f"segment.affinity_{axis}": cores for axis in "zyx"}
        }, parts={"contact": {k: f"{name[k - 1]} {name[k]} {seen[k]}" for k in cores}},
        keys={k: f"{name[k - 1]} {name[k]} {seen[k]}" for k in cores},
        record={},
    )  # fmt: skip
    lower = np.asarray(sorted(affinity), np.int64)
    contact = with_unit(
        pa.table({
            "a": name[lower], "b": name[lower + 1], "area_nm2": np.full(len(lower), 100.0),
            "affinity": np.asarray([affinity[int(k)] for k in lower]),
        }),
        units[lower],
    )  # fmt: skip
    pq.write_table(contact, score / "contact.parquet")
    overlap = write_stage(
        root, "overlap", "faces", cores, reads={"segment.supervoxels": below, "segment.apron": below},
        parts={"overlap": dict.fromkeys(cores, "none")}, keys=dict.fromkeys(cores, "same"), record={},
    )  # fmt: skip
    none = {"a": pa.array([], pa.uint64()), "b": pa.array([], pa.uint64()), "accepted": pa.array([], pa.bool_())}
    pq.write_table(with_unit(pa.table(none), np.zeros(0, np.uint64)), overlap / "overlap.parquet")
    fragment = pa.table({"supervoxel": ids, "fragment": ids})
    reconcile = write_stage(
        root, "reconcile", "once", whole, reads={"segment.supervoxel": whole, "overlap.overlap": whole},
        parts={"fragment": {0: str(ids.tolist())}}, keys={0: str(ids.tolist())}, record={},
    )  # fmt: skip
    pq.write_table(with_unit(fragment, np.zeros(1, np.uint64)), reconcile / "fragment.parquet")
    params = AgglomerateParams(threshold=threshold, dust_vx=0)
    tables = {"segment.supervoxel": supervoxel, "reconcile.fragment": fragment, "score.contact": contact}
    unit = Unit("once", code(0), (0, 0, 0), 0, Box((1, 0, 0), (n + 1, 50, 20)), ())
    made = STAGE.compute(Block(unit, params, (30.0, 8.0, 8.0), {}, {}, tables, {}, None, 0))
    groups = str(made["member"]["object"].to_pylist())
    agglomerate = write_stage(
        root, "agglomerate", "once", whole, reads=dict.fromkeys(STAGE.inputs, whole),
        parts={"member": {0: groups}}, keys={0: f"{threshold} {seen} {ids.tolist()}"},
        record={"params": params.model_dump(mode="json"), "code_digest": stage_code(STAGE) if known_code else "f" * 64,
                "inputs": dict.fromkeys(STAGE.inputs, "")},
    )  # fmt: skip
    for name in ("member", "object"):
        pq.write_table(made[name], agglomerate / f"{name}.parquet")
    return Revision(root, WORKING_TREE, None, root)


def overlap_of(named: Mapping[int, int] | None = None, n: int = 6) -> pa.Table:
    """What `supervoxel_overlap` gives for two such columns: the voxels are the same, the later ones `named`."""
    ids = [pa.array([names.get(k, k) for k in range(1, n + 1)], pa.uint64()) for names in ({}, named or {})]
    return pa.table({"a": ids[0], "b": ids[1], "voxels": pa.array([SIZE_VX] * n, pa.int64())})

"""What a block's labels say beyond its upper faces, as rows: for comparison with what its neighbours write there."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from connectome_db.geometry import Box, Vec3
from connectome_db.kernels.runs import decode, encode
from connectome_db.spec import Table

U64 = npt.NDArray[np.uint64]


def slabs(core: Box, apron_vx: Vec3, box: Box) -> list[tuple[int, Box]]:
    """(axis, box) of the slabs beyond the upper faces of `core`, cut to `box`; empty ones are left out."""
    found = []
    for axis in range(3):
        lo, hi = list(core.lo), list(core.hi)
        lo[axis], hi[axis] = core.hi[axis], core.hi[axis] + apron_vx[axis]
        slab = Box((lo[0], lo[1], lo[2]), (hi[0], hi[1], hi[2])).clip(box)
        if not slab.empty:
            found.append((axis, slab))
    return found


def apron_rows(names: U64, box: Box, core: Box, apron_vx: Vec3, table: Table) -> pa.Table:
    """Rows of `table` (axis, start, length, name) of the labels uint64 (z, y, x) of `box`; label 0 becomes null."""
    parts = [(axis, *encode(names[slab.slices(box.lo)], axis)) for axis, slab in slabs(core, apron_vx, box)]
    if not parts:
        return table.arrow().empty_table()
    name = np.concatenate([p[3] for p in parts])
    return pa.table(
        {
            "axis": np.repeat([p[0] for p in parts], [len(p[1]) for p in parts]).astype(np.int32),
            "start": np.concatenate([p[1] for p in parts]),
            "length": np.concatenate([p[2] for p in parts]),
            table.columns[-1].name: pa.array(name, mask=name == 0),
        },
        schema=table.arrow(),
    )


def apron_labels(rows: pa.Table, axis: int, shape: Vec3) -> U64:
    """The labels uint64 of `shape` (z, y, x) that `apron_rows` wrote for one slab, or its first layers; null is 0.

    Raises ValueError where the rows do not cover it.
    """
    mine = rows["axis"].to_numpy() == axis
    start, length = (rows[name].to_numpy()[mine].astype(np.int64) for name in ("start", "length"))
    label = rows.column(rows.schema.names[-1]).fill_null(0).to_numpy()[mine].astype(np.uint64)
    return decode(start, length, label, shape, axis)

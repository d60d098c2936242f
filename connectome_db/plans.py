"""From boxes to units, vectorised: five kinds of plan and no others.

    blocks   a grid fixed at the origin, clipped to bounds      pairs   (section z, section z + dz)
    sections one unit per section                               faces   between neighbouring blocks
    once     one unit for the whole dataset

`reads` boxes are given per unit and clipped to what exists, so a block at the border reads what there is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from connectome_db import ids
from connectome_db.errors import StageError
from connectome_db.geometry import Box, Vec3, box_of
from connectome_db.spec import Extent, Kind, Plan, Read, Unit

FAR = 1 << 40
"""Stands for "everywhere" on an axis of a read box: frames of sections and of the volume differ in y and x."""

I64 = npt.NDArray[np.int64]


def _lattice(bounds: Box, block_vx: Vec3) -> I64:
    """All block positions (N, 3) whose block touches `bounds`, in (z, y, x) order."""
    if any(s <= 0 for s in block_vx):
        raise StageError(f"block_vx {block_vx}: wanted three positive numbers (z, y, x)")
    axes = [np.arange(lo // s, -(-hi // s)) for lo, hi, s in zip(bounds.lo, bounds.hi, block_vx, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3).astype(np.int64)


def clip(boxes: I64, bounds: Box) -> I64:
    """Boxes int64[N, 6] cut to `bounds`; a box outside becomes an empty one at `bounds.lo`."""
    lo = np.maximum(boxes[:, :3], bounds.lo)
    hi = np.minimum(boxes[:, 3:], bounds.hi)
    out = np.concatenate([lo, hi], axis=1)
    out[(hi <= lo).any(axis=1)] = [*bounds.lo, *bounds.lo]
    return out


def grow(boxes: I64, lo_vx: Vec3, hi_vx: Vec3) -> I64:
    """Boxes int64[N, 6] with `lo_vx` added below and `hi_vx` above."""
    return boxes + np.asarray([-lo_vx[0], -lo_vx[1], -lo_vx[2], *hi_vx], dtype=np.int64)


def planes(z0: npt.ArrayLike, z1: npt.ArrayLike) -> I64:
    """Boxes of whole sections z0 <= z < z1, without limit in y and x: int64[N, 6]."""
    lo, hi = np.atleast_1d(np.asarray(z0, dtype=np.int64)), np.atleast_1d(np.asarray(z1, dtype=np.int64))
    far = np.full_like(lo, FAR)
    return np.stack([lo, -far, -far, hi, far, far], axis=1)


def halo(core: I64, halo_vx: Vec3, bounds: Box) -> I64:
    """Read boxes: each core grown by `halo_vx` on all sides and clipped to `bounds`."""
    return clip(grow(core, halo_vx, halo_vx), bounds)


def _order(kind: Kind, codes: npt.NDArray[np.uint64], cores: I64, bounds: Box, block_vx: Vec3 | None) -> Plan:
    order = np.argsort(codes, kind="stable")
    codes, cores = codes[order], cores[order]
    if len(codes) > 1 and (codes[1:] == codes[:-1]).any():
        raise StageError(f"a {kind} plan names a unit twice: unit codes must differ")
    return Plan(kind=kind, codes=codes, cores=cores, reads=(), bounds=bounds, block_vx=block_vx)


def grid(bounds: Box, block_vx: Vec3) -> Plan:
    """Blocks of `block_vx` (z, y, x) voxels on the lattice of the origin, clipped to `bounds`."""
    pos = _lattice(bounds, block_vx)
    step = np.asarray(block_vx, dtype=np.int64)
    cores = clip(np.concatenate([pos * step, (pos + 1) * step], axis=1), bounds)
    return _order("blocks", ids.pack(pos), cores, bounds, block_vx)


def sections(extent: Extent) -> Plan:
    """One unit per section of `extent` (an input whose parts are sections)."""
    pos, _ = ids.unpack(extent.codes)
    return _order("sections", ids.pack(pos), extent.boxes.copy(), extent.bounds, None)


def pairs(extent: Extent, reach: int) -> Plan:
    """(z, z + dz) for 1 <= dz <= `reach`, for the sections that exist; the core spans both sections."""
    if reach < 1:
        raise StageError(f"reach {reach}: wanted at least 1 (each section with its neighbour)")
    z = np.unique(extent.boxes[:, 0])
    where = {int(v): i for i, v in enumerate(extent.boxes[:, 0])}
    found = [(int(a), d) for d in range(1, reach + 1) for a in z if int(a) + d in where]
    pos = np.asarray([(a, d, 0) for a, d in found], dtype=np.int64).reshape(-1, 3)
    low = extent.boxes[[where[a] for a, _ in found]].reshape(-1, 6)
    high = extent.boxes[[where[a + d] for a, d in found]].reshape(-1, 6)
    cores = np.concatenate([np.minimum(low[:, :3], high[:, :3]), np.maximum(low[:, 3:], high[:, 3:])], axis=1)
    return _order("pairs", ids.pack(pos), cores, extent.bounds, None)


def faces(bounds: Box, block_vx: Vec3, depth_vx: Vec3) -> Plan:
    """Faces between neighbouring blocks of `grid(bounds, block_vx)`; named by the lower block and the axis.

    The core of a face is the slab of the *upper* block that is `depth_vx[axis]` thick and lies on the face.
    """
    blocks = grid(bounds, block_vx)
    pos, _ = ids.unpack(blocks.codes)
    index = {tuple(p): i for i, p in enumerate(pos.tolist())}
    codes, cores = [], []
    for axis in range(3):
        step = np.zeros(3, dtype=np.int64)
        step[axis] = 1
        upper = np.asarray([index.get(tuple(p), -1) for p in (pos + step).tolist()], dtype=np.int64)
        has = upper >= 0
        slab = blocks.cores[upper[has]].copy()
        slab[:, 3 + axis] = np.minimum(slab[:, 3 + axis], slab[:, axis] + depth_vx[axis])
        codes.append(ids.pack(pos[has], axis))
        cores.append(slab)
    return _order("faces", np.concatenate(codes), np.concatenate(cores), bounds, block_vx)


def once(bounds: Box) -> Plan:
    """One unit for everything."""
    return _order("once", ids.pack([(0, 0, 0)]), np.asarray([bounds.flat()], dtype=np.int64), bounds, None)


def reading(plan: Plan, *reads: tuple[str, I64 | None]) -> Plan:
    """`plan` with what its units read: (input, boxes int64[N, 6] in the plan's order, or None for all of it)."""
    for name, boxes in reads:
        if boxes is not None and boxes.shape != (len(plan), 6):
            raise StageError(f"reads of {name!r}: wanted boxes of shape ({len(plan)}, 6), got {boxes.shape}")
    return Plan(
        kind=plan.kind,
        codes=plan.codes,
        cores=plan.cores,
        reads=tuple(Read(name, boxes) for name, boxes in reads),
        bounds=plan.bounds,
        block_vx=plan.block_vx,
    )


def only(plan: Plan, rows: I64) -> Plan:
    """The units of `plan` at `rows` (ascending), with their reads; bounds stay those of the whole."""
    reads = tuple(Read(r.input, None if r.boxes is None else r.boxes[rows]) for r in plan.reads)
    return replace(plan, codes=plan.codes[rows], cores=plan.cores[rows], reads=reads)


def unit(plan: Plan, i: int) -> Unit:
    """The `i`-th unit of a plan as an object."""
    pos, axis = ids.unpack(plan.codes[i : i + 1])
    z, y, x = (int(v) for v in pos[0])
    reads: Sequence[tuple[str, Box | None]] = [
        (r.input, None if r.boxes is None else box_of(r.boxes[i])) for r in plan.reads
    ]
    return Unit(plan.kind, int(plan.codes[i]), (z, y, x), int(axis[0]), box_of(plan.cores[i]), tuple(reads))


def same(a: Plan, b: Plan) -> bool:
    """True when two plans have the same units, that read the same boxes."""

    def arrays(p: Plan) -> list[npt.NDArray[Any]]:
        return [p.codes, p.cores, *(r.boxes for r in p.reads if r.boxes is not None)]

    return a.block_vx == b.block_vx and all(np.array_equal(u, v) for u, v in zip(arrays(a), arrays(b), strict=True))

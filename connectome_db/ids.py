"""Lattice positions and ids as 64-bit integers.

    unit code   2 bits axis | 13 bits z | 13 bits y | 13 bits x        (positions are biased by 4096)
    object id              39 bits lattice position | 24 bits local    (below 2**63; 0 is background)

The local number of an object is that of a voxel in its block (see `mint_at`).

Positions lie on a lattice fixed at the dataset's origin, so a volume that grows renumbers nothing.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from connectome_db.errors import StageError
from connectome_db.geometry import Vec3

BIAS = 4096
LOCAL_BITS = 24
_LATTICE_MASK = (1 << 39) - 1


def pack(positions: npt.ArrayLike, axis: npt.ArrayLike = 0) -> npt.NDArray[np.uint64]:
    """Lattice positions (N, 3) as (z, y, x), each in [-4096, 4096), and the face axis (0-2) -> unit codes uint64[N]."""
    pos = np.asarray(positions, dtype=np.int64).reshape(-1, 3) + BIAS
    bad = ((pos < 0) | (pos >= 2 * BIAS)).any(axis=1)
    if bad.any():
        z, y, x = pos[bad][0] - BIAS
        raise StageError(
            f"lattice position ({z}, {y}, {x}) does not fit in 3 x 13 bits: wanted -4096..4095 on each axis; "
            "use larger blocks, or section numbers below 4096"
        )
    p = pos.astype(np.uint64)
    shift = np.uint64(13)
    lattice = (((p[:, 0] << shift) | p[:, 1]) << shift) | p[:, 2]
    return np.asarray((np.asarray(axis, dtype=np.uint64) << np.uint64(39)) | lattice, dtype=np.uint64)


def unpack(codes: npt.ArrayLike) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Unit codes -> (positions int64[N, 3] as (z, y, x), axis int64[N])."""
    c = np.atleast_1d(np.asarray(codes, dtype=np.uint64))
    mask = np.uint64(2 * BIAS - 1)
    parts = [(c >> np.uint64(s)) & mask for s in (26, 13, 0)]
    return np.stack(parts, axis=1).astype(np.int64) - BIAS, (c >> np.uint64(39)).astype(np.int64)


def position_of(code: int) -> Vec3:
    """The lattice position (z, y, x) of one unit code."""
    z, y, x = unpack(np.uint64(code))[0][0]
    return int(z), int(y), int(x)


def mint(code: int, local: npt.ArrayLike) -> npt.NDArray[np.uint64]:
    """Ids of the objects that the unit `code` names 1, 2, ...; local 0 stays 0 (background).

    Raises StageError when a local number does not fit in 24 bits.
    """
    n = np.asarray(local, dtype=np.uint64)
    if n.size and int(n.max()) >= 1 << LOCAL_BITS:
        raise StageError(f"unit {code}: {int(n.max())} objects in one unit; at most 2**24 - 1 fit: use smaller blocks")
    base = np.uint64((int(code) & _LATTICE_MASK) << LOCAL_BITS)
    return np.asarray(np.where(n == 0, np.uint64(0), base | n), dtype=np.uint64)


def mint_at(code: int, voxels: npt.ArrayLike, block_vx: Vec3) -> npt.NDArray[np.uint64]:
    """Ids of objects that the block `code` names by a voxel of each: int64 (N, 3), (z, y, x) in the volume's frame.

    The name depends on that voxel and on nothing else in the block, so an object that does not change keeps its id
    when its neighbours do, or when the volume grows. Of objects that share a voxel, later ones take the next free
    number. Raises StageError when a voxel lies outside the block, or the block has more voxels than 24 bits can count.
    """
    if int(np.prod(block_vx)) >= 1 << LOCAL_BITS:
        raise StageError(f"block_vx {block_vx} (z, y, x): wanted fewer than 2**24 voxels, so that ids can name them")
    place = np.asarray(voxels, dtype=np.int64).reshape(-1, 3) - np.multiply(position_of(code), block_vx)
    if ((place < 0) | (place >= block_vx)).any():
        raise StageError(f"unit {code}: an object is named by a voxel outside its block of {block_vx} (z, y, x)")
    local = 1 + (place[:, 0] * block_vx[1] + place[:, 1]) * block_vx[2] + place[:, 2]
    order = np.argsort(local, kind="stable")
    steps = np.arange(len(local))
    local[order] = np.maximum.accumulate(local[order] - steps) + steps
    return mint(code, local)


def unit_of(ids: npt.ArrayLike) -> npt.NDArray[np.uint64]:
    """The code of the block that minted each id; 0 for background."""
    return np.asarray(np.asarray(ids, dtype=np.uint64) >> np.uint64(LOCAL_BITS), dtype=np.uint64)

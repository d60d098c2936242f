"""Which synapse of one revision is which of another: by id at the same place, else by place.

Ids of synapses name the voxel at the middle of a cleft, so a cleft that was found a voxel further has another id.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.spatial import cKDTree

from connectome_db.revisions import Revision
from connectome_db.versions.identity.history import CLOSE
from connectome_db.versions.identity.overlaps import read_table

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

TOLERANCE_NM = 150.0
"""Synapses farther apart than this are not matched: about half the length of a cleft."""
SCHEMA = pa.schema(
    [
        pa.field("synapse_a", pa.uint64(), nullable=False),
        pa.field("synapse_b", pa.uint64()),
        pa.field("distance_nm", pa.float64()),
        pa.field("relation", pa.string(), nullable=False),
        pa.field("ambiguous", pa.bool_(), nullable=False),
    ]
)


@dataclass(frozen=True)
class _Synapses:
    ids: U64
    place_nm: F64
    size_vx: I64


def match_synapses(a: Revision, b: Revision, tolerance_nm: float = TOLERANCE_NM) -> pa.Table:
    """The synapse of `b` that each synapse of `a` is, one to one; columns as in SCHEMA, sorted by synapse_a.

    Rows with the same id at the same place come first; of the rest, those that are each other's nearest and at most
    `tolerance_nm` apart, over and over until none is left. relation: same (id, place and size), renamed (another id),
    changed (another place or size), vanished. ambiguous: another synapse lies nearly as near (CLOSE), on either side.
    """
    old, new = _synapses(a), _synapses(b)
    partner = _same_place(old, new)
    left = np.flatnonzero(partner < 0)
    free = np.setdiff1d(np.arange(len(new.ids)), partner)
    i, k = mutually_nearest(old.place_nm[left], new.place_nm[free], tolerance_nm)
    partner[left[i]] = free[k]
    found = partner >= 0
    at = partner[found]
    distance = np.full(len(old.ids), np.nan)
    distance[found] = np.linalg.norm(old.place_nm[found] - new.place_nm[at], axis=1)
    equal = (distance[found] == 0) & (old.size_vx[found] == new.size_vx[at])
    relation = np.full(len(old.ids), 3)
    relation[found] = np.where(equal, np.where(old.ids[found] == new.ids[at], 0, 1), 2)
    unsure = np.zeros(len(old.ids), np.bool_)
    unsure[found] = _another_near(old.place_nm[found], new.place_nm, distance[found])
    unsure[found] |= _another_near(new.place_nm[at], old.place_nm, distance[found])
    names = np.zeros(len(old.ids), np.uint64)
    names[found] = new.ids[at]
    return pa.table(
        [
            pa.array(old.ids),
            pa.array(names, mask=~found),
            pa.array(distance, mask=~found),
            pa.array(["same", "renamed", "changed", "vanished"]).take(pa.array(relation)),
            pa.array(unsure),
        ],
        schema=SCHEMA,
    )


def mutually_nearest(x: F64, y: F64, within: float) -> tuple[I64, I64]:
    """Points of x and y (n, 3) that are each other's nearest and at most `within` apart, until none is left: places."""
    left_x, left_y = np.arange(len(x)), np.arange(len(y))
    pairs: list[tuple[I64, I64]] = [(np.zeros(0, np.int64), np.zeros(0, np.int64))]
    while len(left_x) and len(left_y):
        limit = np.nextafter(within, np.inf)  # the tree leaves out what is exactly at its limit
        distance, nearest = (np.asarray(v) for v in cKDTree(y[left_y]).query(x[left_x], distance_upper_bound=limit))
        back = np.asarray(cKDTree(x[left_x]).query(y[left_y])[1])
        at = np.flatnonzero(np.isfinite(distance))
        at = at[back[nearest[at]] == at]
        if len(at) == 0:
            break
        pairs.append((left_x[at], left_y[nearest[at]]))
        left_x, left_y = np.delete(left_x, at), np.delete(left_y, nearest[at])
    return np.concatenate([p[0] for p in pairs]), np.concatenate([p[1] for p in pairs])


def _same_place(old: _Synapses, new: _Synapses) -> I64:
    """Per synapse of `old`, the place in `new` of the one with its id, where both lie on one place; else -1."""
    partner = np.full(len(old.ids), -1, np.int64)
    _, i, k = np.intersect1d(old.ids, new.ids, return_indices=True)
    there = (old.place_nm[i] == new.place_nm[k]).all(axis=1)
    partner[i[there]] = k[there]
    return partner


def _another_near(points: F64, others: F64, distance: F64) -> npt.NDArray[np.bool_]:
    """Whether a second of `others` lies nearly as near to each point as its partner, which is `distance` away."""
    if len(points) == 0 or len(others) < 2:
        return np.zeros(len(points), np.bool_)
    second = np.asarray(cKDTree(others).query(points, k=2)[0])[:, 1]
    return np.asarray((second * CLOSE <= distance) & (distance > 0))


def _synapses(revision: Revision) -> _Synapses:
    columns = ["synapse", "z_vx", "y_vx", "x_vx", "size_vx"]
    rows = read_table(revision, "synapses", "synapse", columns).sort_by("synapse")
    voxel_nm = np.asarray(revision.record("synapses")["voxel_nm"], np.float64)
    place = np.stack([rows[c].to_numpy() for c in columns[1:4]], axis=1).reshape(-1, 3) * voxel_nm
    return _Synapses(rows["synapse"].to_numpy(), place, rows["size_vx"].to_numpy())

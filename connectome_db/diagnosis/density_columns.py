"""Synapses by column of the (y, x) plane, the room for them, and what chance makes of them.

Room is the volume of tissue, or the membrane of the neurites that receive synapses. A thick dendrite or a bundle of
axons leaves little room in its place without any synapse being "missing" there (compare the potential synapses of
Stepanyants and Chklovskii 2005, Trends Neurosci. 28(7)).

What is expected of a column is its room times the density of columns as near to the volume's border: the border cuts
contacts, so that there are fewer synapses along it in every volume.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from connectome_db.diagnosis.cells import BoxNm, Cells, owner_of, voxel_nm
from connectome_db.diagnosis.compare import BORDER_NM

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
MOST_SIDE = 24
"""The plane is binned to at most this many columns a side, so that all boxes can be tried."""
LEAST = 20
"""Fewer synapses than this show no difference between places."""


@dataclass(frozen=True)
class Columns:
    """A plane of columns (height, width) through all sections."""

    count: F64
    """Synapses."""
    room: F64
    """Volume of tissue in um3, or membrane of receiving neurites in um2."""
    stratum: I64
    """How many sides of the volume the column is near to: 0, 1 or 2."""
    low_nm: F64
    """Corner (y, x) of the plane."""
    side_nm: F64
    """Edges (y, x) of a column."""

    @property
    def expected(self) -> F64:
        """Synapses (height, width) if only room and nearness to the border decided."""
        out = np.zeros(self.count.shape)
        for mine in self.strata():
            out[mine] = self.room[mine] * self.count[mine].sum() / max(float(self.room[mine].sum()), 1e-12)
        return out

    def strata(self) -> list[npt.NDArray[np.bool_]]:
        """The columns (height, width) of each stratum that has room."""
        masks = [self.stratum == k for k in np.unique(self.stratum)]
        return [m for m in masks if self.room[m].sum() > 0]

    def null(self, rng: np.random.Generator, draws: int) -> F64:
        """Counts (draws, height, width) by chance alone; each stratum keeps its number of synapses."""
        out = np.zeros((draws, *self.count.shape))
        for mine in self.strata():
            share = self.room[mine] / self.room[mine].sum()
            out[:, mine] = rng.multinomial(round(float(self.count[mine].sum())), share, size=draws)
        return out

    def box_nm(self, y0: int, x0: int, y1: int, x1: int, bounds: BoxNm) -> BoxNm:
        """The box of columns y0 to y1 and x0 to x1 (half open), through all sections and within `bounds`."""
        a = np.maximum(self.low_nm + np.asarray([y0, x0]) * self.side_nm, bounds[1:3])
        b = np.minimum(self.low_nm + np.asarray([y1, x1]) * self.side_nm, bounds[4:])
        return (bounds[0], float(a[0]), float(a[1]), bounds[3], float(b[0]), float(b[1]))


def columns(density: Cells, bounds: BoxNm) -> Columns | None:
    """Columns of `density` (count per volume, with volume as weight); None with too few synapses to tell anything."""
    if len(density) == 0:
        return None
    step = np.median(density.boxes[:, 3:] - density.boxes[:, :3], axis=0)[1:]
    low, high = density.boxes[:, 1:3].min(axis=0), density.boxes[:, 4:].max(axis=0)
    side = np.maximum(1, np.ceil((high - low) / step / MOST_SIDE)) * step
    at = np.floor((density.centres[:, 1:] - low) / side).astype(np.int64)
    shape = (int(at[:, 0].max()) + 1, int(at[:, 1].max()) + 1)
    flat = at[:, 0] * shape[1] + at[:, 1]
    size = shape[0] * shape[1]
    tissue: F64 = np.bincount(flat, density.weight, size).reshape(shape).astype(np.float64)
    count = np.round(np.bincount(flat, density.weight * np.nan_to_num(density.value), size)).reshape(shape)
    if count.sum() < LEAST or tissue.sum() <= 0:
        return None
    near = np.zeros(shape, np.int64)
    for axis in (0, 1):
        centre = low[axis] + (np.arange(shape[axis]) + 0.5) * side[axis]
        close = (centre - bounds[1 + axis] < BORDER_NM) | (bounds[4 + axis] - centre < BORDER_NM)
        near += close[:, None] if axis == 0 else close[None]
    return Columns(count.astype(np.float64), tissue, near, low, side)


def per_membrane(plane: Columns, root: Path) -> Columns | None:
    """The same columns with the membrane of receiving neurites as room; None where the tables do not tell it.

    A neurite receives when a counted synapse ends on it. Its membrane is the area of its contacts with other objects.
    """
    tables = root / "data" / "score" / "contact.parquet", root / "data" / "graph" / "link.parquet"
    if not all(path.is_file() for path in tables):
        return None
    contact = pq.read_table(tables[0], columns=["a", "b", "area_nm2", "y_vx", "x_vx"])
    link = pq.read_table(tables[1], columns=["post", "counted"])
    member = pq.read_table(root / "data" / "agglomerate" / "member.parquet", columns=["supervoxel", "object"])
    names = member["supervoxel"].to_numpy(), member["object"].to_numpy()
    one, other = (owner_of(contact[side].to_numpy(), *names) for side in ("a", "b"))
    receives = np.unique(link["post"].to_numpy()[link["counted"].to_numpy(zero_copy_only=False)])
    kept = (one != other) & (np.isin(one, receives) | np.isin(other, receives))
    place = np.stack([contact[f"{axis}_vx"].to_numpy() for axis in "yx"], axis=1)[kept] * np.asarray(voxel_nm(root)[1:])
    shape = np.asarray(plane.count.shape)
    y, x = np.clip(np.floor((place - plane.low_nm) / plane.side_nm).astype(np.int64), 0, shape - 1).T
    area = np.bincount(y * shape[1] + x, contact["area_nm2"].to_numpy()[kept] * 1e-6, int(shape.prod()))
    room = np.where(plane.room > 0, area.reshape(plane.count.shape), 0.0)
    return replace(plane, room=room) if room.sum() > 0 else None

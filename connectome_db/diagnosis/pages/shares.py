"""How much of the volume, of the synapses and of the connections lies in flagged regions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import pyarrow.parquet as pq

from connectome_db.diagnosis.pages.measured import F64, Quality
from connectome_db.regional.neuroglancer import SixNm

U64 = npt.NDArray[np.uint64]

MOST_EDGES = 256
"""Along each axis; beyond it, the volume is counted on a lattice of this many cells."""


@dataclass(frozen=True)
class Shares:
    """Fractions in flagged regions; None where there is nothing to count."""

    volume: float | None
    synapses: float | None
    synapses_of: int
    connections: float | None
    connections_of: int
    """A connection is in a flagged region when one of its counted synapses is."""


def shares(quality: Quality) -> Shares:
    """What part lies in regions flagged as serious or warning, in the direction that costs quality."""
    boxes = [f.box_nm for f in quality.flags or () if f.alarming]
    volume = None if quality.hull_nm is None else volume_share(boxes, quality.hull_nm)
    made = quality.revision.stages
    if "synapses" not in made or quality.voxel_nm is None:
        return Shares(volume, None, 0, None, 0)
    root = quality.revision.root / "data"
    rows = pq.read_table(root / "synapses" / "synapse.parquet", columns=["synapse", "z_vx", "y_vx", "x_vx"])
    places = np.stack([(rows[f"{a}_vx"].to_numpy() + 0.5) * s for a, s in zip("zyx", quality.voxel_nm, strict=True)], 1)
    flagged = inside(places, boxes)
    n = len(flagged)
    connections, of = None, 0
    if "graph" in made:
        link = pq.read_table(root / "graph" / "link.parquet", columns=["synapse", "pre", "post", "counted"])
        link = link.filter(pc.field("counted"))
        bad = np.isin(link["synapse"].to_numpy(), rows["synapse"].to_numpy()[flagged])
        pairs = np.stack([link["pre"].to_numpy(), link["post"].to_numpy()], axis=1).astype(np.uint64)
        connections, of = connection_share(pairs, bad)
    return Shares(volume, float(flagged.mean()) if n else None, n, connections, of)


def connection_share(pairs: U64, bad: npt.NDArray[np.bool_]) -> tuple[float | None, int]:
    """Of the distinct rows of `pairs` uint64[N, 2], the part that has a `bad` row; and how many there are."""
    if not len(pairs):
        return None, 0
    known, which = np.unique(pairs, axis=0, return_inverse=True)
    touched = np.zeros(len(known), np.bool_)
    touched[which.reshape(-1)[bad]] = True
    return float(touched.mean()), len(known)


def inside(places_nm: F64, boxes: Sequence[SixNm]) -> npt.NDArray[np.bool_]:
    """Which of `places_nm` float64[N, 3] (z, y, x) lie in at least one box."""
    found = np.zeros(len(places_nm), np.bool_)
    for box in boxes:
        found |= ((places_nm >= box[:3]) & (places_nm < box[3:])).all(axis=1)
    return found


def volume_share(boxes: Sequence[SixNm], whole: SixNm) -> float:
    """The part of `whole` that the union of boxes covers. Exact up to MOST_EDGES distinct faces along each axis."""
    if not boxes:
        return 0.0
    every = np.asarray(boxes, dtype=np.float64)
    edges = []
    for k in range(3):
        faces = np.unique(np.clip(np.concatenate([every[:, k], every[:, k + 3], [whole[k], whole[k + 3]]]),
                                  whole[k], whole[k + 3]))  # fmt: skip
        edges.append(faces if len(faces) <= MOST_EDGES else np.linspace(whole[k], whole[k + 3], MOST_EDGES + 1))
    middles = [(e[1:] + e[:-1]) / 2 for e in edges]
    covered = np.zeros([len(m) for m in middles], np.bool_)
    for box in every:
        z, y, x = (slice(*np.searchsorted(m, (box[k], box[k + 3])).tolist()) for k, m in enumerate(middles))
        covered[z, y, x] = True
    size = np.einsum("i,j,k->ijk", *(np.diff(e) for e in edges))
    return float(size[covered].sum() / size.sum())

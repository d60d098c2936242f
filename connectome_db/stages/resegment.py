"""Bodies that touch, filled once more from each side, to see whether the network goes over into the other.

    contacts of the block ── pairs of fragments that may be one neuron ── a crop around the largest contact of each
    crop ── the two fragments free, all others in the way ── filled from either side ── how much of the other it has

Resegmentation at decision points of Januszewski et al. 2018 (10.1038/s41592-018-0049-4). `agglomerate` weighs what came
of it against affinity: a body seldom ends at a membrane, so affinity says little of where two bodies meet.

Fragments are those that accepted overlaps of the faces around the block make: a block hangs on its neighbourhood alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import fastremap
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from connectome_db import plans
from connectome_db.errors import StageError
from connectome_db.geometry import Box, Vec3
from connectome_db.kernels.resegment import Refilling, Resegmentation, resegment
from connectome_db.kernels.union_find import locate, lowest_names
from connectome_db.schema.flooding import RESEGMENTATION
from connectome_db.spec import Block, Found, Plan, Result, Rows, Stage
from connectome_db.stages.filling import Count, FillingParams

IMAGE, MASK, SUPERVOXELS = "render.image", "mask.mask", "segment.supervoxels"
OVERLAP, CONTACT = "overlap.overlap", "score.contact"
Extent = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]


class ResegmentParams(FillingParams):
    """Parameters of `resegment`."""

    block_vx: tuple[Extent, Extent, Extent] = (128, 128, 128)
    """Voxels (z, y, x) of the blocks whose contacts are judged together: equal to score.block_vx."""
    radius_vx: tuple[Extent, Extent, Extent] = (32, 32, 32)
    """What is filled around a contact (z, y, x, on each side): at least half the network's window; the seed lies within
    radius_vx less that half."""
    from_affinity: Fraction = 0.2
    """Pairs of fragments with a mean affinity below this are not judged; 1 judges none."""
    min_size_vx: Count = 1000
    """Nor are pairs of which one has fewer voxels around the contact: a window sees little of it."""
    enough: Fraction = 0.5
    """Share of its own fragment that a filling must get back, or another seed is tried."""
    tries: Extent = 2
    """Seeds of a fragment."""
    seed_distance_vx: tuple[Count, Count, Count] = (4, 4, 4)
    """The next seed lies outside of this box (z, y, x) around those tried."""


def plan(found: Found, params: ResegmentParams) -> Plan:
    """The blocks of `score`, each with what lies within the radius of its contacts."""
    params.options()
    bounds = found.inputs[SUPERVOXELS].bounds
    blocks = plans.grid(bounds, params.block_vx)
    cores = found.inputs[CONTACT].boxes
    if len(cores) != len(blocks.cores) or (cores != blocks.cores).any():
        raise StageError(
            f"resegment.block_vx {params.block_vx}: wanted the blocks of score.block_vx (z, y, x), whose contacts it "
            "judges; set both to one value"
        )
    # A face lies half a voxel below the voxel that counts it.
    around = plans.clip(plans.grow(blocks.cores, _more(params.radius_vx), params.radius_vx), bounds)
    reads = ((name, around) for name in (IMAGE, MASK, SUPERVOXELS, OVERLAP))
    return plans.reading(blocks, *reads, (CONTACT, blocks.cores))


def _more(radius_vx: Vec3) -> Vec3:
    z, y, x = radius_vx
    return z + 1, y + 1, x + 1


@dataclass(frozen=True)
class _Around:
    """What a block reads, with half a window of mirror on each side: windows come near the border of the dataset."""

    image: npt.NDArray[np.uint8]
    tissue: npt.NDArray[np.bool_]
    fragment: npt.NDArray[np.int32]
    """Fragments by number from 1 on; 0 = no supervoxel."""
    origin: Vec3
    """The first voxel, in the dataset."""

    def crop(self, point: Vec3, radius_vx: Vec3) -> Box:
        """The box around a point of the dataset, as far as there is anything."""
        z, y, x = point
        whole = Box((0, 0, 0), self.image.shape).shift(self.origin)
        return Box((z, y, x), (z + 1, y + 1, x + 1)).grow(radius_vx).clip(whole)


def compute(block: Block[ResegmentParams]) -> Result:
    """Every pair of fragments in contact that is judged, and what came of it."""
    params = block.params
    network = params.stepped(block.window, "resegment")
    z, y, x = (extent // 2 for extent in network.fov_vx)
    if any(r < h for r, h in zip(params.radius_vx, (z, y, x), strict=True)):
        raise StageError(
            f"resegment.radius_vx {params.radius_vx}: wanted at least half the window of {network.model_id}, "
            f"{(z, y, x)} (z, y, x), or it fits nowhere; raise radius_vx"
        )
    ids, fragment = _fragments(block)
    around = _around(block, ids, fragment, (z, y, x))
    options = params.options(min_segment_vx=1)
    how = Refilling(network, options, block.voxel_nm, params.enough, params.tries, params.seed_distance_vx)
    rows: list[dict[str, object]] = []
    for contact, pair in _candidates(block, ids, fragment):
        point = _point(contact)
        crop = around.crop(point, params.radius_vx)
        inside = crop.slices(around.origin)
        labels = around.fragment[inside]
        a, b = (labels == number for number in pair)
        size = [int(np.count_nonzero(mask)) for mask in (a, b)]
        if min(size) < max(params.min_size_vx, 1):
            continue
        free = around.tissue[inside] & (a | b | (labels == 0))
        image = np.ascontiguousarray(around.image[inside])
        rows.append(_row(contact, point, size, resegment(image, free, a, b, how), crop.lo))
    return {"resegmentation": pa.Table.from_pylist(rows, schema=RESEGMENTATION.arrow())}


def _fragments(block: Block[ResegmentParams]) -> tuple[U64, I64]:
    """Supervoxels of what is read, ascending, and the number, from 1 on, of the fragment of each."""
    found = fastremap.unique(block.arrays[SUPERVOXELS])
    ids: U64 = found[found != 0].astype(np.uint64)
    joined = block.tables[OVERLAP]
    joined = joined.filter(joined["accepted"])
    a, b = joined["a"].to_numpy(), joined["b"].to_numpy()
    seen = np.isin(a, ids) & np.isin(b, ids)
    _, number = np.unique(lowest_names(ids, a[seen], b[seen], "supervoxel"), return_inverse=True)
    return ids, number.astype(np.int64) + 1


def _around(block: Block[ResegmentParams], ids: U64, fragment: I64, half: Vec3) -> _Around:
    image, tissue = block.params.shown(block.arrays[IMAGE], block.arrays[MASK])
    labels = block.arrays[SUPERVOXELS]
    number = np.concatenate([[0], fragment]).astype(np.int32)[
        np.where(labels != 0, np.searchsorted(ids, labels) + 1, 0)
    ]
    margins = [(n, n) for n in half]
    z, y, x = (low - n for low, n in zip(block.boxes[SUPERVOXELS].lo, half, strict=True))
    return _Around(
        np.pad(image, margins, mode="symmetric"), np.pad(tissue, margins), np.pad(number, margins), (z, y, x)
    )


def _candidates(
    block: Block[ResegmentParams], ids: U64, fragment: I64
) -> Iterator[tuple[dict[str, Any], tuple[int, int]]]:
    """The largest contact of every pair of fragments that may be one, and the numbers of the two as it names them."""
    contact = block.tables[CONTACT]
    try:
        ends = [fragment[locate(ids, contact[side].to_numpy(), "supervoxel")] for side in ("a", "b")]
    except KeyError as error:
        raise StageError(f"contact names a supervoxel that segment did not make: {error.args[0]}") from error
    area = contact["area_nm2"].to_numpy()
    low, high = np.minimum(*ends), np.maximum(*ends)
    order = np.lexsort((np.arange(len(area)), -area, high, low))
    order = order[low[order] != high[order]]
    key = (low * (len(ids) + 1) + high)[order]
    _, first, index = np.unique(key, return_index=True, return_inverse=True)
    total = np.bincount(index, area[order], len(first))
    mean = np.bincount(index, (area * contact["affinity"].to_numpy())[order], len(first)) / np.maximum(total, 1e-9)
    chosen = order[first[mean >= block.params.from_affinity]] if block.params.from_affinity < 1 else order[:0]
    for i in np.sort(chosen).tolist():
        yield contact.slice(i, 1).to_pylist()[0], (int(ends[0][i]), int(ends[1][i]))


def _point(contact: Mapping[str, Any]) -> Vec3:
    """The voxel in the middle of a contact."""
    z, y, x = (math.floor(contact[f"{axis}_vx"] + 0.5) for axis in "zyx")
    return z, y, x


def _row(
    contact: Mapping[str, Any], point: Vec3, size: Sequence[int], done: Resegmentation, origin: Vec3
) -> dict[str, object]:
    row: dict[str, object] = {"a": contact["a"], "b": contact["b"], "iou": done.iou}
    row |= {f"{axis}_vx": n for axis, n in zip("zyx", point, strict=True)}
    for side, voxels, refill in zip("ab", size, (done.a, done.b), strict=True):
        row |= {f"{side}_vx": voxels, f"{side}_moves": refill.moves}
        row |= {f"{side}_own": refill.own, f"{side}_other": refill.other}
        for k, axis in enumerate("zyx"):
            row[f"{side}_seed_{axis}_vx"] = None if refill.seed is None else refill.seed[k] + origin[k]
    return row


STAGE = Stage(
    name="resegment",
    summary="Fragments in contact filled once more from each side: is it one neuron?",
    params=ResegmentParams,
    inputs=(IMAGE, MASK, SUPERVOXELS, OVERLAP, CONTACT),
    outputs=(Rows(table=RESEGMENTATION),),
    plan=plan,
    compute=compute,
    network="ffn",
)

"""Image -> bodies, block by block, by a flood-filling network (Januszewski et al. 2018, 10.1038/s41592-018-0049-4).

    read   core grown by `halo_vx`: the window of the network reaches into it, and bodies are followed into it
      ├── aprons: what this block says about the first voxels of its upper neighbours, for `overlap`
      └── core: the only voxels this block writes

Bodies are the evidence; what is done with voxels that no body has is decided by `segment`, so that a change of mind
there fills nothing again. At the border of the dataset the image is mirrored, as the window could else not come near.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from connectome_db import ids, plans
from connectome_db.errors import StageError
from connectome_db.geometry import Box, Vec3
from connectome_db.kernels.aprons import apron_rows
from connectome_db.kernels.consensus import split_consensus
from connectome_db.kernels.flood import flood
from connectome_db.kernels.flood_seeds import APART_VX, Order, boundary_peaks
from connectome_db.kernels.flood_types import Flooded, FloodOptions
from connectome_db.schema.flooding import FLOOD_APRON, FLOOD_BODY, FLOOD_OBJECT, FLOOD_OVERLAP, FLOOD_SKIP
from connectome_db.spec import Block, Found, Plan, Result, Rows, Stage, Volume, Window
from connectome_db.stages.filling import Count, FillingParams

IMAGE, MASK = "render.image", "mask.mask"
U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Extent = Annotated[int, Field(ge=1)]


class FloodParams(FillingParams):
    """Parameters of `flood`."""

    block_vx: tuple[Extent, Extent, Extent] = (128, 128, 128)
    """Voxels (z, y, x) that one block writes: larger blocks waste less on the halo, cut fewer bodies, and need more
    memory; equal to segment.block_vx."""
    halo_vx: tuple[Count, Count, Count] = (24, 24, 24)
    """Context (z, y, x) read on each side: at least half the network's window, and what bodies are compared on."""
    apron_vx: tuple[Extent, Extent, Extent] = (8, 8, 8)
    """Thickness (z, y, x) of the slabs beyond the upper faces that are compared with the neighbours' own result."""
    order: Order = "forward"
    """Order of the seeds: which of two objects that claim a voxel has it."""
    consensus: bool = False
    """Fill a second time with the seeds in the other order, and keep together only what both runs do: fewer false
    mergers, at twice the cost."""
    seed_distance_vx: tuple[Count, Count, Count] = (1, 1, 1)
    """A seed with an earlier object within this box (z, y, x) is not used."""
    min_body_vx: Count = 1000
    """Objects with fewer voxels of their own are dropped."""
    probe_moves: Count = 0
    """After this many moves an object must have `probe_voxels`, or it is given up; 0 = never."""
    probe_voxels: Count = 0
    """See `probe_moves`."""
    max_moves: Count = 0
    """An object is cut off after this many moves and kept as it is; 0 = never."""


def plan(found: Found, params: FloodParams) -> Plan:
    """Blocks over the image; each reads its core grown by the halo."""
    if any(a > h for a, h in zip(params.apron_vx, params.halo_vx, strict=True)):
        raise StageError(
            f"flood.apron_vx {params.apron_vx}: wanted at most halo_vx {params.halo_vx} (z, y, x), which is all that a "
            "block sees of its neighbours; lower apron_vx or raise halo_vx"
        )
    options_of(params)
    bounds = found.inputs[IMAGE].bounds
    blocks = plans.grid(bounds, params.block_vx)
    reads = plans.halo(blocks.cores, params.halo_vx, bounds)
    return plans.reading(blocks, (IMAGE, reads), (MASK, reads))


def options_of(params: FloodParams) -> FloodOptions:
    """The parameters as the engine takes them; those that contradict each other are a StageError."""
    return params.options(
        min_boundary_dist_vx=params.seed_distance_vx,
        min_segment_vx=params.min_body_vx,
        probe_moves=params.probe_moves,
        probe_voxels=params.probe_voxels,
        max_moves=params.max_moves,
    )


def compute(block: Block[FloodParams]) -> Result:
    """Bodies and aprons of one block, and what became of every seed."""
    params, core, box = block.params, block.unit.core, block.boxes[IMAGE]
    image, tissue = params.shown(block.arrays[IMAGE], block.arrays[MASK])
    network = params.stepped(block.window, "flood")
    margins = _margins(network, core, box, params.halo_vx)
    orders: tuple[Order, ...] = (params.order,)
    if params.consensus:
        orders += ("backward" if params.order == "forward" else "forward",)
    runs = {order: _fill(image, tissue, margins, network, order, options_of(params)) for order in orders}
    labels, pairs = _bodies(list(runs.values()), margins, params)
    inside = core.slices(box.lo)
    present, first = np.unique(labels[inside], return_index=True)
    present, first = present[present != 0], first[present != 0]
    voxels = np.stack(np.unravel_index(first, core.shape), axis=1) + np.asarray(core.lo)
    minted = np.zeros(int(labels.max(initial=0)) + 1, np.uint64)
    minted[present] = ids.mint_at(block.unit.code, voxels, params.block_vx)  # by its first voxel in the core
    names = minted[labels]
    origin = np.asarray(box.lo) - [low for low, _ in margins]
    return {
        "bodies": names[inside],
        "flood_body": _body_rows(labels, present, minted, inside, pairs, list(runs.values()), origin),
        "flood_object": _object_rows(runs, origin),
        "flood_overlap": _overlap_rows(runs, origin),
        "flood_skip": _skip_rows(runs),
        "flood_apron": apron_rows(names, box, core, params.apron_vx, FLOOD_APRON),
    }


def _margins(network: Window, core: Box, box: Box, halo_vx: Vec3) -> list[tuple[int, int]]:
    """Voxels by which the image is mirrored below and above on each axis: half a window where the dataset ends."""
    half = [extent // 2 for extent in network.fov_vx]
    if any(h > halo for h, halo in zip(half, halo_vx, strict=True)):
        raise StageError(
            f"flood.halo_vx {halo_vx}: wanted at least half the window of {network.model_id}, {tuple(half)} (z, y, x); "
            "windows would else not reach the block's own border; raise halo_vx"
        )
    return [
        (h if core.lo[k] - halo_vx[k] < box.lo[k] else 0, h if core.hi[k] + halo_vx[k] > box.hi[k] else 0)
        for k, h in enumerate(half)
    ]


def _fill(
    image: U8, tissue: Mask, margins: list[tuple[int, int]], network: Window, order: Order, options: FloodOptions
) -> Flooded:
    """Fill the image from its own seeds; in the mirrored margin there are none, and windows do not move there."""
    seeds = _peaks(image, tissue, order) + np.array([low for low, _ in margins], np.int64)
    seen = np.pad(image, margins, mode="symmetric")
    allowed = np.pad(tissue, margins, constant_values=False)
    return flood(seen, network, seeds, options, allowed)


def _peaks(image: U8, tissue: Mask, order: Order) -> I64:
    """Seeds of the image. No seed lies within APART_VX of its border, so one that is thin is mirrored before, and a
    seed in the mirror stands for the voxel that it shows."""
    thin = [APART_VX if n <= 2 * APART_VX else 0 for n in image.shape]
    pads = [(t, t) for t in thin]
    found = boundary_peaks(np.pad(image, pads, mode="symmetric"), np.pad(tissue, pads, mode="symmetric"), order) - thin
    last = np.array(image.shape) - 1
    found = np.where(found < 0, -1 - found, np.where(found > last, 2 * last + 1 - found, found))
    first: I64 = np.sort(np.unique(found, axis=0, return_index=True)[1])
    seeds: I64 = found[first]
    return seeds


def _bodies(runs: list[Flooded], margins: list[tuple[int, int]], params: FloodParams) -> tuple[U32, I64]:
    """Labels of what the block reads, and (n, 2) the label of each in the two runs, or twice that in the only one."""
    real = tuple(slice(low, -high or None) for low, high in margins)
    labels = [run.labels[real] for run in runs]
    if len(labels) == 2:
        return split_consensus(labels[0], labels[1], params.min_body_vx)
    own = np.arange(1, int(labels[0].max(initial=0)) + 1)
    return labels[0], np.stack([own, own], axis=1)


def _seeds(run: Flooded, origin: I64) -> I64:
    """Seed (z, y, x) in the dataset of each label 1, 2, ... of a run."""
    kept = sorted((o.label, o.seed) for o in run.objects if o.label)
    return np.array([seed for _, seed in kept], np.int64).reshape(-1, 3) + origin


def _body_rows(
    labels: U32, present: U32, minted: U64, inside: tuple[slice, ...], pairs: I64, runs: list[Flooded], origin: I64
) -> pa.Table:
    n = int(labels.max(initial=0)) + 1
    size = np.bincount(labels[inside].ravel(), minlength=n)[present]
    read = np.bincount(labels.ravel(), minlength=n)[present]
    chosen = pairs[present.astype(np.int64) - 1]
    first = _seeds(runs[0], origin)[chosen[:, 0] - 1]
    columns: dict[str, object] = {"body": minted[present], "size_vx": size, "read_vx": read}
    columns |= {f"seed_{axis}_vx": first[:, k] for k, axis in enumerate("zyx")}
    second = _seeds(runs[1], origin)[chosen[:, 1] - 1] if len(runs) == 2 else None
    for k, axis in enumerate("zyx"):
        columns[f"second_seed_{axis}_vx"] = [None] * len(present) if second is None else second[:, k]
    schema = FLOOD_BODY.arrow()
    return pa.table([pa.array(columns[name]).cast(schema.field(name).type) for name in schema.names], schema=schema)


def _object_rows(runs: dict[Order, Flooded], origin: I64) -> pa.Table:
    rows = [
        {
            "direction": order,
            **_at("seed_", o.seed, origin),
            "overlap_vx": sum(shared for _, shared in o.overlaps),
            **{name: getattr(o, name) for name in ("moves", "voxels", "reason", "low", "border", "no_tissue", "taken")},
        }
        for order, run in runs.items()
        for o in run.objects
    ]
    return pa.Table.from_pylist(rows, schema=FLOOD_OBJECT.arrow())


def _overlap_rows(runs: dict[Order, Flooded], origin: I64) -> pa.Table:
    rows = []
    for order, run in runs.items():
        seed = {o.label: o.seed for o in run.objects if o.label}
        rows += [
            {
                "direction": order,
                **_at("seed_", o.seed, origin),
                **_at("other_", seed[label], origin),
                "overlap_vx": shared,
            }
            for o in run.objects
            for label, shared in o.overlaps
        ]
    return pa.Table.from_pylist(rows, schema=FLOOD_OVERLAP.arrow())


def _skip_rows(runs: dict[Order, Flooded]) -> pa.Table:
    rows = [
        {"direction": order, "reason": reason, "seeds": seeds}
        for order, run in runs.items()
        for reason, seeds in run.skipped.items()
    ]
    return pa.Table.from_pylist(rows, schema=FLOOD_SKIP.arrow())


def _at(prefix: str, place: Vec3, origin: I64) -> dict[str, int]:
    return {f"{prefix}{axis}_vx": int(place[k] + origin[k]) for k, axis in enumerate("zyx")}


STAGE = Stage(
    name="flood",
    summary="Flood-filling network: bodies, and what became of every seed.",
    params=FloodParams,
    inputs=(IMAGE, MASK),
    outputs=(
        Volume(name="bodies", dtype="uint64", kind="segmentation", doc="Body ids, 0 = filled by none."),
        Rows(table=FLOOD_BODY),
        Rows(table=FLOOD_OBJECT),
        Rows(table=FLOOD_OVERLAP),
        Rows(table=FLOOD_SKIP),
        Rows(table=FLOOD_APRON),
    ),
    plan=plan,
    compute=compute,
    network="ffn",
)

"""Synthetic EM tissue with truth: dense neurites, membranes, organelles, synapses with partners, the graph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from connectome_db.phantom.contacts import Painted, Pieces, Site, paint_clefts, pieces, place_synapses
from connectome_db.phantom.lean import straighten
from connectome_db.phantom.paint import paint
from connectome_db.phantom.partition import partition, warp_field
from connectome_db.phantom.paths import AXON, Balls, grow


class Sparseness(BaseModel):
    """Fewer synapses towards one corner, in every section: a true gradient of the tissue, which no artefact made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    corner: tuple[int, int] = (1, 1)
    """0 or 1 for (y, x): (0, 0) is the top left corner."""
    reach: float = Field(default=0.6, gt=0, le=1)
    """Share of each edge over which it fades out."""
    strength: float = Field(default=0.8, ge=0, le=1)
    """Share of the synapses that are not there, in the corner itself."""
    plateau: float = Field(default=0.0, ge=0, lt=1)
    """Share of the reach over which all of the strength holds, before it fades out."""


class TissueConfig(BaseModel):
    """What to grow. The same configuration gives the same bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = 7
    """Every random number comes from it."""
    shape_vx: tuple[int, int, int] = (48, 480, 480)
    """Size (z, y, x) of the volume."""
    voxel_nm: tuple[int, int, int] = (30, 8, 8)
    """Section thickness and pixel size (z, y, x)."""
    dendrite_radius_nm: tuple[float, float] = (230.0, 350.0)
    """Mean radius of a dendrite is drawn from this range."""
    axon_radius_nm: tuple[float, float] = (95.0, 160.0)
    """Mean radius of an axon between its boutons is drawn from this range."""
    dendrite_fraction: float = Field(default=0.36, ge=0, le=1)
    """Share of the volume given to dendrites, before packing."""
    spines_per_um: float = Field(default=0.7, ge=0)
    """Spines per micrometre of dendrite."""
    wall_warp_nm: float = Field(default=14.0, ge=0, le=30)
    """Standard deviation of the irregularity of cell borders."""
    gap_nm: float = Field(default=8.0, ge=0)
    """Voxels nearer than this to a border are membrane or extracellular: label 0."""
    dust_vx: int = Field(default=2500, ge=1)
    """Pieces of a neurite smaller than this get label 0: nobody could be asked to find them."""
    synapses_per_um3: float = Field(default=6.0, ge=0)
    """Wanted density. Several times cortex's, so that a small volume has edges with more than one synapse."""
    synapse_apart_nm: float = Field(default=400.0, ge=250)
    """Centres of synapses keep this distance; their radius is 120 to 185 nm."""
    sparseness: Sparseness | None = None
    """Without it the density is the same everywhere."""
    noise_grey: float = Field(default=11.0, ge=0)
    """Standard deviation of detector noise at mid grey, in grey levels."""


@dataclass(frozen=True)
class Tissue:
    """A volume and everything true about it. All arrays are (z, y, x)."""

    config: TissueConfig
    image: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint32]
    """1..n, each 6-connected in the volume; 0 = membrane, extracellular or dust."""
    cleft: npt.NDArray[np.uint32]
    """Synapse id on cleft voxels, 0 elsewhere."""
    synapses: pa.Table
    """synapse, z, y, x (centroid, voxels), pre, post, area_nm2, cleft_vx; sorted by synapse."""
    graph: pa.Table
    """pre, post, synapses, area_nm2; sorted by (pre, post)."""
    neurites: pa.Table
    """label, neurite (which grown path it is a piece of), axon (bool), size_vx."""


SYNAPSE_SCHEMA = pa.schema(
    [
        ("synapse", pa.uint64()),
        ("z", pa.float64()),
        ("y", pa.float64()),
        ("x", pa.float64()),
        ("pre", pa.uint64()),
        ("post", pa.uint64()),
        ("area_nm2", pa.float64()),
        ("cleft_vx", pa.int64()),
    ]
)


def graph_of(pre: npt.NDArray[np.uint64], post: npt.NDArray[np.uint64], area_nm2: npt.NDArray[np.float64]) -> pa.Table:
    """Directed edges with synapse counts and summed areas, sorted by (pre, post), from one row per synapse."""
    pairs, inverse, counts = np.unique(np.stack([pre, post], axis=1), axis=0, return_inverse=True, return_counts=True)
    total = np.bincount(inverse.ravel(), weights=area_nm2, minlength=len(pairs))
    return pa.table({"pre": pairs[:, 0], "post": pairs[:, 1], "synapses": counts.astype(np.int64), "area_nm2": total})


def make_tissue(config: TissueConfig) -> Tissue:
    """Grow, partition, connect and paint. 48 x 480 x 480 takes some 15 s on one core and less than 1 GB."""
    rng = np.random.default_rng([config.seed, 0x7155])
    extent_nm = np.asarray(config.shape_vx, np.float64) * np.asarray(config.voxel_nm, np.float64)
    balls = grow(
        rng,
        extent_nm,
        pad_nm=400.0,
        dendrite_radius_nm=config.dendrite_radius_nm,
        axon_radius_nm=config.axon_radius_nm,
        dendrite_fraction=config.dendrite_fraction,
        spines_per_um=config.spines_per_um,
    )
    balls = straighten(balls, extent_nm)
    warp_nm = warp_field(rng, extent_nm, config.wall_warp_nm)
    part = partition(balls, config.shape_vx, config.voxel_nm, warp_nm)
    cut = pieces(balls, part, config.gap_nm, config.dust_vx)
    if cut.dust_balls.any():
        # Give the room of specks to their neighbours, so that the image shows no cell that the truth leaves out.
        balls = balls.keep(~cut.dust_balls)
        part = partition(balls, config.shape_vx, config.voxel_nm, warp_nm)
        cut = pieces(balls, part, config.gap_nm, config.dust_vx)
    sites = place_synapses(rng, balls, part, cut, config.voxel_nm, config.synapses_per_um3, config.synapse_apart_nm)
    if config.sparseness is not None:
        sites = _thinned(sites, config, config.sparseness)
    painted = paint_clefts(sites, part, cut, config.voxel_nm)
    image = paint(rng, balls, part, cut, painted, config.voxel_nm, config.noise_grey)
    return _tissue(config, balls, cut, painted, image)


def _thinned(sites: list[Site], config: TissueConfig, sparse: Sparseness) -> list[Site]:
    """Leave out synapses towards the corner; those that stay are where they are without the gradient."""
    keep = np.random.default_rng([config.seed, 0x5BA5]).random(len(sites))
    out = []
    for site, draw in zip(sites, keep.tolist(), strict=True):
        away = 0.0
        for axis in (1, 2):
            share = site.centre_nm[axis] / (config.shape_vx[axis] * config.voxel_nm[axis])
            away += (((1 - share) if sparse.corner[axis - 1] else share) / sparse.reach) ** 2
        ramp = min(1.0, max(0.0, 1 - float(np.sqrt(away))) / (1 - sparse.plateau))
        if draw >= sparse.strength * ramp * ramp * (3 - 2 * ramp):
            out.append(site)
    return out


def _tissue(config: TissueConfig, balls: Balls, cut: Pieces, painted: Painted, image: npt.NDArray[np.uint8]) -> Tissue:
    columns = list(zip(*painted.rows, strict=True)) or [()] * 7
    ids = np.arange(1, len(painted.rows) + 1, dtype=np.uint64)
    synapses = pa.table([ids, *[np.asarray(c) for c in columns]], names=SYNAPSE_SCHEMA.names).cast(SYNAPSE_SCHEMA)
    graph = graph_of(
        synapses["pre"].to_numpy(), synapses["post"].to_numpy(), np.asarray(synapses["area_nm2"].to_numpy(), np.float64)
    )
    neurite = cut.neurite[1:]
    neurites = pa.table(
        {
            "label": np.arange(1, len(cut.neurite), dtype=np.uint64),
            "neurite": neurite,
            "axon": balls.role[neurite] == AXON,
            "size_vx": np.bincount(cut.labels.ravel(), minlength=len(cut.neurite))[1:],
        }
    )
    return Tissue(config, image, cut.labels, painted.cleft, synapses, graph, neurites)

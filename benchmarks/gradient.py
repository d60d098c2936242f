"""How often a gradient of synapses is found where there is one, and where there is none, over many grown tissues.

    python -m benchmarks.gradient FOLDER [--small 22] [--large 10]

A whole case of `diagnosis_cases` takes minutes; growing a tissue and placing its synapses takes seconds. So the test of
`connectome_db.diagnosis.density_trend` is judged on the synapses themselves: a share `FOUND` of them, drawn by chance,
about as many as the pipeline finds; everywhere alike, and thinned out towards a corner as in the biology cases. Voxels
are 30 x 16 x 16 nm.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from connectome_db.diagnosis.density_columns import Columns
from connectome_db.diagnosis.density_trend import thins_out
from connectome_db.phantom.contacts import half_thickness_nm, pieces, place_synapses
from connectome_db.phantom.partition import partition, warp_field
from connectome_db.phantom.paths import grow
from connectome_db.phantom.tissue import TissueConfig

SHAPES = {"small": (24, 192, 192), "large": (32, 256, 256)}
FIRST_SEED = {"small": 60000, "large": 70000}
FINE, SIDE = 16, 32
"""Pixels of the columns that are stored, and of those that are tested (512 nm)."""
FOUND = 0.62
ALIKE, THINNED = 4, 6
"""Draws of each kind per tissue."""
DRAWS = 199
Grown = dict[str, npt.NDArray[Any]]


def grown(kind: str, seed: int, folder: Path) -> Grown:
    """Synapses, volume and contacts of one tissue; kept in `folder`."""
    path = folder / f"{kind}{seed}.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(path, **_grow(TissueConfig(
            seed=seed, shape_vx=SHAPES[kind], voxel_nm=(30, 16, 16), synapses_per_um3=20, synapse_apart_nm=320
        )))  # fmt: skip
    with np.load(path) as kept:
        return {name: kept[name] for name in kept.files}


def _grow(config: TissueConfig) -> Grown:
    rng = np.random.default_rng([config.seed, 0x7155])
    extent = np.asarray(config.shape_vx, float) * np.asarray(config.voxel_nm, float)
    balls = grow(
        rng, extent, pad_nm=400.0, dendrite_radius_nm=config.dendrite_radius_nm, axon_radius_nm=config.axon_radius_nm,
        dendrite_fraction=config.dendrite_fraction, spines_per_um=config.spines_per_um,
    )  # fmt: skip
    part = partition(balls, config.shape_vx, config.voxel_nm, warp_field(rng, extent, config.wall_warp_nm))
    cut = pieces(balls, part, config.gap_nm, config.dust_vx // 4)
    sites = place_synapses(rng, balls, part, cut, config.voxel_nm, config.synapses_per_um3, config.synapse_apart_nm)
    n = config.shape_vx[1] // FINE
    volume = (cut.labels > 0).sum(axis=0).reshape(n, FINE, n, FINE).sum(axis=(1, 3))
    z, y, x = np.nonzero(part.wall_nm < half_thickness_nm(part, config.voxel_nm, 6.0))
    a, b = cut.of_ball[part.first[z, y, x]], cut.of_ball[part.second[z, y, x]]
    real = (a > 0) & (b > 0) & (a != b)
    column = (y // FINE * n + x // FINE)[real]
    lower, upper = np.minimum(a, b)[real], np.maximum(a, b)[real]
    pair, count = np.unique(np.stack([column, lower, upper]), axis=1, return_counts=True)
    return {
        "at": np.array([s.centre_nm for s in sites]), "pre": np.array([s.pre for s in sites]),
        "post": np.array([s.post for s in sites]), "vol": volume, "pair": pair, "cnt": count,
        "shape": np.asarray(config.shape_vx),
    }  # fmt: skip


def thinned(tissue: Grown, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Which synapses stay in a gradient as strong, and reaching as far, as those of the biology cases."""
    extent = tissue["shape"][1] * 16.0
    reach, strength = rng.uniform(0.75, 0.9), rng.uniform(0.85, 0.95)
    share = tissue["at"][:, 1:] / extent
    share = np.where(rng.integers(0, 2, 2) == 1, 1 - share, share)
    ramp = np.clip((1 - np.hypot(*(share / reach).T)) / 0.4, 0, 1)
    stays: npt.NDArray[np.bool_] = rng.random(len(share)) >= strength * ramp * ramp * (3 - 2 * ramp)
    return stays


def p_value(tissue: Grown, kept: npt.NDArray[np.bool_], rng: np.random.Generator) -> float:
    """As `density_trend.gradient`, from the tissue's own tables."""
    n = int(tissue["shape"][1]) // SIDE
    fine = int(tissue["shape"][1]) // FINE
    at = np.minimum((tissue["at"][kept, 1:] / (SIDE * 16.0)).astype(int), n - 1)
    count = np.bincount(at[:, 0] * n + at[:, 1], minlength=n * n).reshape(n, n).astype(float)
    if count.sum() < 20:
        return 1.0
    volume = tissue["vol"].reshape(n, 2, n, 2).sum(axis=(1, 3)).astype(float)
    column, a, b = tissue["pair"]
    receives = np.unique(tissue["post"][kept])
    mine = np.isin(a, receives) | np.isin(b, receives)
    at_column = (column // fine // 2) * n + column % fine // 2
    membrane = np.bincount(at_column[mine], tissue["cnt"][mine], n * n).reshape(n, n)
    edge = (np.arange(n) % (n - 1) == 0).astype(np.int64)
    where = (edge[:, None] + edge[None], np.zeros(2), np.ones(2))
    pairs = np.stack([tissue["pre"][kept], tissue["post"][kept]])
    several = np.unique(pairs, axis=1, return_counts=True)[1].astype(float)
    clumped = float((several**2).sum() / several.sum())
    tried = [
        thins_out(Columns(count, room, *where), spread, rng, DRAWS)
        for room, spread in ((volume, clumped), (membrane, 1.0))
    ]
    return min(1.0, 2 * min(tried))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--small", type=int, default=22, help="Tissues of 24 x 384 x 384 voxels of 8 nm.")
    parser.add_argument("--large", type=int, default=10, help="Tissues of 32 x 512 x 512 voxels of 8 nm.")
    given = parser.parse_args()
    for kind, number in (("small", given.small), ("large", given.large)):
        rng = np.random.default_rng(3)
        alike, thin = [], []
        for seed in range(FIRST_SEED[kind], FIRST_SEED[kind] + number):
            tissue = grown(kind, seed, given.folder)
            for _ in range(ALIKE):
                alike.append(p_value(tissue, rng.random(len(tissue["at"])) < FOUND, rng))
            for _ in range(THINNED):
                found = rng.random(len(tissue["at"])) < FOUND
                thin.append(p_value(tissue, found & thinned(tissue, rng), rng))
        for name, p in (("alike everywhere", alike), ("thinned to a corner", thin)):
            told = int(np.sum(np.asarray(p) <= 0.05))
            print(f"{kind:6s} {number:3d} tissues, {name:20s} a gradient is told in {told:3d} of {len(p)}", flush=True)


if __name__ == "__main__":
    main()

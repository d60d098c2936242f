"""Montage and section matching on the shared real data: accuracy against what is known, and seconds.

Run from the repository's root: `python -m benchmarks.registration SHARED_DATA_FOLDER`.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import cv2
import numpy as np

from connectome_db.spec import Params
from connectome_db.stages import align, ingest, match, montage
from tests.stages.helpers import Inputs, raw_tiles, run_in_memory


def timed(stages: list[object], inputs: Inputs, params: dict[str, Params]) -> str:
    out = []
    for module in stages:
        stage = module.STAGE
        start = time.perf_counter()
        run_in_memory(stage, inputs, params.get(stage.name))
        out.append(f"{stage.name} {time.perf_counter() - start:.1f} s")
    return ", ".join(out)


def montage_summary(name: str, inputs: Inputs, seconds: str) -> None:
    rows = inputs.table("montage.tile_match").to_pandas()
    used = rows[rows.weight > 0].residual_px
    print(f"{name}: {seconds}; {len(used)} of {len(rows)} patches, residual median {used.median():.3f} px, ", end="")
    print(f"p95 {used.quantile(0.95):.3f} px")


def rigid_distance(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Distances (N,) between points (N, 2) after the best turn and shift."""
    a, b = found - found.mean(axis=0), wanted - wanted.mean(axis=0)
    u, _, v = np.linalg.svd(a.T @ b)
    return np.hypot(*(a @ (u @ v) - b).T)


def fafb(folder: Path) -> None:
    """16 TEM tiles against the published solution, which places groups joined by resin alone 60 to 110 px off."""
    nominal, reference, tiles = [], [], []
    for line in (folder / "layout_acquire.txt").read_text().splitlines():
        f = line.split()
        nominal.append((float(f[7]), float(f[4])))
        tiles.append(cv2.imread(str(folder / Path(f[-1]).name), cv2.IMREAD_GRAYSCALE))
    for line in (folder / "layout_montage_reference.txt").read_text().splitlines():
        a, b, c, d, e, f = (float(v) for v in line.split()[2:8])
        reference.append((np.asarray([[e, d], [b, a]]), np.asarray([f, c])))
    place = np.asarray(nominal) - np.min(nominal, axis=0)
    inputs = raw_tiles([(0, f"t{i:02d}", *place[i], t) for i, t in enumerate(tiles)])
    params = montage.MontageParams(search_px=200, smooth_px=2.0, min_correlation=0.5)
    montage_summary("fafb_z4", inputs, timed([ingest, montage], inputs, {"montage": params}))
    rows = inputs.table("montage.tile_transform").to_pandas()
    corners = np.asarray([(0, 0), (0, 2559), (2159, 0), (2159, 2559), (1079.5, 1279.5)])
    linear = rows[["yy", "yx", "xy", "xx"]].to_numpy().reshape(-1, 2, 2)
    shift = rows[["ty", "tx"]].to_numpy()
    found = np.stack([corners @ m.T + t for m, t in zip(linear, shift, strict=True)])
    wanted = np.stack([corners @ m.T + t for m, t in reference])
    whole = rigid_distance(found.reshape(-1, 2), wanted.reshape(-1, 2))
    print(f"  all tiles, one gauge: median {np.median(whole):.2f} px")
    every = []
    for group in ([0, 1, 4], [2, 3, 5, 6, 11], [7, 8, 12, 13], [9, 10, 14, 15]):
        every.append(rigid_distance(found[group].reshape(-1, 2), wanted[group].reshape(-1, 2)))
        print(f"  tiles {group}: median {np.median(every[-1]):.2f} px")
    print(f"  within groups: median {np.median(np.concatenate(every)):.2f} px")


def grid_of(folder: Path, shape: tuple[int, int], overlap: float, params: montage.MontageParams) -> None:
    images = [cv2.imread(str(p), cv2.IMREAD_GRAYSCALE) for p in sorted(folder.glob("*.png"))]
    step = [round(n * (1 - overlap)) for n in images[0].shape]
    places = [(r * step[0], c * step[1]) for r in range(shape[0]) for c in range(shape[1])]
    inputs = raw_tiles([(0, f"t{i:02d}", *at, t) for i, (at, t) in enumerate(zip(places, images, strict=True))])
    montage_summary(folder.name, inputs, timed([ingest, montage], inputs, {"montage": params}))
    rows = inputs.table("montage.tile_transform").to_pandas()
    shift = rows[["ty", "tx"]].to_numpy()
    print("  corners against the first tile:", np.round(shift - shift[0], 2).tolist())


def unaligned(folder: Path) -> None:
    images = [cv2.imread(str(p), cv2.IMREAD_GRAYSCALE) for p in sorted(folder.glob("*.png"))]
    inputs = raw_tiles([(4 + i, f"s{i}", 0, 0, t) for i, t in enumerate(images)])
    print(f"{folder.name}: {timed([ingest, montage, match, align], inputs, {})}")
    for r in inputs.table("match.pair_affine").to_pylist():
        move = f"shift ({r['ty']:.0f}, {r['tx']:.0f}) px, turn {np.degrees(np.arctan2(r['xy'], r['yy'])):.2f} deg"
        print(f"  {r['section_a']}-{r['section_b']}: {r['method']}, {r['inliers']} of {r['features']} features, {move}")
    for r in inputs.table("align.section_pose").to_pylist():
        print(f"  section {r['section']}: {r['placed']}, {r['matches']} matches, residual {r['residual_px']:.2f} px")


def main() -> None:
    data = Path(sys.argv[1])
    grid_of(data / "montage" / "cremi_sim1_C1", (2, 2), 0.107, montage.MontageParams())
    stretch = montage.MontageParams(search_px=120, model="affine", shape_prior=0.02)
    grid_of(data / "montage" / "vem_165", (3, 3), 0.1, stretch)
    fafb(data / "montage" / "fafb_z4")
    unaligned(data / "zalign_rhoana")


if __name__ == "__main__":
    main()

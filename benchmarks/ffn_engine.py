"""What flood-filling costs without the network: moves per second of the host, and what is done in vain.

    python -m benchmarks.ffn_engine [--batches 1,4,16] [--length 160] [--fov 33] [--delta 8] [--repeat 3]
    python -m benchmarks.ffn_engine --fib25 SHARED_DATA/fib25/ts2_z000-139.h5
    python -m benchmarks.ffn_engine --together 32 [--batches 16]

Without data: sixteen tubes of tissue, 40 voxels wide, in one unit, and an answer that is there at once: all of the
window is the object. With `--fib25`: seeds from the image of a part of 128 x 192 x 192 voxels, and answers that are its
true objects; these take time to make, so seconds are not told.

With `--together N`, N such units at once that share the batch (`units_at_once` in launch.yaml), and one unit alone.

Moves are those of the result; what later objects did in vain (`redone`) costs time and does not count. The whole call
is timed, with making the canvases and settling the objects. CPU s are those of all threads.
"""

from __future__ import annotations

import argparse
import os
import time
from functools import partial
from pathlib import Path

import cc3d
import h5py
import numpy as np

from connectome_db.kernels.flood import flood
from connectome_db.kernels.flood_seeds import boundary_peaks
from connectome_db.kernels.flood_types import Flooded, FloodOptions
from connectome_db.networks.ffn import FFNConfig, FloodNetwork
from connectome_db.networks.together import Together
from connectome_db.spec import Window
from tests.stages.truth_network import colour

ACROSS, WIDTH = 4, 40


class Null:
    """A network that costs nothing."""

    def __init__(self, batch: int, fov: int, delta: int) -> None:
        self.batch, self.fov_vx, self.deltas_vx = batch, (fov,) * 3, (delta,) * 3
        far = np.abs(np.stack(np.indices(self.fov_vx)) - fov // 2).sum(axis=0)
        one = 4 - far / far.max()  # highest in the middle of each face, so that it moves straight
        self.answer = np.repeat(one[None].astype(np.float32), batch, axis=0)

    def predict(self, images: np.ndarray, masks: np.ndarray) -> np.ndarray:
        assert images.shape == masks.shape
        return self.answer


class Truth(Null):
    """The true object in the middle of the window, of an image whose grey levels are the colours of labels."""

    def predict(self, images: np.ndarray, masks: np.ndarray) -> np.ndarray:
        assert images.shape == masks.shape
        centre = tuple(n // 2 for n in self.fov_vx)
        out = np.full(images.shape, -4, np.float32)
        for row, image in zip(out, images, strict=True):
            if image[centre]:
                parts = cc3d.connected_components(image == image[centre], connectivity=6)
                row[parts == parts[centre]] = 4
        return out


def tubes(length: int, fov: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, tissue and one seed in each tube; walls are too wide for two objects to touch."""
    step, border = WIDTH + fov // 2 + 2, fov // 2
    side = (ACROSS - 1) * step + WIDTH + 2 * border
    tissue = np.zeros((side, side, length), bool)
    seeds = []
    for i in range(ACROSS):
        for j in range(ACROSS):
            z, y = border + i * step, border + j * step
            tissue[z : z + WIDTH, y : y + WIDTH] = True
            seeds.append((z + WIDTH // 2, y + WIDTH // 2, length // 2))
    image = np.random.default_rng(0).integers(0, 256, tissue.shape, dtype=np.uint8)
    return image, tissue, np.array(seeds)


def speed(options: argparse.Namespace, batches: list[int]) -> None:
    image, tissue, seeds = tubes(options.length, options.fov)
    print(f"unit {image.shape} voxels, window {options.fov}, step {options.delta}, {len(seeds)} seeds")
    print("batch   moves  redone   calls  moves/CPU s  moves/wall s  MVox/CPU s")
    first: Flooded | None = None
    for batch in batches:
        cpu, wall = float("inf"), float("inf")
        for repeat in range(options.repeat + 1):  # the first time compiles
            network = Null(batch, options.fov, options.delta)
            start = time.process_time(), time.perf_counter()
            found = flood(image, network, seeds, FloodOptions(), tissue)
            if repeat:
                cpu, wall = min(cpu, time.process_time() - start[0]), min(wall, time.perf_counter() - start[1])
        first = same(first, found)
        moves = sum(o.moves for o in found.objects)
        voxels = sum(o.voxels for o in found.objects) / 1e6
        work = found.work
        print(
            f"{batch:5d} {moves:7d} {work.redone:7d} {work.calls:7d} "
            f"{moves / cpu:12,.0f} {moves / wall:13,.0f} {voxels / cpu:11.1f}"
        )


def in_vain(options: argparse.Namespace, batches: list[int]) -> None:
    part = np.s_[:128, :192, :192]
    with h5py.File(options.fib25) as file:
        seeds, image = boundary_peaks(file["raw"][part]), colour(file["gt"][part].astype(np.int64))
    print(f"unit {image.shape} voxels, window {options.fov}, step {options.delta}, {len(seeds)} seeds")
    print("batch   moves  redone   calls  rows in use  of these in vain")
    first: Flooded | None = None
    for batch in batches:
        found = flood(image, Truth(batch, options.fov, options.delta), seeds, FloodOptions())
        first = same(first, found)
        moves, work = sum(o.moves for o in found.objects), found.work
        use = work.moves / (work.calls * batch)
        print(f"{batch:5d} {moves:7d} {work.redone:7d} {work.calls:7d} {use:12.0%} {work.redone / work.moves:17.0%}")


def together(options: argparse.Namespace, batches: list[int]) -> None:
    image, tissue, seeds = tubes(options.length, options.fov)
    print(f"{options.together} units of {image.shape} voxels, window {options.fov}, step {options.delta}")
    print("batch   moves   calls  rows in use  moves/CPU s  one unit after the other, batch 1, moves/CPU s")

    def fill(window: Window) -> int:
        return flood(image, window, seeds, FloodOptions(), tissue).work.moves

    fill(Null(1, options.fov, options.delta))  # the first time compiles
    for batch in batches:
        start = time.process_time()
        moves = sum(fill(Null(1, options.fov, options.delta)) for _ in range(options.together))
        alone = moves / (time.process_time() - start)
        null, calls = Null(batch, options.fov, options.delta), 0

        def answer(images: np.ndarray, masks: np.ndarray, null: Null = null) -> np.ndarray:
            nonlocal calls
            calls += 1
            return null.predict(images, masks)

        config = FFNConfig(fov_vx=null.fov_vx, deltas_vx=null.deltas_vx)
        shared = Together(FloodNetwork("null@0", config, batch, lambda answer=answer: answer), options.together)
        start = time.process_time()
        moves = sum(m for _, m in shared.run(partial(fill, shared.window) for _ in range(options.together)))
        rate = moves / (time.process_time() - start)
        print(f"{batch:5d} {moves:7d} {calls:7d} {moves / (calls * batch):12.0%} {rate:12,.0f} {alone:12,.0f}")


def same(first: Flooded | None, found: Flooded) -> Flooded:
    """The first result; what is found must equal it."""
    first = first or found
    assert found.objects == first.objects
    assert (found.labels == first.labels).all()
    return first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", default="1,4,16")
    parser.add_argument("--length", type=int, default=160)
    parser.add_argument("--fov", type=int, default=33)
    parser.add_argument("--delta", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--fib25", type=Path)
    parser.add_argument("--together", type=int, default=0, metavar="N")
    options = parser.parse_args()
    batches = [int(batch) for batch in options.batches.split(",")]
    if options.fib25:
        in_vain(options, batches)
    elif options.together:
        together(options, batches)
    else:
        speed(options, batches)
    print(f"load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()

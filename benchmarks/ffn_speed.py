"""Flood-filling on a CPU: the published loop in float32, one window at a time, against the stage `flood`, side by side.

    connectome models import-ffn SHARED_DATA/ffn_fib25_checkpoint --name fib25-ffn
    connectome models import-ffn SHARED_DATA/ffn_fib25_checkpoint --name fib25-ffn-bf16 --bfloat16
    connectome models quantize fib25-ffn --name fib25-ffn-int8 --data fib25=SHARED_DATA/fib25
    python -m benchmarks.ffn_speed --data SHARED_DATA/fib25 --models models [--box 80,128,128] [--first 0]
        [--ways fib25-ffn-bf16:8,fib25-ffn-int8:8,fib25-ffn-lite-int8:12:-1] [--no-loop]

A way is a model, a step in voxels and, where it is not the published 0, `flood.disco_seed_threshold`. `--first` is the
first section of the box: networks that were trained here have not seen sections from 100 on.

One box of FIB-25, each way in a process of its own, timed from start to end with loading. The loop is that of
`tests.kernels.flood_reference`, which the tests hold the engine against: seeds, moves and rules as published, on the
same mirrored image as the stage's, or a box this small would be half empty. "covered" is the adapted Rand error on
voxels that have a body, "all" on all of the truth's; truth by its connected pieces in the box. So is the segmentation
that Google published, which is told for comparison.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np

from connectome_db.geometry import Box
from connectome_db.kernels.flood_seeds import boundary_peaks
from connectome_db.kernels.flood_types import FloodOptions
from connectome_db.kernels.metrics import adapted_rand, overlap
from connectome_db.kernels.normalise import normalise_stack
from connectome_db.networks.evaluate import connected_pieces
from connectome_db.networks.ffn import load_ffn
from connectome_db.stages import flood
from tests.kernels.flood_reference import one_after_the_other
from tests.stages.memory import Memory

FULL = "fib25-ffn"
WAYS = "fib25-ffn-bf16:8,fib25-ffn-int8:8,fib25-ffn-int8:12,fib25-ffn-int8:16"


def triple(text: str) -> tuple[int, int, int]:
    z, y, x = (int(part) for part in text.split(","))
    return z, y, x


def volume(data: Path, box: tuple[int, int, int], first: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, truth and the segmentation that was published, both by their connected pieces in the box."""
    with h5py.File(data / "ts2_z000-139.h5") as file:
        raw, truth, made = (file[name][first : first + box[0]] for name in ("raw", "gt", "ffn_published"))
    cut = tuple(slice((n - b) // 2, (n - b) // 2 + b) for n, b in zip(raw.shape, box, strict=True))
    return np.ascontiguousarray(normalise_stack(raw)[cut]), connected_pieces(truth[cut]), connected_pieces(made[cut])


def scored(labels: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    return {
        "coverage": float((labels[truth != 0] != 0).mean()),
        "covered": adapted_rand(overlap(labels.astype(np.uint64), truth, ignore_seg=0)).error,
        "all": adapted_rand(overlap(labels.astype(np.uint64), truth)).error,
    }


class OneByOne:
    """What the loop asks: one window at a time."""

    def __init__(self, model: Path) -> None:
        self.network = load_ffn(model)
        self.fov_vx, self.deltas_vx = self.network.fov_vx, self.network.deltas_vx

    def one(self, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return self.network.predict(image[None], mask[None])[0]


def published(image: np.ndarray, model: Path) -> tuple[np.ndarray, int]:
    network = OneByOne(model)
    half = network.fov_vx[0] // 2
    real = (slice(half, -half),) * 3
    mirrored, allowed = np.pad(image, half, mode="symmetric"), np.pad(np.ones(image.shape, np.bool_), half)
    found = one_after_the_other(mirrored, network, boundary_peaks(image) + half, FloodOptions(), allowed)
    return found["labels"][real], sum(o[2] for o in found["objects"])


def staged(image: np.ndarray, model: Path, step: int, disco: float) -> tuple[np.ndarray, int]:
    memory = Memory(
        (10.0, 10.0, 10.0),
        {"render.image": image, "mask.mask": np.zeros(image.shape, np.uint8)},
        Box((0, 0, 0), image.shape),
    )
    params = flood.FloodParams(
        block_vx=image.shape, halo_vx=(16, 16, 16), step_vx=(step,) * 3, disco_seed_threshold=disco
    )
    memory.run(flood.STAGE, params, load_ffn(model))
    return memory.volumes["flood.bodies"], int(np.sum(memory.tables["flood.flood_object"]["moves"].to_numpy()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--box", type=triple, default=(80, 128, 128))
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--ways", default=WAYS)
    parser.add_argument("--no-loop", action="store_true", help="ratios are then to the first way")
    parser.add_argument("--way", help="what a process of its own does")
    a = parser.parse_args()
    if a.way:
        image, truth, _ = volume(a.data, a.box, a.first)
        name, *rest = a.way.split(":")
        labels, moves = (
            published(image, a.models / FULL)
            if name == "loop"
            else staged(image, a.models / name, int(rest[0]), float(rest[1]) if rest[1:] else 0.0)
        )
        print(json.dumps({"moves": moves, **scored(labels, truth)}))
        return
    first = None
    ways = [*([] if a.no_loop else ["loop"]), *a.ways.split(",")]
    print(f"{'way':28} {'s':>7} {'moves':>6} {'moves/s':>8} {'voxels/s':>9} {'ratio':>6} coverage covered    all")
    _, truth, made = volume(a.data, a.box, a.first)
    told = scored(made, truth)
    print(
        f"{'published segmentation':68} {told['coverage']:8.3f} {told['covered']:7.4f} {told['all']:6.4f}", flush=True
    )
    for way in ways:
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.ffn_speed", "--data", a.data, "--models", a.models,
             "--box", ",".join(map(str, a.box)), "--first", str(a.first), "--way", way],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        seconds = time.perf_counter() - start
        found = json.loads(done.stdout.splitlines()[-1])
        speed = float(np.prod(a.box)) / seconds
        first = first or speed
        moves = found["moves"]
        print(f"{way:28} {seconds:7.0f} {moves:6d} {moves / seconds:8.2f} {speed:9.0f} {speed / first:6.1f} "
              f"{found['coverage']:8.3f} {found['covered']:7.4f} {found['all']:6.4f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()

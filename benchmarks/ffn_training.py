"""Training a flood-filling network on one rank and on several: windows per second, parallel efficiency, examples.

    python -m benchmarks.ffn_training [--ranks 1,2] [--batch 4] [--steps 8] [--depth 12] [--features 32] [--fov 33]
    python -m benchmarks.ffn_training --fib25 SHARED_DATA/fib25

The batch is the same for every number of ranks, which share its rows; each rank has one thread for the network and one
that makes examples. The first two steps, which compile, are not timed. "in allreduce" is what a rank spends there,
waiting for the slowest one included. Efficiency: windows per second, over ranks times those of one rank.

Without data: tubes of tissue, 14 voxels wide.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from connectome_db import executors
from connectome_db.networks.augment import AugmentConfig
from connectome_db.networks.datasets import TrainingVolume, load_split
from connectome_db.networks.ffn import FFNConfig, flops_per_move
from connectome_db.networks.ffn_sampling import FFNSamplingConfig, Pool
from connectome_db.networks.ffn_steps import window_of
from connectome_db.networks.ffn_training import FFNTrainConfig, Ranks, train_ffn
from tests.networks.ffn_volumes import tubes

COMPILING = 2


def network(options: argparse.Namespace) -> FFNConfig:
    step = options.fov // 4
    return FFNConfig(depth=options.depth, features=options.features, fov_vx=(options.fov,) * 3, deltas_vx=(step,) * 3)


def volumes(options: argparse.Namespace) -> tuple[TrainingVolume, ...]:
    return load_split("fib25", options.fib25).train if options.fib25 else (tubes(1, (96, 128, 128)),)


def sampling() -> FFNSamplingConfig:
    return FFNSamplingConfig(augment=AugmentConfig(isotropic=True, shift_px=0, missing_share=0.0))


def as_rank(options: argparse.Namespace) -> None:
    """One rank of a training; the first one writes what was measured."""
    spent = 0.0

    def reduce(arrays: list[np.ndarray]) -> list[np.ndarray]:
        nonlocal spent
        start = time.perf_counter()
        means = executors.allreduce_mean(arrays)
        spent += time.perf_counter() - start
        return means

    marks: list[tuple[float, float]] = []
    config = FFNTrainConfig(
        network=network(options), sampling=sampling(), steps=options.steps + COMPILING, batch=options.batch
    )
    size = executors.size()
    with tempfile.TemporaryDirectory() as folder:
        train_ffn(
            config,
            volumes(options),
            Path(folder) / "m",
            lambda *_: marks.append((time.perf_counter(), spent)),
            threads=1,
            ranks=Ranks(executors.rank(), size, reduce if size > 1 else None),
        )
    if executors.rank() == 0:
        (start, before), (end, after) = marks[COMPILING - 1], marks[-1]
        measured = {"s": (end - start) / options.steps, "allreduce_s": (after - before) / options.steps}
        options.child.write_text(json.dumps(measured))


def examples(options: argparse.Namespace) -> None:
    start = time.perf_counter()
    config = network(options)
    pool = Pool(volumes(options), sampling(), window_of(config), config.deltas_vx)
    made = time.perf_counter()
    for number in range(100):
        pool.example(0, 0, 0, number)
    each = (time.perf_counter() - made) / 100
    print(f"examples: ready after {made - start:.1f} s, then {each * 1e3:.1f} ms each in one process")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", default="1,2")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--features", type=int, default=32)
    parser.add_argument("--fov", type=int, default=33)
    parser.add_argument("--fib25", type=Path)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        as_rank(options)
        return
    cost = flops_per_move(network(options))
    print(f"network of {cost / 1e9:.2f} GFLOP a window forward, about three times that with its gradient")
    examples(options)
    print("ranks  s a step  windows/s  in allreduce, ms  efficiency  load average")
    alone = 0.0
    for ranks in map(int, options.ranks.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            result = Path(folder) / "result.json"
            words = ["-m", "benchmarks.ffn_training", *sys.argv[1:], "--child", str(result)]
            code = executors.start_ranks(["mpiexec", "-n", str(ranks)], words, "name one in this file")
            assert code == 0, code
            found = json.loads(result.read_text())
        speed = options.batch / found["s"]
        alone = alone or speed / ranks
        print(
            f"{ranks:5d} {found['s']:9.3f} {speed:10.2f} {found['allreduce_s'] * 1e3:17.1f} "
            f"{speed / alone / ranks:11.2f} {os.getloadavg()[0]:13.1f}"
        )


if __name__ == "__main__":
    main()

"""Flood-filling on a GPU through JAX: the network alone, and the engine with many images in flight.

    KERAS_BACKEND=jax python -m benchmarks.ffn_device --data SHARED_DATA/fib25 --models models [--batches 64,128]

`models` holds fib25-ffn and fib25-ffn-bf16 (see benchmarks.ffn_speed). Needs jax with a device, keras, greenlet, numba,
scipy and h5py, and nothing of the pipeline. First the answers of both precisions are compared with float32 computed by
JAX on the CPU: cuDNN has given wrong bfloat16 convolutions for large shapes. Then windows a second: with windows that
come from and go to the host's memory, and with so many boxes of 128 voxels under way that all rows are busy, once it
runs evenly.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import h5py
import numpy as np

from connectome_db.kernels.flood import flood
from connectome_db.kernels.flood_seeds import boundary_peaks
from connectome_db.kernels.flood_types import Flooded, FloodOptions
from connectome_db.networks.ffn import FloodNetwork, flops_per_move, load_ffn
from connectome_db.networks.together import Together
from connectome_db.spec import Window

MODELS = ("fib25-ffn-bf16", "fib25-ffn")
SIDE = 128


class EnoughError(Exception):
    """The time is over."""


def windows(image: np.ndarray, network: FloodNetwork) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    places = rng.integers(0, np.array(image.shape) - network.fov_vx + 1, (network.batch, 3))
    cut = [image[tuple(slice(a, a + n) for a, n in zip(place, network.fov_vx, strict=True))] for place in places]
    return np.stack(cut), rng.normal(-1, 2, (network.batch, *network.fov_vx)).astype(np.float32)


def alone(network: FloodNetwork, image: np.ndarray) -> float:
    grey, masks = windows(image, network)
    np.asarray(network.answer(grey, masks))
    start = time.perf_counter()
    for _ in range(10):
        last = network.answer(grey, masks)
    np.asarray(last)
    return 10 * network.batch / (time.perf_counter() - start)


def filling(network: FloodNetwork, image: np.ndarray, seeds: np.ndarray, seconds: float) -> float:
    """Windows a second with the engine, from the sixth call on."""
    rng, calls, start = np.random.default_rng(0), 0, 0.0

    def crops(window: Window) -> Iterator[Callable[[], Flooded]]:
        while True:
            low = rng.integers(0, np.array(image.shape) - SIDE + 1)
            box = tuple(slice(a, a + SIDE) for a in low)
            mine = seeds[(seeds >= low).all(axis=1) & (seeds < low + SIDE).all(axis=1)] - low
            yield partial(flood, np.ascontiguousarray(image[box]), window, mine, FloodOptions())

    def ask(grey: np.ndarray, masks: np.ndarray) -> object:
        nonlocal calls, start
        calls += 1
        if calls == 6:
            start = time.perf_counter()
        if calls > 6 and time.perf_counter() - start > seconds:
            raise EnoughError
        return network.answer(grey, masks)

    together = Together(replace(network, answering=lambda: ask), 2 * network.batch)
    try:
        for _ in together.run(crops(together.window)):
            pass
    except EnoughError:
        pass
    return (calls - 6) * network.batch / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--batches", default="64,128")
    parser.add_argument("--seconds", type=float, default=7.0)
    parser.add_argument("--voxels-per-move", type=float, default=350.0, help="see benchmarks.ffn_speed")
    a = parser.parse_args()
    import jax

    with h5py.File(a.data / "ts2_z000-139.h5") as file:
        image = np.ascontiguousarray(np.pad(file["raw"][:], 16, mode="symmetric"))
    seeds = boundary_peaks(image)
    print(jax.devices(), flush=True)
    exact = load_ffn(a.models / MODELS[1], batch=4)
    grey, masks = windows(image, exact)
    with jax.default_device(jax.devices("cpu")[0]):
        wanted = np.asarray(load_ffn(a.models / MODELS[1], batch=4).answer(grey, masks))
    for name in MODELS:
        for batch in map(int, a.batches.split(",")):
            network = load_ffn(a.models / name, batch=batch)
            many = [np.resize(v, (batch, *network.fov_vx)) for v in (grey, masks)]
            off = np.abs(np.asarray(network.answer(*many))[:4] - wanted).max()
            only = alone(network, image)
            both = filling(network, image, seeds, a.seconds)
            tflops = flops_per_move(network.config) * both / 1e12
            print(f"{name} batch {batch}: off by {off:.4f}; network alone {only:.0f} moves/s; with the engine "
                  f"{both:.0f}, {tflops:.0f} TFLOP/s, {both * a.voxels_per_move * 3600 / 1e9:.1f} GVox/h",
                  flush=True)  # fmt: skip


if __name__ == "__main__":
    main()

"""Joining supervoxels across faces: seconds and memory of `reconcile`, beside SciPy's connected components.

    python -m benchmarks.reconcile [--faces 1e7] [--supervoxels 3] [--accepted 0.7] [--seed 0]

A cube of blocks with at least so many inner faces; every block has so many supervoxels, and every face one candidate
pair, of two supervoxels drawn at random, which is accepted with that probability. Ids are those of blocks on a lattice.

Each way runs in a process of its own on the same files. `reconcile` is the whole `compute` of the stage;
`lowest_names` is its kernel, from sorted ids and accepted pairs to names; `SciPy` looks the same pairs up with
`searchsorted` and calls `connected_components`, and is not asked for names. Peak memory is that of the process less
what it held with the input loaded (Linux). All three must give the same partition.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from connectome_db import ids as lattice_ids
from connectome_db.geometry import Box
from connectome_db.kernels.union_find import lowest_names
from connectome_db.spec import Block, Unit
from connectome_db.stages import reconcile

WAYS = ("reconcile", "lowest_names", "SciPy")


def problem(folder: Path, faces: int, supervoxels: int, accepted: float, seed: int) -> tuple[int, int]:
    """Write ids, a, b and accepted; return the numbers of supervoxels and faces."""
    rng = np.random.default_rng(seed)
    side = 2
    while 3 * side * side * (side - 1) < faces:
        side += 1
    position = np.stack(np.indices((side,) * 3), axis=-1).reshape(-1, 3)
    codes = lattice_ids.pack(position) << np.uint64(lattice_ids.LOCAL_BITS)
    local = np.arange(1, supervoxels + 1, dtype=np.uint64)
    np.save(folder / "ids.npy", np.sort((codes[:, None] | local).ravel()))
    lower, upper = [], []
    block = np.arange(side**3).reshape((side,) * 3)
    for axis in range(3):
        lower.append(np.delete(block, -1, axis).ravel())
        upper.append(np.delete(block, 0, axis).ravel())
    ends = [codes[np.concatenate(e)[:faces]] for e in (lower, upper)]
    for name, code in zip("ab", ends, strict=True):
        np.save(folder / f"{name}.npy", code | rng.integers(1, supervoxels + 1, len(code)).astype(np.uint64))
    np.save(folder / "accepted.npy", rng.random(len(ends[0])) < accepted)
    return supervoxels * side**3, len(ends[0])


def ready(way: str, folder: Path) -> Callable[[], np.ndarray]:
    """The input of one way, loaded, and the call that answers."""
    ids, a, b, accepted = (np.load(folder / f"{name}.npy") for name in ("ids", "a", "b", "accepted"))
    if way == "reconcile":
        tables = {
            reconcile.SUPERVOXEL: pa.table({"supervoxel": ids}),
            reconcile.OVERLAP: pa.table({"a": a, "b": b, "accepted": accepted}),
        }
        unit = Unit("once", 0, (0, 0, 0), 0, Box((0, 0, 0), (1, 1, 1)), ())
        params = reconcile.ReconcileParams()
        nothing = {"arrays": {}, "boxes": {}, "tiles": {}, "network": None}
        block = Block(unit=unit, params=params, voxel_nm=(1, 1, 1), tables=tables, seed=0, **nothing)

        def stage() -> np.ndarray:
            return reconcile.compute(block)["fragment"]["fragment"].to_numpy()

        return stage
    a, b = a[accepted], b[accepted]
    if way == "lowest_names":
        return lambda: lowest_names(ids, a, b, "supervoxel")

    def components() -> np.ndarray:
        row, column = (np.searchsorted(ids, e).astype(np.int32) for e in (a, b))
        graph = coo_array((np.ones(len(row), np.int8), (row, column)), shape=(len(ids),) * 2)
        return connected_components(graph, directed=False)[1]

    return components


def memory_bytes(line: str) -> int:
    """Memory of this process: VmRSS is what it holds, VmHWM the most it held since `forget_peak`. Linux only."""
    status = Path("/proc/self/status").read_text()
    return next(int(text.split()[1]) for text in status.splitlines() if text.startswith(line)) * 1024


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def timed(way: str, folder: Path) -> tuple[float, float, int]:
    """Seconds by the clock, CPU seconds, and bytes above the input, of one call in this process."""
    lowest_names(np.arange(3, dtype=np.uint64), *(np.array([k], np.uint64) for k in (1, 2)), "id")  # loads, compiles
    answer = ready(way, folder)
    forget_peak()
    held, cpu, wall = memory_bytes("VmRSS"), time.process_time(), time.perf_counter()
    found = answer()
    spent = time.perf_counter() - wall, time.process_time() - cpu, memory_bytes("VmHWM") - held
    np.save(folder / f"{way}.npy", found)
    return spent


def same_partition(names: np.ndarray, other: np.ndarray) -> bool:
    """Two labels per item group the items alike: pairs of labels are as many as labels on either side."""
    ours, theirs = (np.unique(labels, return_inverse=True)[1] for labels in (names, other))
    wide = int(theirs.max()) + 1
    return len(np.unique(ours * wide + theirs)) == int(ours.max()) + 1 == wide


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=float, default=1e7)
    parser.add_argument("--supervoxels", type=int, default=3)
    parser.add_argument("--accepted", type=float, default=0.7)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as where:
        folder = Path(where)
        nodes, faces = problem(folder, int(options.faces), options.supervoxels, options.accepted, options.seed)
        print(f"{nodes:,} supervoxels, {faces:,} faces, {options.accepted:.0%} of them accepted")
        print("way             wall s   CPU s     faces/s  peak above input, MiB")
        for way in WAYS:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                wall, cpu, peak = pool.apply(timed, (way, folder))
            print(f"{way:14s} {wall:7.2f} {cpu:7.2f} {faces / wall:11,.0f} {peak / 2**20:22,.0f}", flush=True)
        names, kernel, components = (np.load(folder / f"{way}.npy") for way in WAYS)
        assert (names == kernel).all()
        assert same_partition(names, components)
        print(f"{len(np.unique(names)):,} fragments, equal partitions; load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()

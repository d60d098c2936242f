"""Writing and reading volumes: ours by units, against TensorStore and cloud-volume on the same voxels in one run.

    python benchmarks/volumes.py [--shape 64 1024 1024] [--block 64 256 256] [--repeat 4] [--folder DIR]

Ours is what a run does: each unit is cut out, encoded with its whole pyramid, written to a blob folder and flushed to
disk, then hard-linked into the volume. The peers write level 0 only, TensorStore flushing as it does by default and
using all cores; ours on one thread, as one rank runs, and on as many threads as there are cores. MB/s count the
voxels of level 0. The best of the repeats counts; ratios are to TensorStore.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore
from cloudvolume import CloudVolume
from rich.console import Console
from rich.table import Table

from connectome_db import plans, volumes
from connectome_db.geometry import Box, Vec3, box_of
from connectome_db.spec import Volume

VOXEL_NM = (30.0, 6.0, 6.0)
THREADS = os.cpu_count() or 1
Array = np.ndarray[Any, Any]
Action = Callable[[], object]


def image(shape: Vec3) -> Array:
    """Smooth texture with noise, as hard to compress as EM."""
    rng = np.random.default_rng(0)
    coarse = rng.normal(128, 30, [-(-n // 8) for n in shape]).astype(np.float32)
    smooth = coarse.repeat(8, 0).repeat(8, 1).repeat(8, 2)[tuple(slice(n) for n in shape)]
    return np.clip(smooth + rng.normal(0, 12, shape).astype(np.float32), 1, 255).astype(np.uint8)


def labels(shape: Vec3) -> Array:
    """Objects of about 12 voxels across, ids above 2**53."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(1, 5000, [-(-n // 12) for n in shape]).astype(np.uint64) + np.uint64(1 << 54)
    return coarse.repeat(12, 0).repeat(12, 1).repeat(12, 2)[tuple(slice(n) for n in shape)].copy()


def ours_write(layout: volumes.VolumeLayout, array: Array, folder: Path, flush: bool, workers: int) -> None:
    """Encode, write, flush and link every unit, as the store and `finish` do, on `workers` threads."""
    blobs, out = folder / "blobs", folder / "volume"
    for scale in layout.scales:
        (out / scale.key).mkdir(parents=True)
    (out / "info").write_bytes(volumes.info(layout))

    def unit(number_core: tuple[int, Box]) -> None:
        number, core = number_core
        for name, data in volumes.encode(layout, core, array[core.slices(layout.bounds.lo)]).items():
            blob = blobs / str(number) / name
            blob.parent.mkdir(parents=True, exist_ok=True)
            with blob.open("wb") as file:
                file.write(data)
                if flush:
                    file.flush()
                    os.fsync(file.fileno())
            os.link(blob, out / volumes.absolute_name(layout, core, name))

    cores = enumerate(box_of(six) for six in plans.grid(layout.bounds, layout.block_vx).cores)
    if workers == 1:
        for item in cores:
            unit(item)
        return
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(unit, cores))


def tensorstore_open(layout: volumes.VolumeLayout, folder: Path, create: bool, flush: bool = True) -> Any:
    scale = layout.scales[0]
    spec = {
        "driver": "neuroglancer_precomputed",
        "kvstore": {"driver": "file", "path": f"{folder}/tensorstore/"},
        "context": {"file_io_sync": flush},
        "multiscale_metadata": {"data_type": layout.dtype, "num_channels": 1, "type": layout.kind},
        "scale_metadata": {
            "size": list(scale.bounds.shape[::-1]),
            "resolution": list(VOXEL_NM[::-1]),
            "chunk_size": list(scale.chunk_vx[::-1]),
            "encoding": layout.encoding,
        },
    }
    if layout.encoding == "compressed_segmentation":
        spec["scale_metadata"]["compressed_segmentation_block_size"] = [8, 8, 8]
    return tensorstore.open(spec, create=create, open=True).result()[..., 0]


def cloudvolume_write(layout: volumes.VolumeLayout, array: Array, folder: Path, compress: str | bool) -> None:
    scale = layout.scales[0]
    made = CloudVolume.create_new_info(
        num_channels=1,
        layer_type=layout.kind,
        data_type=layout.dtype,
        encoding=layout.encoding,
        resolution=VOXEL_NM[::-1],
        voxel_offset=(0, 0, 0),
        chunk_size=scale.chunk_vx[::-1],
        volume_size=scale.bounds.shape[::-1],
    )
    volume = CloudVolume(f"file://{folder}/cloud", info=made, compress=compress, progress=False, fill_missing=True)
    volume.commit_info()
    volume[:] = array.T[..., None]


def cloudvolume_read(folder: Path) -> Array:
    volume = CloudVolume(f"file://{folder}/cloud", progress=False, fill_missing=True)
    return np.asarray(volume[:])[..., 0].T


@dataclass(frozen=True)
class Speed:
    """MB/s of the fastest repeat, and MB per CPU second (all threads) of the thriftiest."""

    wall: float
    cpu: float


def timed(action: Action) -> tuple[float, float, object]:
    """Seconds on the clock, seconds of all CPUs, and what the action gave."""
    wall, cpu = time.perf_counter(), time.process_time()
    given = action()
    return time.perf_counter() - wall, time.process_time() - cpu, given


def speed(array: Array, runs: list[tuple[float, float]]) -> Speed:
    wall, cpu = (min(column) for column in zip(*runs, strict=True))
    return Speed(array.nbytes / wall / 1e6, array.nbytes / max(cpu, 1e-9) / 1e6)


def measure(volume: Volume, array: Array, block_vx: Vec3, folder: Path, repeat: int) -> list[tuple[str, Speed, Speed]]:
    """(peer, writing, reading) of each; every read is compared with what was written."""
    z, y, x = array.shape
    layout = volumes.layout(volume, Box((0, 0, 0), (z, y, x)), block_vx, VOXEL_NM)

    def clear() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()

    volumes.encode(
        layout, box_of(plans.grid(layout.bounds, block_vx).cores[0]), array[Box((0, 0, 0), block_vx).slices()]
    )

    def cloud(compress: str | bool) -> tuple[Action, Action]:
        return (lambda: cloudvolume_write(layout, array, folder, compress)), (lambda: cloudvolume_read(folder))

    def store(flush: bool) -> tuple[Action, Action]:
        return (
            lambda: tensorstore_open(layout, folder, True, flush).write(array.T).result(),
            lambda: tensorstore_open(layout, folder, False).T.read(order="C").result(),
        )

    def ours(flush: bool, workers: int) -> tuple[Action, Action]:
        return (
            lambda: ours_write(layout, array, folder, flush, workers),
            lambda: volumes.read(folder / "volume", layout.bounds),
        )

    peers: list[tuple[str, tuple[Action, Action]]] = [
        ("TensorStore", store(True)),
        ("ours, 1 thread", ours(True, 1)),
        (f"ours, {THREADS} threads", ours(True, THREADS)),
        ("TensorStore, not flushed", store(False)),
        ("ours, not flushed, 1 thread", ours(False, 1)),
        (f"ours, not flushed, {THREADS} threads", ours(False, THREADS)),
        ("cloud-volume compress=False", cloud(False)),
        ("cloud-volume gzip (its default)", cloud("gzip")),
    ]
    written: dict[str, list[tuple[float, float]]] = {name: [] for name, _ in peers}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name, _ in peers}
    for number in range(repeat):  # in turns, so that a busy moment of the machine does not fall on one peer alone
        for name, (write, read) in peers:
            # The slow peers once: their ratio is not in doubt, and the run stays short.
            if name.startswith("cloud") and number:
                continue
            clear()
            wall, cpu, _ = timed(write)
            written[name].append((wall, cpu))
            wall, cpu, result = timed(read)
            found[name].append((wall, cpu))
            if not np.array_equal(np.asarray(result), array):
                sys.exit(f"{name}: read back something else than was written")
    shutil.rmtree(folder)
    return [(name, speed(array, written[name]), speed(array, found[name])) for name, _ in peers]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, default=(64, 1024, 1024), help="z y x voxels of the image")
    parser.add_argument("--block", type=int, nargs=3, default=(64, 256, 256), help="z y x voxels of a unit")
    parser.add_argument("--repeat", type=int, default=4)
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder when not given")
    options = parser.parse_args()
    z, y, x = options.shape
    cases = [
        (Volume(name="image", dtype="uint8", kind="image", doc=""), image((z, y, x))),
        (Volume(name="labels", dtype="uint64", kind="segmentation", doc=""), labels((z, y // 2, x // 2))),
    ]
    console = Console(width=110)
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        for volume, array in cases:
            rows = measure(volume, array, tuple(options.block), Path(temporary) / "work", options.repeat)
            reference = {name: (write, read) for name, write, read in rows if name.startswith("TensorStore")}
            title = f"{volume.name}: {array.dtype} {array.shape}, {array.nbytes / 1e6:.0f} MB, {os.cpu_count()} cores"
            table = Table(title=title)
            table.add_column("", no_wrap=True)
            for heading in ("write MB/s", "ratio", "per CPU s", "read MB/s", "ratio", "per CPU s"):
                table.add_column(heading, justify="right")
            for name, *speeds in rows:
                peers = reference["TensorStore, not flushed" if "not flushed" in name else "TensorStore"]
                cells = [(s.wall, s.wall / p.wall, s.cpu) for s, p in zip(speeds, peers, strict=True)]
                table.add_row(name, *(text for w, r, c in cells for text in (f"{w:.0f}", f"{r:.2f}", f"{c:.0f}")))
            console.print(table)
    console.print(f"repeat: python {' '.join(sys.argv)}")


if __name__ == "__main__":
    main()

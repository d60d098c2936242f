"""From a seed, or from a real aligned volume, to a folder of raw tiles with their truth."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from connectome_db.errors import SourceError, nearest
from connectome_db.phantom.acquire import AcquireConfig, Progress, acquire
from connectome_db.phantom.tissue import Tissue, TissueConfig, make_tissue


class SimulateConfig(BaseModel):
    """A phantom: what grows and how it is imaged."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tissue: TissueConfig = TissueConfig()
    acquire: AcquireConfig = AcquireConfig()


class CropConfig(BaseModel):
    """Which part of a real volume to image again, and how."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    z: tuple[int, int] = (0, 40)
    """Planes [first, last) of the volume. Section numbers start at `acquire.first_section`, not at the first plane."""
    y: tuple[int, int] = (0, 1024)
    """Rows [first, last)."""
    x: tuple[int, int] = (0, 1024)
    """Columns [first, last)."""
    voxel_nm: tuple[int, int, int] = (30, 6, 6)
    """Of the volume (z, y, x)."""
    image: str = "raw"
    """Name of the grey values in the file."""
    labels: str = "labels"
    """Name of the true labels in the file."""
    acquire: AcquireConfig = AcquireConfig(seed=3, grid=(2, 2))


def simulate(config: SimulateConfig, folder: Path, progress: Progress | None = None) -> Tissue:
    """Grow tissue and image it into `folder` (`raw/`, `truth/`); also writes truth/tissue.json. Returns the tissue.

    Raises:
        ConfigError: the folder already holds raw tiles, or the volume is too small for the errors asked for.
    """
    tissue = make_tissue(config.tissue)
    acquire(
        tissue.image,
        config.acquire,
        folder,
        voxel_nm=config.tissue.voxel_nm,
        labels=tissue.labels,
        cleft=tissue.cleft,
        synapses=tissue.synapses,
        source=f"phantom, seed {config.tissue.seed}",
        progress=progress,
    )
    text = json.dumps(config.tissue.model_dump(mode="json"), indent=2, sort_keys=True)
    (folder / "truth" / "tissue.json").write_text(text + "\n", encoding="utf-8")
    return tissue


def reacquire(
    volume_h5: Path,
    folder: Path,
    config: CropConfig,
    *,
    synapses_csv: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """Image an aligned real volume again as tiles, so that real pixels come with a known montage and alignment.

    `volume_h5` holds grey values (uint8) and labels, (z, y, x). `synapses_csv` has columns z, y, x (voxels of the whole
    volume) and seg_label_pre, seg_label_post, as AC3's list (Kasthuri et al. 2015); synapses outside the crop are left
    out. Returns the manifest's path.

    Raises:
        SourceError: a file, dataset or column is missing, or the crop leaves the volume.
    """
    if not volume_h5.is_file():
        raise SourceError(f"no volume at {volume_h5}: give the path of an HDF5 file")
    box = (slice(*config.z), slice(*config.y), slice(*config.x))
    with h5py.File(volume_h5, "r") as file:
        for name in (config.image, config.labels):
            if name not in file:
                raise SourceError(f"{volume_h5.name} has no dataset {name!r}{nearest(name, file)}")
        shape = file[config.image].shape
        for axis, (span, size) in enumerate(zip((config.z, config.y, config.x), shape, strict=True)):
            if not 0 <= span[0] < span[1] <= size:
                raise SourceError(f"crop {span} on axis {'zyx'[axis]}: {volume_h5.name} has 0 to {size}")
        image, labels = file[config.image][box], file[config.labels][box]
    return acquire(
        image,
        config.acquire,
        folder,
        voxel_nm=config.voxel_nm,
        labels=labels,
        synapses=None if synapses_csv is None else _synapses(synapses_csv, config),
        source=f"{volume_h5.name}, z {config.z}, y {config.y}, x {config.x}",
        progress=progress,
    )


def _synapses(path: Path, config: CropConfig) -> pa.Table:
    """Synapses of the crop in its own voxels, sorted by z, y, x, numbered from 1."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    wanted = ("z", "y", "x", "seg_label_pre", "seg_label_post")
    for name in wanted:
        if rows and name not in rows[0]:
            raise SourceError(f"{path.name} has no column {name!r}{nearest(name, rows[0])}")
    table = np.array([[float(row[name]) for name in wanted] for row in rows]).reshape(-1, 5)
    low = np.array([config.z[0], config.y[0], config.x[0]])
    high = np.array([config.z[1], config.y[1], config.x[1]])
    table = table[np.all((table[:, :3] >= low) & (table[:, :3] < high), axis=1)]
    table = table[np.lexsort((table[:, 2], table[:, 1], table[:, 0]))]
    places = table[:, :3] - low
    return pa.table(
        {
            "synapse": np.arange(1, len(table) + 1, dtype=np.uint64),
            **{name: places[:, axis] for axis, name in enumerate("zyx")},
            "pre": table[:, 3].astype(np.uint64),
            "post": table[:, 4].astype(np.uint64),
        }
    )

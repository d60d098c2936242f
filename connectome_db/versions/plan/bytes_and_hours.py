"""Bytes of every layer and hours of every stage, per voxel: of a finished project, or assumed from the encodings.

A project tells both by its data and its provenance, and a larger volume is taken to need as much per voxel. That holds
for blocks; it is a guess for stages that are one unit, and for what depends on how tiles overlap.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from connectome_db import volumes
from connectome_db.config import Project
from connectome_db.errors import ConfigError, StoreError
from connectome_db.versions.plan.forecast import Span

IMAGE = ("render", "image")
"""The stage and volume whose voxels are counted."""
PYRAMID = Span(8 / 7, 4 / 3)
"""All levels over the first: halved along three axes (isotropic voxels) or two (thick sections)."""
LABELS = Span(0.12, 0.27)
"""Bytes per voxel of the first level: uint64 in compressed_segmentation, blocks of 8³. Measured on 128³ voxels of
FIB-25: its true objects (91) and its supervoxels (702)."""


@dataclass(frozen=True)
class Layer:
    """What one volume, or the tables of one stage, hold per voxel of the image."""

    name: str
    bytes_per_voxel: Span
    why: str


@dataclass(frozen=True)
class StageWork:
    """What a stage took in a finished project."""

    stage: str
    worker_s_per_voxel: float
    units: int
    """Units whose seconds are recorded. One: the stage cannot be spread over workers."""


@dataclass(frozen=True)
class Measured:
    """A finished project: its size, and what it tells per voxel."""

    name: str
    voxels: int
    layers: tuple[Layer, ...]
    stages: tuple[StageWork, ...]


def assumed() -> tuple[Layer, ...]:
    """Layers from the project's encodings; tables are not among them, as nobody knows how many rows there will be."""
    labels = Span(LABELS.low * PYRAMID.low, LABELS.high * PYRAMID.high)
    return (
        Layer("image", PYRAMID, "uint8, not compressed"),
        Layer("mask", Span(0.0, PYRAMID.high), "the same; chunks without a defect are not written"),
        Layer("supervoxels", labels, "uint64, compressed_segmentation: FIB-25"),
        Layer("affinities", Span(3 * PYRAMID.low, 3 * PYRAMID.high), "three, uint8, not compressed"),
    )


def measured(project: Project) -> Measured | None:
    """What a project with data tells; None where no image was rendered."""
    try:
        voxels = volumes.open_info(project.data(IMAGE[0]) / IMAGE[1]).bounds.size_vx
    except StoreError:
        return None
    layers: list[Layer] = []
    work: list[StageWork] = []
    for stage in project.stages:
        layers += _layers(project.data(stage.name), voxels)
        found = _work(project, stage.name, voxels)
        if found is not None:
            work.append(found)
    return Measured(project.dataset.name, voxels, tuple(layers), tuple(work))


def _layers(folder: Path, voxels: int) -> list[Layer]:
    """Bytes of the volumes of a stage, one each, and of its other files."""
    if not folder.is_dir():
        return []
    inside = sorted(p for p in folder.iterdir() if (p / "info").is_file())
    sizes = {f"{folder.name}.{p.name}": _bytes(p) for p in inside}
    sizes[f"{folder.name}, tables"] = _bytes(folder) - sum(sizes.values())
    return [Layer(name, Span(n / voxels, n / voxels), f"{n:,} bytes") for name, n in sizes.items() if n]


def _bytes(folder: Path) -> int:
    """Bytes of all files below a folder. The store's and DVC's copies are links to the same bytes."""
    return sum(os.stat(os.path.join(at, n)).st_size for at, _, names in os.walk(folder) for n in names)  # noqa: PTH118


def _work(project: Project, stage: str, voxels: int) -> StageWork | None:
    path = project.provenance(stage) / "executions.parquet"
    try:
        seconds = pq.read_table(path, columns=["seconds"])["seconds"]
    except FileNotFoundError:
        return None
    except (OSError, pa.ArrowInvalid) as e:
        raise ConfigError(f"{path}: cannot be read ({e}); `connectome verify --repair` mends it") from e
    return StageWork(stage, float(pc.sum(seconds).as_py() or 0) / voxels, len(seconds)) if len(seconds) else None

"""Training volumes, and the splits of real data that the bundled models were trained on."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from connectome_db.errors import SourceError, nearest
from connectome_db.kernels.cleft import SynapsePoints
from connectome_db.kernels.normalise import normalise_stack

AC3_TRAIN_SECTIONS = (0, 28)
AC3_TEST_SECTIONS = (28, 40)
FIB25_TRAIN_SECTIONS = (0, 100)
FIB25_TEST_SECTIONS = (100, 140)
AC3_FILES = ("ac3_z000-039.h5", "synapses_z000-039.csv")
FIB25_FILES = ("ts2_z000-139.h5",)


@dataclass(frozen=True)
class TrainingVolume:
    """An image with its truth. All arrays (z, y, x), equal extent."""

    name: str
    image: NDArray[np.uint8]
    """Normalised per section as by `kernels.normalise.normalise_stack`."""
    labels: NDArray[np.unsignedinteger]
    """One id per object; 0 is boundary or extracellular space."""
    voxel_nm: tuple[float, float, float]
    digest: str
    """sha256 of the data as read, before normalisation."""
    synapses: SynapsePoints | None = None
    clefts: NDArray[np.unsignedinteger] | None = None
    """Value i + 1 on the cleft of synapse i, where the truth has clefts as voxels and not only points."""
    synapses_exhaustive: bool = True
    """False where only some synapses are listed: the loss is then masked away from the listed ones."""
    valid: NDArray[np.bool_] | None = None
    """False where the image shows no tissue or the truth is unknown: no loss there. None: valid everywhere."""


@dataclass(frozen=True)
class Split:
    """Volumes to learn from, and volumes to score on that were not learnt from."""

    train: tuple[TrainingVolume, ...]
    test: tuple[TrainingVolume, ...]
    source: str
    """Where the data comes from and under which licence, for the model card."""


def volume_digest(image: NDArray[np.uint8], labels: NDArray[np.unsignedinteger]) -> str:
    """sha256 over shape and values of an image (as uint8) and its labels (as uint64)."""
    digest = hashlib.sha256(f"training volume 1 {image.shape}".encode())
    digest.update(np.ascontiguousarray(image).tobytes())
    digest.update(np.ascontiguousarray(labels).astype("<u8").tobytes())
    return digest.hexdigest()


def load_split(dataset: str, folder: Path) -> Split:
    """Load a named split of real data from the folder that holds its files; unknown names are a SourceError."""
    loaders = {"ac3": load_ac3, "fib25": load_fib25}
    if dataset not in loaders:
        raise SourceError(f"training data {dataset!r}: not a known set{nearest(dataset, loaders)}")
    return loaders[dataset](folder)


def load_ac3(folder: Path) -> Split:
    """Mouse cortex, 30 x 6 x 6 nm (Kasthuri et al. 2015, doi:10.1016/j.cell.2015.06.054): z 0-27 train, 28-39 test."""
    raw, labels = _read_h5(folder / AC3_FILES[0], "raw", "labels")
    points = _read_ac3_synapses(folder / AC3_FILES[1])
    voxel_nm = (30.0, 6.0, 6.0)
    train, test = (
        _section_range(f"ac3 z {lo}-{hi - 1}", raw, labels, voxel_nm, (lo, hi), points)
        for lo, hi in (AC3_TRAIN_SECTIONS, AC3_TEST_SECTIONS)
    )
    return Split(
        (train,),
        (test,),
        "AC3, mouse somatosensory cortex (Kasthuri et al. 2015; SNEMI3D), via Rhoana/icon_archived; no licence stated, "
        "for evaluation: the data itself is not redistributed",
    )


def load_fib25(folder: Path) -> Split:
    """Fly medulla FIB-SEM, 10 nm isotropic (Takemura et al. 2015, 10.1073/pnas.1509820112): z 0-99 train, 100-139."""
    raw, labels = _read_h5(folder / FIB25_FILES[0], "raw", "gt")
    voxel_nm = (10.0, 10.0, 10.0)
    train, test = (
        _section_range(f"fib25 z {lo}-{hi - 1}", raw, labels, voxel_nm, (lo, hi), None)
        for lo, hi in (FIB25_TRAIN_SECTIONS, FIB25_TEST_SECTIONS)
    )
    return Split(
        (train,), (test,), "FIB-25 training sample 2 (Takemura et al. 2015), janelia-flyem/neuroproof_examples, CC-BY"
    )


def _section_range(
    name: str,
    raw: NDArray[np.uint8],
    labels: NDArray[np.unsignedinteger],
    voxel_nm: tuple[float, float, float],
    sections: tuple[int, int],
    synapses: SynapsePoints | None,
) -> TrainingVolume:
    low, high = sections
    image, truth = raw[low:high], labels[low:high]
    inside = None
    if synapses is not None:
        z = synapses.points_vx[:, 0]
        keep = (z >= low) & (z < high)
        moved = synapses.points_vx[keep] - np.array([low, 0, 0])
        inside = SynapsePoints(moved, synapses.pre[keep], synapses.post[keep], synapses.radius_nm[keep])
    return TrainingVolume(
        name=name,
        image=normalise_stack(image),
        labels=truth,
        voxel_nm=voxel_nm,
        digest=volume_digest(image, truth),
        synapses=inside,
        synapses_exhaustive=False,
    )


def _read_ac3_synapses(path: Path) -> SynapsePoints:
    _must_exist(path)
    with path.open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    points = np.array([[int(row["z"]), int(row["y"]), int(row["x"])] for row in rows], np.int64)
    size_px = np.array([float(row["psd_size_px"]) for row in rows])
    return SynapsePoints(
        points_vx=points.reshape(-1, 3),
        pre=np.array([int(row["seg_label_pre"]) for row in rows], np.uint64),
        post=np.array([int(row["seg_label_post"]) for row in rows], np.uint64),
        radius_nm=np.clip(6.0 * np.sqrt(size_px), 90.0, 260.0),  # a disc-like density of that many 6 nm pixels
    )


def _read_h5(path: Path, image: str, labels: str) -> tuple[NDArray[np.uint8], NDArray[np.unsignedinteger]]:
    _must_exist(path)
    with h5py.File(path, "r") as handle:
        missing = [name for name in (image, labels) if name not in handle]
        if missing:
            raise SourceError(f"{path}: wanted datasets {image} and {labels}, missing {', '.join(missing)}")
        return handle[image][:], handle[labels][:]


def _must_exist(path: Path) -> None:
    if not path.is_file():
        raise SourceError(f"{path}: training data not found; give the folder that holds this file")

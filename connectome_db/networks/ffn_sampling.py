"""What a flood-filling network is shown in training: windows around voxels inside true objects.

    truth ──> share of its object around every voxel, and its distance to the object's border ──> strata of voxels
    (seed, round, row, number) ──> a stratum, a voxel of it, an orientation, damage ──> image and truth around it

The strata are those of Januszewski et al. 2018 (10.1038/s41592-018-0049-4; `compute_partitions` of google/ffn): thin
and thick objects are shown equally often. Within one, voxels near and far from the border are too. An example is a
function of its four numbers, so a resumed training sees the same ones, and so does one on more ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy import ndimage

from connectome_db.errors import SourceError
from connectome_db.networks.architecture import Triple
from connectome_db.networks.augment import AugmentConfig, degrade, oriented, section_shifts

if TYPE_CHECKING:
    from connectome_db.networks.datasets import TrainingVolume

SHARES = (0.025, 0.05, 0.075, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Borders between the published bins: which share of the window is of the object in its middle."""
DISTANCES_VX = (1.5, 3.0, 6.0)
"""Borders between classes of distance to the object's border, in voxels of the finest axis."""
OTHER, OBJECT, UNKNOWN = 0, 1, 2
"""What the truth says of a voxel of a window; an unknown one does not count."""

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]


class FFNSamplingConfig(BaseModel):
    """Which windows, and how they are changed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_object_vx: int = Field(default=1000, ge=1)
    """Smaller objects of the truth are no place to start; published for FIB-25: 10,000."""
    connected: bool = True
    """Parts of the object in the middle that are not connected with it inside the window do not count, as no window
    shows how they belong together. False, as published: they are the object."""
    augment: AugmentConfig = AugmentConfig()


@dataclass(frozen=True)
class Example:
    """One object to learn. The middle of the window is inside it."""

    image: U8
    """(z, y, x)."""
    truth: U8
    """(z, y, x): OTHER, OBJECT or UNKNOWN."""
    order: I32
    """(shifts,): when each of `shifts_of` is tried; the first one, no shift, is 0."""


def shifts_of(deltas_vx: Triple) -> I64:
    """Where a window goes in training: (n, 3) shifts (z, y, x), no shift first, then every combination of ±delta."""
    axes = [(0,) if step == 0 else (0, -step, step) for step in deltas_vx]
    return np.array(list(product(*axes)), np.int64)


def object_shares(labels: I32, window_vx: Triple) -> NDArray[np.float32]:
    """Share of the window around each voxel that has its label: (z, y, x) dense labels -> float32, 0 on background.

    Windows reach beyond the volume, where there is nothing.
    """
    shares = np.zeros(labels.shape, np.float32)
    for index, box in enumerate(ndimage.find_objects(labels), start=1):
        mask = labels[box] == index  # outside of its box there is nothing of it
        near = ndimage.uniform_filter(mask.astype(np.float32), window_vx, mode="constant")
        shares[box][mask] = near[mask]
    return shares


def strata_of(labels: I32, window_vx: Triple, voxel_nm: tuple[float, float, float]) -> U8:
    """Stratum of every voxel (z, y, x): bin of SHARES times the number of distance classes, plus distance class."""
    edge = labels == 0
    for axis in range(3):
        head, tail = (
            tuple(part if a == axis else slice(None) for a in range(3)) for part in (slice(None, -1), slice(1, None))
        )
        differs = labels[head] != labels[tail]
        edge[head] |= differs
        edge[tail] |= differs
    finest = min(voxel_nm)
    distance = ndimage.distance_transform_edt(~edge, sampling=[nm / finest for nm in voxel_nm])
    near = np.digitize(distance, DISTANCES_VX).astype(np.uint8)
    share = np.digitize(object_shares(labels, window_vx), SHARES).astype(np.uint8)
    result: U8 = share * np.uint8(len(DISTANCES_VX) + 1) + near
    return result


@dataclass(frozen=True)
class _Prepared:
    """A volume with the voxels that examples may be around, by stratum."""

    image: U8
    labels: I32
    valid: NDArray[np.bool_] | None
    places: NDArray[np.signedinteger]
    """Flat indices of voxels, sorted by stratum."""
    starts: I64
    """(strata + 1,): where each stratum begins in `places`."""


class Pool:
    """All voxels that an example can be around. Made once; safe to use from several threads."""

    def __init__(self, volumes: Sequence[TrainingVolume], config: FFNSamplingConfig, window: Triple, deltas: Triple):
        """`window` (z, y, x): extent of an example, odd; `deltas`: steps of the network (z, y, x).

        A volume that is smaller than the window, or volumes without an object to start from, are a SourceError.
        """
        self.config, self.window_vx = config, window
        self.shifts = len(shifts_of(deltas))
        self._volumes = [_prepare(volume, config, window) for volume in volumes]
        counts = np.stack([np.diff(prepared.starts) for prepared in self._volumes])
        self._counts = counts
        """(volumes, strata)."""
        classes = len(DISTANCES_VX) + 1
        filled = counts.sum(axis=0).reshape(-1, classes) > 0
        self._bins = [(i, np.flatnonzero(row)) for i, row in enumerate(filled) if row.any()]
        if not self._bins:
            names = ", ".join(volume.name for volume in volumes)
            raise SourceError(
                f"{names}: wanted objects of at least {config.min_object_vx} voxels with a window {window} (z, y, x) "
                "around one of their voxels inside the volume, found none; give larger volumes or a smaller window"
            )

    @property
    def bins(self) -> list[int]:
        """Bins of SHARES in which there is a voxel to start from."""
        return [index for index, _ in self._bins]

    def example(self, seed: int, turn: int, row: int, number: int) -> Example:
        """Return example `number` of a row of the batch, counted from 0 within the round `turn`."""
        rng = np.random.default_rng([seed, turn, row, number])
        share, classes = self._bins[int(rng.integers(len(self._bins)))]
        stratum = share * (len(DISTANCES_VX) + 1) + int(rng.choice(classes))
        rank = int(rng.integers(self._counts[:, stratum].sum()))
        ends = self._counts[:, stratum].cumsum()
        which = int(np.searchsorted(ends, rank, side="right"))
        source = self._volumes[which]
        place = source.places[source.starts[stratum] + rank - (ends[which] - self._counts[which, stratum])]
        image, truth = _cut(source, np.unravel_index(int(place), source.labels.shape), self, rng)
        order = np.concatenate([[0], 1 + rng.permutation(self.shifts - 1)]).astype(np.int32)
        return Example(image, truth, order)


def _prepare(volume: TrainingVolume, config: FFNSamplingConfig, window: Triple) -> _Prepared:
    # An example is cut so that it has the wanted extent after it was turned: y and x change places, and z in some.
    largest = max(window)
    flat = max(window[1], window[2])
    needed = (largest,) * 3 if config.augment.isotropic else (window[0], flat, flat)
    if any(n < w for n, w in zip(volume.image.shape, needed, strict=True)):
        raise SourceError(
            f"{volume.name}: wanted at least {needed} voxels (z, y, x) for windows and steps, got "
            f"{volume.image.shape}; give a larger volume or a network with smaller fov_vx or deltas_vx"
        )
    ids, dense = np.unique(volume.labels, return_inverse=True)
    labels = dense.reshape(volume.labels.shape).astype(np.int32)
    if ids[0] != 0:
        labels += 1  # 0 stays free for background
    usable = (np.bincount(labels.ravel()) >= config.min_object_vx)[labels] & (labels > 0)
    if volume.valid is not None:
        usable &= volume.valid
    for axis, extent in enumerate(needed):
        outside = np.ones(labels.shape[axis], np.bool_)
        outside[extent // 2 : labels.shape[axis] - extent // 2] = False
        usable[tuple(outside if a == axis else slice(None) for a in range(3))] = False
    strata = strata_of(labels, window, volume.voxel_nm)
    places: NDArray[np.signedinteger] = np.flatnonzero(usable)
    if usable.size < 2**31:
        places = places.astype(np.int32)
    kind = strata.ravel()[places]
    order = np.argsort(kind, kind="stable")
    total = (len(SHARES) + 1) * (len(DISTANCES_VX) + 1)
    starts = np.concatenate([[0], np.bincount(kind, minlength=total).cumsum()]).astype(np.int64)
    return _Prepared(volume.image, labels, volume.valid, places[order], starts)


def _cut(source: _Prepared, middle: tuple[np.intp, ...], pool: Pool, rng: np.random.Generator) -> tuple[U8, U8]:
    augment = pool.config.augment
    code = int(rng.integers(48 if augment.isotropic else 16))
    axes = oriented(np.empty((1, 2, 3), np.bool_), code, augment.isotropic).shape
    extent = [0, 0, 0]
    for wanted, axis in zip(pool.window_vx, axes, strict=True):
        extent[axis - 1] = wanted
    low = [int(m) - e // 2 for m, e in zip(middle, extent, strict=True)]
    shifts = section_shifts(rng, extent[0], augment)
    shifts = shifts - shifts[extent[0] // 2]  # the middle stays where it is
    corners = np.clip(low[1:] + shifts, 0, np.subtract(source.labels.shape, extent)[1:])
    moves = bool(shifts.any())

    def cut(array: NDArray[np.generic]) -> NDArray[np.generic]:
        out = array[tuple(slice(n, n + e) for n, e in zip(low, extent, strict=True))]
        if moves:
            out = np.empty(extent, array.dtype)
            for z, (y, x) in enumerate(corners.tolist()):
                out[z] = array[low[0] + z, y : y + extent[1], x : x + extent[2]]
        return np.ascontiguousarray(oriented(out, code, augment.isotropic))

    labels = cut(source.labels)
    centre = tuple(n // 2 for n in labels.shape)
    same = labels == labels[centre]
    truth = same.astype(np.uint8)
    if pool.config.connected:
        parts, _ = ndimage.label(same)
        truth[same & (parts != parts[centre])] = UNKNOWN
    if source.valid is not None:
        truth[~cut(source.valid).astype(np.bool_, copy=False)] = UNKNOWN
    return degrade(cut(source.image).astype(np.uint8, copy=False), rng, augment), truth

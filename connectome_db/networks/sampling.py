"""Which patch the network sees at which step: a function of (seed, step), so a resumed training sees the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from connectome_db.errors import SourceError
from connectome_db.kernels.affinity import Offset, affinity_targets, thicken_boundaries
from connectome_db.kernels.cleft import CLEFT_CHANNELS, cleft_targets, known_negatives
from connectome_db.kernels.shape_descriptors import DESCRIPTORS, grid_step, stored_descriptors
from connectome_db.networks.augment import AugmentConfig, degrade, oriented, oriented_descriptors, section_shifts
from connectome_db.networks.datasets import TrainingVolume

Task = Literal["affinity", "cleft"]


class SamplingConfig(BaseModel):
    """Patches and targets."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: Task
    patch_vx: tuple[int, int, int]
    """Extent (z, y, x) of a patch; a multiple of the network's alignment."""
    batch: int = Field(default=1, ge=1)
    offsets: tuple[Offset, ...] = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
    """Affinity task: the offset (z, y, x) of each output channel."""
    auxiliary_weight: float = Field(default=0.3, ge=0)
    """Affinity task: weight of channels after the third, which help learning but are not needed downstream."""
    descriptor_sigma_nm: float | None = Field(default=None, gt=0)
    """Affinity task: learn local shape descriptors in a window of this standard deviation as well, in 10 channels after
    the affinities (`kernels.shape_descriptors`); None: affinities alone."""
    descriptor_weight: float = Field(default=5.0, ge=0)
    """Weight of the descriptors' mean squared error beside the cross-entropy of the affinities."""
    thicken: bool = False
    """Affinity task: make the boundary between touching labels two voxels wide (truth without a boundary label)."""
    balance: float = Field(default=0.5, ge=0, le=1)
    """How far the loss evens out rare and frequent targets: 0 not at all, 1 until both weigh the same."""
    positive_share: float = Field(default=0.7, ge=0, le=1)
    """Cleft task: patches placed on a synapse; the others lie anywhere."""
    augment: AugmentConfig = AugmentConfig()


@dataclass(frozen=True)
class Source:
    """A volume prepared for sampling: cleft masks and loss weights are made once."""

    volume: TrainingVolume
    masks: NDArray[np.bool_] | None
    """Cleft task: (3, z, y, x)."""
    weight: NDArray[np.float32] | None
    """(z, y, x) weight in the loss; None: 1 everywhere."""
    centres: NDArray[np.int64]
    """Cleft task: (n, 3) voxels inside clefts; (0, 3) for the affinity task."""
    descriptors: NDArray[np.uint8] | None = None
    """Affinity task with shape descriptors: (10, z, y, x), 255 = 1."""


def prepare(volume: TrainingVolume, config: SamplingConfig) -> Source:
    """Make masks and weights of one volume. A volume without synapses for the cleft task is a SourceError."""
    if any(n < p for n, p in zip(volume.image.shape, config.patch_vx, strict=True)):
        raise SourceError(f"{volume.name}: extent {volume.image.shape} is smaller than the patch {config.patch_vx}")
    weight = None if volume.valid is None else volume.valid.astype(np.float32)
    none = np.zeros((0, 3), np.int64)
    if config.task == "affinity":
        sigma_nm, voxel_nm = config.descriptor_sigma_nm, volume.voxel_nm
        if sigma_nm is None:
            return Source(volume, None, weight, none)
        shape = stored_descriptors(volume.labels, voxel_nm, sigma_nm, grid_step(voxel_nm, sigma_nm))
        return Source(volume, None, weight, none, shape)
    if volume.synapses is None:
        raise SourceError(f"{volume.name}: the cleft task needs synapses, this volume lists none")
    masks = cleft_targets(volume.labels, volume.synapses, volume.voxel_nm, volume.clefts)
    if not volume.synapses_exhaustive:
        known = known_negatives(volume.labels, volume.synapses, volume.voxel_nm)
        weight = known if weight is None else known * weight
    centres = np.argwhere(masks[0]).astype(np.int64)
    if len(centres) == 0:
        raise SourceError(f"{volume.name}: no listed synapse lies between its two partners; nothing to learn from")
    return Source(volume, masks, weight, centres)


def channels_of(config: SamplingConfig) -> int:
    """Number of output channels of the task."""
    if config.task == "cleft":
        return len(CLEFT_CHANNELS)
    return len(config.offsets) + descriptors_of(config)


def descriptors_of(config: SamplingConfig) -> int:
    """How many of the last output channels are shape descriptors: numbers to hit, where the others are yes or no."""
    wanted = config.task == "affinity" and config.descriptor_sigma_nm is not None
    return len(DESCRIPTORS) if wanted else 0


def batch_at(
    sources: Sequence[Source], config: SamplingConfig, seed: int, step: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return the batch of one step: images (batch, z, y, x) uint8 and (batch, z, y, x, 2 c) targets, then weights."""
    rng = np.random.default_rng([seed, step])
    sizes = np.array([source.volume.image.size for source in sources], np.float64)
    images, truths = [], []
    for _ in range(config.batch):
        source = sources[int(rng.choice(len(sources), p=sizes / sizes.sum()))]
        image, truth = _patch(source, config, rng)
        images.append(image)
        truths.append(truth)
    return np.stack(images), np.stack(truths)


def _patch(
    source: Source, config: SamplingConfig, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    volume, augment = source.volume, config.augment
    code = int(rng.integers(48 if augment.isotropic else 16))
    shape = volume.image.shape
    # The patch is cut so that it has the wanted extent after `oriented`.
    axes = oriented(np.empty(tuple(range(1, 4)), np.bool_), code, augment.isotropic).shape
    extent = [0, 0, 0]
    for wanted, axis in zip(config.patch_vx, axes, strict=True):
        extent[axis - 1] = min(wanted, shape[axis - 1])
    start = _place(source, config, extent, rng)
    shifts = section_shifts(rng, extent[0], augment)

    def cut(array: NDArray[np.generic]) -> NDArray[np.generic]:
        return np.ascontiguousarray(oriented(_sections(array, start, extent, shifts), code, augment.isotropic))

    no_channels = np.zeros((0, *config.patch_vx), np.float32)
    shape_target, shape_weight = no_channels, no_channels
    image = degrade(cut(volume.image).astype(np.uint8, copy=False), rng, augment)
    if source.masks is None:
        labels = cut(volume.labels)
        if source.descriptors is not None:
            plain = _sections(source.descriptors, start, extent, shifts)
            turned = oriented_descriptors(plain, code, augment.isotropic)  # type: ignore[arg-type]  # as they are stored
            shape_target = turned.astype(np.float32) / np.float32(255)
            shape_weight = np.broadcast_to((labels != 0).astype(np.float32), turned.shape).copy()
        if config.thicken:
            labels = thicken_boundaries(labels)  # type: ignore[arg-type]  # integer in, integer out
        target, valid = affinity_targets(labels, config.offsets)  # type: ignore[arg-type]  # as above
        weight = valid.astype(np.float32)
        weight[3:] *= config.auxiliary_weight
    else:
        target = np.stack([cut(mask) for mask in source.masks]).astype(np.bool_, copy=False)
        weight = np.ones(target.shape, np.float32)
    if source.weight is not None:
        known = cut(source.weight).astype(np.float32, copy=False)
        weight *= known
        shape_weight = shape_weight * known
    weight *= _balance(target, weight, config.balance)
    parts = [target.astype(np.float32), shape_target, weight, shape_weight]
    return image, np.moveaxis(np.concatenate(parts), 0, -1)


def _sections(
    array: NDArray[np.generic], start: Sequence[int], extent: Sequence[int], shifts: NDArray[np.int64]
) -> NDArray[np.generic]:
    """Cut `extent` (z, y, x) at `start` out of (…, z, y, x), each section moved by its shift within the array."""
    room = np.array(array.shape[-2:]) - extent[1:]
    corner = np.clip(np.array(start[1:]) + shifts, 0, room).tolist()
    sections = [array[..., start[0] + z, y : y + extent[1], x : x + extent[2]] for z, (y, x) in enumerate(corner)]
    return np.stack(sections, axis=-3)


def _place(source: Source, config: SamplingConfig, extent: list[int], rng: np.random.Generator) -> list[int]:
    shape = source.volume.image.shape
    room = [n - e for n, e in zip(shape, extent, strict=True)]
    anywhere = [int(rng.integers(r + 1)) for r in room]
    if len(source.centres) == 0 or rng.random() >= config.positive_share:
        return anywhere
    centre = source.centres[int(rng.integers(len(source.centres)))]
    jitter = [int(rng.integers(-(e // 3), e // 3 + 1)) for e in extent]
    return [int(np.clip(c - e // 2 + j, 0, r)) for c, e, j, r in zip(centre, extent, jitter, room, strict=True)]


def _balance(target: NDArray[np.bool_], weight: NDArray[np.float32], power: float) -> NDArray[np.float32]:
    """Weights per channel (c, z, y, x): (0.5 / share) ** power for positives and for negatives, at most 20."""
    out = np.empty(target.shape, np.float32)
    for c in range(target.shape[0]):
        total = float(weight[c].sum())
        share = float(weight[c][target[c]].sum()) / total if total > 0 else 0.5
        share = min(max(share, 1e-4), 1 - 1e-4)
        positive = min((0.5 / share) ** power, 20.0)
        negative = min((0.5 / (1 - share)) ** power, 20.0)
        out[c] = np.where(target[c], np.float32(positive), np.float32(negative))
    return out

"""What a U-Net is made of, and which input voxels one output voxel can see. No neural-network library is imported here.

    level 0   stem conv - blocks ------------------------ add - blocks - 1x1x1 conv -> logits
                  | down (conv, kernel = stride)           ^ up (transposed conv, kernel = stride)
    level 1        blocks ------------------------- add - blocks
                      | down                         ^ up
    level 2            blocks ----------------------/

Down- and upsampling use kernel = stride and no overlap, so every grid of the network is a subset of one lattice fixed
by the box's first voxel: boxes whose starts are congruent modulo `alignment_vx` see the same lattice. Nothing is
normalised over the batch or over the block, so a voxel's value depends on its receptive field alone.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

Triple = tuple[int, int, int]
Factor = Annotated[int, Field(ge=1, le=4)]
Extent = Annotated[int, Field(ge=1, le=7)]


class Level(BaseModel):
    """One resolution of the U-Net."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    features: int = Field(ge=1, le=512)
    """Channels of every convolution at this level."""
    down: tuple[Factor, Factor, Factor] = (1, 1, 1)
    """Downsampling (z, y, x) from the level above; (1, 1, 1) at the first level."""
    kernels: tuple[tuple[Extent, Extent, Extent], ...]
    """Kernel extents (z, y, x), odd, of one residual block's convolutions; (1, 3, 3) where sections are far apart."""
    encoder_blocks: int = Field(default=1, ge=0, le=4)
    """Residual blocks on the way down (all blocks of the lowest level)."""
    decoder_blocks: int = Field(default=1, ge=0, le=4)
    """Residual blocks on the way up; unused at the lowest level."""


class UNetConfig(BaseModel):
    """A residual U-Net with summed skips (after Lee et al. 2017, arXiv:1706.00120), without normalisation layers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["unet"] = "unet"
    in_channels: int = Field(default=1, ge=1)
    channels: tuple[str, ...] = Field(min_length=1)
    """Names of the output channels, such as "aff_z1"; each is a probability after the sigmoid."""
    stem_kernel: tuple[Extent, Extent, Extent] = (1, 3, 3)
    """Extent (z, y, x), odd, of the first convolution."""
    levels: tuple[Level, ...] = Field(min_length=1)
    image_mean: float = 128.0
    image_std: float = Field(default=32.0, gt=0)
    """The network sees (uint8 - image_mean) / image_std; equal to the target of `kernels.normalise`."""

    @model_validator(mode="after")
    def _consistent(self) -> UNetConfig:
        if self.levels[0].down != (1, 1, 1):
            raise ValueError(f"levels[0].down: wanted (1, 1, 1), the input's own grid, got {self.levels[0].down}")
        if len(set(self.channels)) != len(self.channels):
            raise ValueError(f"channels: wanted distinct names, got {self.channels}")
        for kernel in (self.stem_kernel, *(k for level in self.levels for k in level.kernels)):
            if any(extent % 2 == 0 for extent in kernel):
                raise ValueError(f"kernel: wanted odd extents, got {kernel}")
        return self


def alignment_vx(config: UNetConfig) -> Triple:
    """Total downsampling (z, y, x) in voxels: boxes must start at multiples of it (of one lattice) to agree."""
    product = np.prod([level.down for level in config.levels], axis=0)
    return int(product[0]), int(product[1]), int(product[2])


def receptive_margin_vx(config: UNetConfig) -> Triple:
    """Context (z, y, x) in voxels on each side beyond which input cannot change a voxel's prediction.

    Exact for the worst position on the lattice of `alignment_vx`: the dependency is followed as an interval from
    every phase of the output grid back to the input.
    """
    z, y, x = (_axis_margin(config, axis) for axis in range(3))
    return z, y, x


def flops_per_voxel(config: UNetConfig) -> float:
    """Multiplications plus additions of all convolutions, per input voxel, for an input of many voxels."""
    total = 0.0
    share = 1.0  # voxels of this level per input voxel
    previous = config.in_channels
    for i, level in enumerate(config.levels):
        kernel = config.stem_kernel if i == 0 else level.down
        share /= float(np.prod(level.down))
        total += 2 * share * previous * level.features * float(np.prod(kernel))
        if i > 0:  # the transposed convolution back up: one tap per voxel of the level above
            total += 2 * share * previous * level.features * float(np.prod(level.down))
        blocks = level.encoder_blocks + (level.decoder_blocks if i < len(config.levels) - 1 else 0)
        total += 2 * share * blocks * level.features**2 * sum(float(np.prod(k)) for k in level.kernels)
        previous = level.features
    return total + 2 * config.levels[0].features * len(config.channels)


def _axis_margin(config: UNetConfig, axis: int) -> int:
    period = alignment_vx(config)[axis]
    origin = 1 << 16  # far from 0, a multiple of every period (periods are products of 1..4 in practice of 1, 2, 4)
    origin -= origin % period
    margin = 0
    for phase in range(period):
        at = origin + phase
        low, high = _input_interval(config, axis, at)
        margin = max(margin, at - low, high - at)
    return margin


def _input_interval(config: UNetConfig, axis: int, at: int) -> tuple[int, int]:
    """First and last input index that output index `at` depends on along `axis`."""
    radius = [sum(kernel[axis] // 2 for kernel in level.kernels) for level in config.levels]
    factor = [level.down[axis] for level in config.levels]
    last = len(config.levels) - 1
    skip = []  # what the decoder needs of the encoder's output, per level, in that level's voxels
    low = high = at
    for i, level in enumerate(config.levels):
        if i > 0:
            low, high = low // factor[i], high // factor[i]
        if i < last:
            low, high = low - radius[i] * level.decoder_blocks, high + radius[i] * level.decoder_blocks
        skip.append((low, high))
    low, high = skip[last]
    for i in range(last, -1, -1):
        low, high = min(low, skip[i][0]), max(high, skip[i][1])
        reach = radius[i] * config.levels[i].encoder_blocks
        low, high = low - reach, high + reach
        if i > 0:
            low, high = low * factor[i], high * factor[i] + factor[i] - 1
    stem = config.stem_kernel[axis] // 2
    return low - stem, high + stem

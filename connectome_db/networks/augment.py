"""Training patches made harder, as acquisition does: brightness, noise, blur, shifted and missing sections.

Labels follow every geometric change, so that targets are computed from the labels of the patch as the network sees
it. A section shifted by a residual misalignment is shifted with its labels: they say where its membranes are.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from connectome_db.kernels.shape_descriptors import PAIRS

Share = float


class AugmentConfig(BaseModel):
    """How strongly patches are changed. Shares are probabilities per patch or, where said, per section."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    isotropic: bool = False
    """Exchange z with y and x as well; right only for isotropic voxels without section artefacts."""
    contrast: float = Field(default=0.15, ge=0, lt=1)
    """Per section: contrast factor in 1 ± this."""
    brightness: float = Field(default=12.0, ge=0)
    """Per section: grey levels added, ± this."""
    gamma: float = Field(default=0.2, ge=0, lt=1)
    """Per patch: exponent in 1 ± this."""
    noise: float = Field(default=10.0, ge=0)
    """Per patch: standard deviation of added Gaussian noise, 0 to this, in grey levels."""
    blur_share: Share = Field(default=0.6, ge=0, le=1)
    """Patches that are blurred within the section as a whole, by up to `blur_sigma_px`: rendering resamples images."""
    blur_sigma_px: float = Field(default=1.0, gt=0)
    defocus_share: Share = Field(default=0.05, ge=0, le=1)
    """Sections that are blurred more than their neighbours, by up to twice `blur_sigma_px`."""
    missing_share: Share = Field(default=0.02, ge=0, le=1)
    """Sections whose image is lost (flat grey or black); their labels stay true."""
    shift_px: int = Field(default=1, ge=0, le=8)
    """Largest shift of a section, with its labels, along y and x."""
    shift_share: Share = Field(default=0.7, ge=0, le=1)
    """Patches whose sections are shifted."""


def oriented(array: NDArray[np.generic], code: int, isotropic: bool) -> NDArray[np.generic]:
    """Flip and transpose a (z, y, x) array: bits 0-2 flip z, y, x; bit 3 swaps y and x; the rest turns z (isotropic).

    The 16 codes below 16 are the symmetries of a stack of sections; isotropic volumes have 48.
    """
    for axis in range(3):
        if code >> axis & 1:
            array = np.flip(array, axis)
    if code >> 3 & 1:
        array = array.transpose(0, 2, 1)
    if isotropic:
        turn = code >> 4
        array = array.transpose([(0, 1, 2), (1, 2, 0), (2, 0, 1)][turn % 3])
    return array


def oriented_descriptors(descriptors: NDArray[np.uint8], code: int, isotropic: bool) -> NDArray[np.uint8]:
    """Turn stored shape descriptors (10, z, y, x) as `oriented` turns their labels: their values have directions.

    A flipped axis turns the mean offset along it, and its correlations with the others, into 1 minus themselves.
    """
    # Where each axis of the result was before; seen from an array whose extents name its axes.
    source = [n - 1 for n in oriented(np.empty((1, 2, 3), np.bool_), code, isotropic).shape]
    flipped = [bool(code >> axis & 1) for axis in source]
    pair = {frozenset(axes): channel for channel, axes in enumerate(PAIRS, 3)}
    channels = [(axis, flip) for axis, flip in zip(source, flipped, strict=True)]
    channels += [(pair[frozenset((source[a], source[b]))], flipped[a] != flipped[b]) for a, b in PAIRS]
    channels.append((len(descriptors) - 1, False))
    turned = [oriented(descriptors[channel], code, isotropic) for channel, _ in channels]
    return np.stack([255 - t if flip else t for t, (_, flip) in zip(turned, channels, strict=True)]).astype(np.uint8)


def section_shifts(rng: np.random.Generator, sections: int, config: AugmentConfig) -> NDArray[np.int64]:
    """Return (sections, 2) shifts along y and x, each in [-shift_px, shift_px]; all 0 for patches left in place."""
    shifts = rng.integers(-config.shift_px, config.shift_px + 1, (sections, 2))
    return shifts if rng.random() < config.shift_share else np.zeros_like(shifts)


def degrade(image: NDArray[np.uint8], rng: np.random.Generator, config: AugmentConfig) -> NDArray[np.uint8]:
    """Change the grey levels of a (z, y, x) patch; geometry stays."""
    sections = image.shape[0]
    out = image.astype(np.float32)
    exponent = 1.0 + config.gamma * rng.uniform(-1, 1)
    out = 255.0 * (out / 255.0) ** exponent
    gain = 1.0 + config.contrast * rng.uniform(-1, 1, (sections, 1, 1))
    shift = config.brightness * rng.uniform(-1, 1, (sections, 1, 1))
    out = ((out - 128.0) * gain + 128.0 + shift).astype(np.float32)
    sigma = np.zeros(sections)
    if rng.random() < config.blur_share:
        sigma += config.blur_sigma_px * rng.random()
    sigma += 2 * config.blur_sigma_px * rng.random(sections) * (rng.random(sections) < config.defocus_share)
    for z in np.flatnonzero(sigma > 0.2):
        out[z] = cv2.GaussianBlur(out[z], (0, 0), float(sigma[z]))
    out += np.float32(config.noise * rng.random()) * rng.standard_normal(out.shape, np.float32)
    for z in np.flatnonzero(rng.random(sections) < config.missing_share):
        out[z] = 0.0 if rng.random() < 0.5 else 128.0
    result: NDArray[np.uint8] = np.clip(np.rint(out), 0, 255).astype(np.uint8)
    return result

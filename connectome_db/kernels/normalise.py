"""Contrast normalisation of one section: the same before training and in the pipeline's render stage."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TAIL = 0.01
"""Share of the darkest and of the brightest voxels that the statistics leave out: dirt, charging, resin."""


def section_gain_offset(
    image: NDArray[np.uint8], valid: NDArray[np.bool_] | None = None, *, mean: float = 128.0, std: float = 32.0
) -> tuple[float, float]:
    """Return (gain, offset) such that image * gain + offset has the wanted mean and standard deviation.

    `image` is one section, (y, x) uint8; `valid` marks the voxels that count (default: all). Statistics are exact sums
    over the grey-level histogram without its 1% tails, so they do not depend on the order of voxels. The spread of the
    trimmed voxels is the spread wanted: equal for training and rendering, which is all that matters. A section without
    valid voxels or without contrast gets gain 1 and keeps its levels.
    """
    values = image if valid is None else image[valid]
    count = np.bincount(values.ravel(), minlength=256).astype(np.int64)
    total = int(count.sum())
    if total == 0:
        return 1.0, 0.0
    cut = int(total * TAIL)
    below = np.cumsum(count)
    kept = np.clip(below, cut, total - cut) - np.clip(below - count, cut, total - cut)
    level = np.arange(256, dtype=np.int64)
    n = int(kept.sum())
    first = int((kept * level).sum()) / n
    variance = int((kept * level * level).sum()) / n - first * first
    if variance < 1e-6:
        return 1.0, 0.0
    gain = std / float(np.sqrt(variance))
    return gain, mean - first * gain


def apply_gain_offset(image: NDArray[np.uint8], gain: float, offset: float) -> NDArray[np.uint8]:
    """Return round(image * gain + offset) clipped to uint8, by a table of the 256 grey levels."""
    table = np.clip(np.rint(np.arange(256) * gain + offset), 0, 255).astype(np.uint8)
    result: NDArray[np.uint8] = table[image]
    return result


def normalise_section(
    image: NDArray[np.uint8], valid: NDArray[np.bool_] | None = None, mean: float = 128.0, std: float = 32.0
) -> NDArray[np.uint8]:
    """Return one section, (y, x) uint8, brought to the wanted mean and standard deviation; invalid voxels become 0."""
    gain, offset = section_gain_offset(image, valid, mean=mean, std=std)
    out = apply_gain_offset(image, gain, offset)
    if valid is not None:
        out[~valid] = 0
    return out


def normalise_stack(image: NDArray[np.uint8], valid: NDArray[np.bool_] | None = None) -> NDArray[np.uint8]:
    """Normalise each section of a (z, y, x) uint8 stack on its own."""
    out = np.empty_like(image)
    for z in range(image.shape[0]):
        out[z] = normalise_section(image[z], None if valid is None else valid[z])
    return out

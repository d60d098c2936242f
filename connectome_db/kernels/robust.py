"""Robust least squares: weights that take the power from outliers (Beaton and Tukey 1974; Huber 1964)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]

TUKEY = 4.685
"""Cut-off in standard deviations that keeps 95% efficiency for Gaussian noise."""
HUBER = 1.345
"""The same for Huber's weights."""
_RAYLEIGH_MEDIAN = 1.1774
"""Median length of a vector of two Gaussians of standard deviation 1."""


def distance_scale(distance: F64, floor: float) -> float:
    """Standard deviation per axis of 2-D residuals from their lengths (N,), by the median; never below `floor`.

    Given in steps of a ninth: a scale is shared by the whole stack, and if it followed each residual, a change in one
    section would move all others by a hair, and everything made from them would have to be made again.
    """
    if distance.size == 0:
        return floor
    return stepped(max(float(np.median(distance)) / _RAYLEIGH_MEDIAN, floor))


def stepped(scale: float) -> float:
    """The nearest of 2**(k/8), so that small changes of what a scale is estimated from leave it the same."""
    return float(2.0 ** (round(8 * np.log2(scale)) / 8))


def tukey(distance: F64, scale: float) -> F64:
    """Tukey's biweight of residual lengths (N,): 1 at 0, exactly 0 from `TUKEY * scale` on."""
    ratio = np.clip(np.abs(distance) / (TUKEY * scale), 0.0, 1.0)
    return np.asarray((1.0 - ratio * ratio) ** 2, dtype=np.float64)


def huber(distance: F64, scale: float) -> F64:
    """Huber's weights of residual lengths (N,): 1 up to `HUBER * scale`, then falling as 1/length."""
    limit = HUBER * scale
    return np.asarray(limit / np.maximum(np.abs(distance), limit), dtype=np.float64)

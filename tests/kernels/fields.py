"""Fields of cells that have a known autocorrelation, and overlaps of boxes."""

from __future__ import annotations

import numpy as np


def ar1_field(rng: np.random.Generator, shape: tuple[int, int, int], rho_z: float, rho_yx: float) -> np.ndarray:
    """A Gaussian field (z, y, x) of variance 1: a first-order recursion along each axis."""
    out = rng.standard_normal(shape)
    for axis, rho in enumerate((rho_z, rho_yx, rho_yx)):
        out = np.moveaxis(out, axis, 0)
        for k in range(1, len(out)):
            out[k] = rho * out[k - 1] + np.sqrt(1 - rho * rho) * out[k]
        out = np.moveaxis(out, 0, axis)
    return out


def overlap(a: tuple[slice, ...], b: tuple[tuple[float, float], ...]) -> float:
    """Intersection over union of a box of slices and a box of (lo, hi)."""
    both = np.prod([max(0.0, min(s.stop, hi) - max(s.start, lo)) for s, (lo, hi) in zip(a, b, strict=True)])
    sizes = [np.prod([s.stop - s.start for s in a]), np.prod([hi - lo for lo, hi in b])]
    return float(both / (sum(sizes) - both))

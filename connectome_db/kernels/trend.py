"""Trend surfaces of a map (y, x), and the box in which a smooth map departs from its reference level."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

F64 = npt.NDArray[np.float64]
F32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]

SMOOTH_ORDER = 3
"""Highest total order of the cosines of the smooth surface."""


def _axes(shape_yx: tuple[int, int]) -> tuple[F64, F64]:
    y, x = (np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in shape_yx)
    yy, xx = np.meshgrid(y, x, indexing="ij")
    return yy.ravel(), xx.ravel()


def _orthonormal(columns: F64) -> F64:
    """Orthonormal basis (N, K) of the columns, the first staying first; columns that add nothing are dropped."""
    q, r = np.linalg.qr(columns)
    return np.asarray(q[:, np.abs(np.diag(r)) > 1e-9 * np.sqrt(len(columns))], dtype=np.float64)


def polynomial_basis(shape_yx: tuple[int, int], order: int) -> F64:
    """Orthonormal polynomials (cells, K) up to a total `order` (1 linear, 2 quadratic), the constant first."""
    y, x = _axes(shape_yx)
    return _orthonormal(np.stack([y**i * x**j for i in range(order + 1) for j in range(order + 1 - i)], axis=1))


def smooth_basis(shape_yx: tuple[int, int]) -> F64:
    """Orthonormal low cosines (cells, K) up to a total order of three, the constant first."""
    y, x = _axes(shape_yx)
    n = [min(SMOOTH_ORDER, s - 1) for s in shape_yx]
    waves = [
        np.cos(np.pi * i * (y + 1) / 2 * (1 - 1 / shape_yx[0]))
        * np.cos(np.pi * j * (x + 1) / 2 * (1 - 1 / shape_yx[1]))
        for i in range(n[0] + 1)
        for j in range(n[1] + 1)
        if i + j <= SMOOTH_ORDER
    ]
    return _orthonormal(np.stack(waves, axis=1))


def explained(maps: F64 | F32, basis: F64, good: Bool) -> F64:
    """Share of the variance of maps (n, cells) that the basis (cells, K), constant first, explains: (n,).

    Only the cells that are `good` count; the basis is made orthonormal on them.
    """
    q = _orthonormal(basis[good]).astype(maps.dtype)
    m = maps[:, good]
    m = m - m.mean(axis=1, keepdims=True)
    total = np.einsum("ij,ij->i", m, m)
    fitted = m @ q
    return np.asarray(np.einsum("ij,ij->i", fitted, fitted) / np.maximum(total, 1e-12), dtype=np.float64)


@dataclass(frozen=True)
class Smooth:
    """A smoothed map (y, x), the standard error of the fit and the effective number of parameters."""

    fit: F64
    error: float
    freedom: float


def smooth_map(cells: F64, weights: F64 | None = None) -> Smooth:
    """Thin-plate smoothing of a map (y, x) with gaps (NaN), as stiff as generalised cross-validation asks.

    Penalised second differences on the lattice (Eilers and Marx 1996; Wahba 1990). Gaps are filled by the surface.
    """
    shape = (cells.shape[0], cells.shape[1])
    good = np.isfinite(cells).ravel()
    n = int(good.sum())
    w = good.astype(float)
    if weights is not None and n:
        w = np.where(good, weights.ravel() / np.mean(weights.ravel()[good]), 0.0)
    v = np.where(good, np.nan_to_num(cells).ravel(), 0.0)
    if n < 4 or min(shape) < 2:
        level = float(np.sum(w * v) / max(np.sum(w), 1e-12))
        return Smooth(np.where(good, v, level).reshape(shape), 0.0, float(n))
    penalty = _bending(shape)
    best: tuple[float, F64, float, float] | None = None
    for stiffness in 10.0 ** np.arange(-2, 3.01, 0.5):
        inverse = np.linalg.inv(np.diag(w) + stiffness * penalty + 1e-9 * np.eye(len(w)))
        fit = inverse @ (w * v)
        freedom = float(np.sum(np.diag(inverse) * w))
        rest = float(np.sum(w * (v - fit) ** 2))
        # 1.4 counts each parameter dearer: GCV follows noise in small maps (Kim and Gu 2004).
        score = n * rest / max(n - 1.4 * freedom, 1e-6) ** 2
        if 1.4 * freedom < 0.9 * n and (best is None or score < best[0]):
            best = (score, fit, freedom, rest)
    if best is None:
        return Smooth(cells, 0.0, float(n))
    _, fit, freedom, rest = best
    sd = np.sqrt(rest / max(n - freedom, 1.0))
    return Smooth(fit.reshape(shape), float(sd * np.sqrt(freedom / n)), freedom)


def _bending(shape: tuple[int, int]) -> F64:
    """The thin plate's bending energy (N, N) on a lattice."""

    def difference(n: int, order: int) -> F64:
        return np.diff(np.eye(n), order, axis=0)

    height, width = shape
    second = np.zeros((height * width, height * width))
    for matrix, factor in (
        (np.kron(difference(height, 2), np.eye(width)), 1.0),
        (np.kron(np.eye(height), difference(width, 2)), 1.0),
        (np.kron(difference(height, 1), difference(width, 1)), 2.0),
    ):
        second += factor * matrix.T @ matrix
    return second


@dataclass(frozen=True)
class Affected:
    """Where a map departs: rows and columns of the box, the cells themselves (y, x), reference and peak level."""

    y: slice
    x: slice
    cells: Bool
    reference: float
    peak: float


def affected_box(
    cells: F64, weights: F64 | None = None, share: float = 0.12, errors: float = 2.0, sign: int = 0
) -> Affected:
    """The box in which the *smoothed* map (y, x) departs from its reference level.

    The reference is the median of the half of the cells that are farthest (in value) from the peak. A cell is
    affected where the smooth map departs by more than `share` of the peak's departure, by more than `errors`
    standard errors of the fit, and by more than twice what the far half itself swings. The box holds those that hang
    together with the peak. Single cells need not be significant, so a gradient is followed out to where it fades.
    `sign` -1 or 1 asks for a low or a high.
    """
    smooth = smooth_map(cells, weights)
    fit = smooth.fit
    low, high = float(fit.min()), float(fit.max())
    middle = float(np.median(fit))
    down = high - middle < middle - low if sign == 0 else sign < 0
    peak = low if down else high
    order = np.argsort(np.abs(fit - peak).ravel(), kind="stable")
    far = fit.ravel()[order[len(order) // 2 :]]
    reference = float(np.median(far))
    depart = (reference - fit) if down else (fit - reference)
    top = abs(peak - reference)
    swing = float(np.sqrt(np.mean((far - reference) ** 2)))  # noise that hangs together passes for a surface
    limit = min(max(share * top, errors * smooth.error, 2.0 * swing), 0.5 * top)
    over = depart > limit if top > 0 else np.ones(fit.shape, dtype=bool)
    label, _ = ndimage.label(over, structure=np.ones((3, 3)))
    at = np.unravel_index(int(np.argmax(depart)), fit.shape)
    mine = np.asarray(label == label[at], dtype=np.bool_)
    rows, columns = np.flatnonzero(mine.any(axis=1)), np.flatnonzero(mine.any(axis=0))
    return Affected(
        slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1), mine, reference, peak
    )

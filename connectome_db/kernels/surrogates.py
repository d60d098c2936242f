"""Fields that look like a metric without any artefact: the null hypothesis of every spatial test here.

Neighbouring cells resemble each other because the same neurites run through them, in the plane and through z. Tests
that shuffle cells (Moran's I as usually tested) therefore find "patterns" everywhere. Shifting each slab of sections
on a torus keeps the likeness within the plane, but breaks that through z, which in a thin volume reaches through all
of it. So surrogates are drawn instead (Viladomat et al. 2014, Biometrics 70:409; Burt et al. 2020, NeuroImage
220:117038): Gaussian fields with the observed autocorrelation, given the observed distribution of values by rank.

The autocorrelation is separable, AR(1) along each axis plus a nugget (Cullis and Gleeson 1991, Biometrics 47:1449).
It is fitted to what remains after the section levels and the smooth trend are taken out, and the bias of taking them
out is known exactly, because both are projections.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from connectome_db.kernels.trend import smooth_basis

F64 = npt.NDArray[np.float64]
F32 = npt.NDArray[np.float32]

RHO = (0.0, 0.15, 0.3, 0.45, 0.6, 0.7, 0.8, 0.88, 0.94)
"""Correlations of neighbouring cells that are tried, along z and in the plane."""
SHARE = (0.25, 0.5, 0.75, 1.0)
"""Shares of the variance that are correlated; the rest is independent noise."""
_STEPS = 4096
_REACH = 4.0


@dataclass(frozen=True)
class Likeness:
    """Autocorrelation of a field: `share` * rho_z^|dz| * rho_yx^(|dy| + |dx|) between two different cells."""

    rho_z: float
    rho_yx: float
    share: float


def ar1(n: int, rho: float) -> F64:
    """Correlations (n, n) of a first-order autoregression."""
    return np.asarray(rho ** np.abs(np.subtract.outer(np.arange(n), np.arange(n))).astype(float), np.float64)


@lru_cache(maxsize=64)
def _plane_terms(height: int, width: int, detrended: bool) -> F64:
    """What taking out section means and trend leaves in a plane: (rho, lag 0 1 2, [own, cross, mean]) per pair."""
    n = height * width
    yx = np.stack(np.divmod(np.arange(n), width), axis=1)
    apart = np.abs(yx[:, None] - yx[None])
    lags = [np.eye(n)]
    for lag in (1, 2):
        w = ((apart == (lag, 0)).all(axis=2) | (apart == (0, lag)).all(axis=2)).astype(float)
        lags.append(w / max(w.sum(), 1.0))
    lags[0] /= n
    basis = smooth_basis((height, width))[:, 1:] if detrended else np.zeros((n, 0))
    centre = np.eye(n) - 1.0 / n
    hat = basis @ basis.T
    out = np.zeros((len(RHO), 3, 3))
    for k, rho in enumerate(RHO):
        c = np.kron(ar1(height, rho), ar1(width, rho))
        own, cross, mean = centre @ c @ centre, hat @ c @ centre, hat @ c @ hat
        for d, w in enumerate(lags):
            out[k, d] = [np.sum(w * own), np.sum(w * cross), np.sum(w * mean)]
    return out


@lru_cache(maxsize=64)
def expected(shape: tuple[int, int, int], detrended: bool) -> F64:
    """Correlations (rho_z, rho_yx, share, lag) that remain on average: in the plane at 1 and 2, along z at 1 and 2."""
    plane = _plane_terms(shape[1], shape[2], detrended)
    terms = np.zeros((len(RHO), len(RHO), 5))
    for k, rho in enumerate(RHO):
        c = ar1(shape[0], rho)
        to_mean, of_mean = float(c.mean()), float(c.mean())
        own = plane @ np.array([1.0, -2 * to_mean, of_mean])
        terms[k, :, :3] = own
        for lag in (1, 2):
            pair = c[lag:, :-lag] if lag < shape[0] else np.zeros((0, 0))
            near = float(np.diag(pair).mean()) if pair.size else 0.0
            terms[k, :, 2 + lag] = plane[:, 0] @ np.array([near, -2 * to_mean, of_mean])
    noise = terms[0, 0]
    share = np.asarray(SHARE)[:, None]
    mixed = share * terms[:, :, None] + (1 - share) * noise
    return np.asarray(mixed[..., 1:] / np.maximum(mixed[..., :1], 1e-12), dtype=np.float64)


def _lagged(cells: F64, axis: int, lag: int) -> tuple[float, float]:
    """Sum of products of cells that are `lag` apart, and the number of pairs."""
    if cells.shape[axis] <= lag:
        return 0.0, 0.0
    a = np.take(cells, range(lag, cells.shape[axis]), axis=axis)
    b = np.take(cells, range(cells.shape[axis] - lag), axis=axis)
    both = np.isfinite(a) & np.isfinite(b)
    return float(np.sum(a[both] * b[both])), float(both.sum())


def _repeats(near: float) -> float:
    """How many cells along an axis say the same about a correlation, if neighbours are correlated by `near`.

    Bartlett (1946, J. R. Stat. Soc. Suppl. 8:27), for a first-order autoregression.
    """
    square = min(max(near, 0.0), 0.95) ** 2
    return (1 + square) / (1 - square)


def likeness(residual: F64, detrended: bool) -> Likeness:
    """The autocorrelation of cells (z, y, x) freed of section levels and, if `detrended`, of the smooth trend.

    NaN are left out. One standard error is added to each observed correlation: a null that is too rough makes false
    alarms, one that is too smooth only loses a little power.
    """
    variance = float(np.nanmean(residual**2)) if np.isfinite(residual).any() else 0.0
    if variance <= 0:
        return Likeness(0.0, 0.0, 1.0)
    want, count = np.zeros(4), np.zeros(4)
    for k, (axes, lag) in enumerate((((1, 2), 1), ((1, 2), 2), ((0,), 1), ((0,), 2))):
        sums = np.array([_lagged(residual, axis, lag) for axis in axes]).sum(axis=0)
        count[k] = sums[1]
        want[k] = sums[0] / sums[1] / variance if sums[1] else 0.0
    repeats = _repeats(want[0]) ** 2, _repeats(want[2])
    error_of = np.sqrt(np.array([repeats[1], repeats[1], repeats[0], repeats[0]]) / np.maximum(count, 1))
    want = np.where(count > 0, np.minimum(want + error_of, 0.99), 0.0)
    shape = (residual.shape[0], residual.shape[1], residual.shape[2])
    error = ((expected(shape, detrended) - want) ** 2 * np.sqrt(count)).sum(axis=-1)
    z, yx, share = np.unravel_index(int(np.argmin(error)), error.shape)
    return Likeness(RHO[int(z)], RHO[int(yx)], SHARE[int(share)])


def value_table(values: F64) -> F32:
    """Quantiles of the finite values at `_STEPS` Gaussian quantiles from -4 to 4: gives surrogates their values."""
    v = np.sort(values[np.isfinite(values)])
    at = ndtr(np.linspace(-_REACH, _REACH, _STEPS)) * len(v)
    return np.asarray(v[np.clip(at.astype(np.int64), 0, len(v) - 1)], dtype=np.float32)


def draw(n: int, shape: tuple[int, int, int], like: Likeness, table: F32, rng: np.random.Generator) -> F32:
    """`n` surrogates (n, z, y, x) with the autocorrelation `like` and the values of `table` (see `value_table`)."""
    field = rng.standard_normal((n, *shape), dtype=np.float32)
    if like.rho_z > 0 or like.rho_yx > 0:
        smooth = field
        for axis, rho in enumerate((like.rho_z, like.rho_yx, like.rho_yx)):
            if rho > 0 and shape[axis] > 1:
                root = np.linalg.cholesky(ar1(shape[axis], rho)).astype(np.float32)
                smooth = np.moveaxis(np.tensordot(root, smooth, axes=(1, axis + 1)), 0, axis + 1)
        field = smooth
        if like.share < 1:
            noise = rng.standard_normal((n, *shape), dtype=np.float32)
            field = np.float32(np.sqrt(like.share)) * smooth + np.float32(np.sqrt(1 - like.share)) * noise
    at = ((field + np.float32(_REACH)) * np.float32((_STEPS - 1) / (2 * _REACH))).astype(np.int32)
    return np.asarray(table[np.clip(at, 0, _STEPS - 1)], dtype=np.float32)


def tail_p(null: F64, observed: float, floor: float = 1e-6) -> float:
    """p-value of `observed` against draws (N,) of the null, larger being rarer.

    The share of draws at least as large (with the observed one counted in) where ten or more are; beyond them the tail
    is continued as an exponential from the upper fifth on, because thousands of tests at one p of 1/(N + 1) would
    never pass the control of false discoveries (Knijnenburg et al. 2009, Bioinformatics 25:i161). An exponential falls
    more slowly than the tails of Gaussian maxima, so this errs towards silence.
    """
    n = len(null)
    above = int(np.sum(null >= observed))
    share = (above + 1) / (n + 1)
    if above >= 10 or n < 50:
        return float(share)
    start = float(np.quantile(null, 0.8))
    excess = null[null > start] - start
    if excess.size < 5 or excess.mean() <= 0:
        return float(share)
    tail = excess.size / n * float(np.exp(-(observed - start) / excess.mean()))
    return float(max(min(tail, share), floor)) if above == 0 else float(share)

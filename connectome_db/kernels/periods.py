"""Series over sections: single sections that are off, runs of them (sessions, knives), and periods.

The value of a section follows its neighbours a little; the null is a series with that autocorrelation and the
observed values (see `surrogates`), not a shuffle of sections.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy  # its parts load when they are used: signal and stats take a second, which every command would pay

from connectome_db.kernels.cell_maps import robust_spread
from connectome_db.kernels.surrogates import Likeness, draw, tail_p, value_table

F64 = npt.NDArray[np.float64]

SHORTEST = 12
"""Series of fewer sections are not tested."""
MIN_RUN = 3
"""Shortest run of sections that is a step; less are single sections."""
_TAIL_FREEDOM = 8
"""Degrees of freedom of Student's t for single sections: real series have heavier tails than Gaussian ones."""


@dataclass(frozen=True)
class Run:
    """Sections [first, end) of a series, how far they are off (in its unit), and the p-value."""

    first: int
    end: int
    effect: float
    p_value: float


@dataclass(frozen=True)
class Period:
    """A period in sections, its amplitude (half of peak to peak, in the unit of the series), and the p-value."""

    sections: float
    amplitude: float
    p_value: float


def filled(series: F64) -> F64:
    """A series (z,) with NaN replaced by linear interpolation between sections; all 0 when none is finite."""
    good = np.flatnonzero(np.isfinite(series))
    if good.size == 0:
        return np.zeros(len(series))
    return np.asarray(np.interp(np.arange(len(series)), good, series[good]), dtype=np.float64)


def neighbour_departure(series: F64, reach: int = 3) -> F64:
    """Each section less the median of up to `reach` sections on either side of it, itself left out: (z,)."""
    n = len(series)
    out = np.empty(n)
    for i in range(n):
        near = np.r_[series[max(0, i - reach) : i], series[i + 1 : i + 1 + reach]]
        out[i] = series[i] - np.median(near)
    return out


def odd_sections(series: F64, most: int = 3) -> list[Run]:
    """Up to `most` single sections that are off their neighbours, the oddest first.

    The departure over its robust spread is held against Student's t with few degrees of freedom, times the number of
    sections (Bonferroni): a shuffle of Z sections could never say less than 1/Z.
    """
    depart = neighbour_departure(filled(series))
    spread = robust_spread(depart)
    out: list[Run] = []
    for i in np.argsort(-np.abs(depart), kind="stable")[:most]:
        score = abs(float(depart[i])) / spread if spread > 0 else (np.inf if depart[i] else 0.0)
        p = min(1.0, 2 * len(series) * float(scipy.stats.t.sf(score, _TAIL_FREEDOM)))
        out.append(Run(int(i), int(i) + 1, float(depart[i]), max(p, 1e-6)))
    return out


def _run_table(n: int) -> tuple[npt.NDArray[np.int64], F64]:
    ends = [(a, b) for a in range(n) for b in range(a + MIN_RUN, n + 1) if b - a <= n // 2]
    runs = np.asarray(ends, dtype=np.int64)
    return runs, ((np.arange(n) >= runs[:, :1]) & (np.arange(n) < runs[:, 1:])).astype(np.float64)


def _contrast(series: F64, table: F64) -> tuple[F64, F64]:
    """Squared t of every run against the rest (n, K), and inside minus outside (n, K)."""
    n = series.shape[1]
    size = table.sum(axis=1)
    x = series - series.mean(axis=1, keepdims=True)
    inside = x @ table.T
    effect = inside / size + inside / (n - size)
    between = effect**2 * size * (n - size) / n
    total = np.einsum("ij,ij->i", x, x)[:, None]
    return between * (n - 2) / np.maximum(total - between, 1e-9 * total + 1e-300), effect


def follows(series: F64) -> float:
    """Autocorrelation of neighbouring sections, plus one standard error: from 0 to 0.9."""
    x = series - series.mean()
    power = float(x @ x)
    if power <= 0:
        return 0.0
    return float(np.clip(x[1:] @ x[:-1] / power + 1.0 / np.sqrt(len(x)), 0.0, 0.9))


def _surrogates(series: F64, rho: float, n: int, rng: np.random.Generator) -> F64:
    """Series (n, z) with the values of one and the autocorrelation `rho`."""
    shape = (len(series), 1, 1)
    return draw(n, shape, Likeness(rho, 0.0, 1.0), value_table(series), rng).reshape(n, -1).astype(np.float64)


def steps(series: F64, n: int, rng: np.random.Generator, most: int = 3, alpha: float = 0.05) -> list[Run]:
    """Runs of sections at another level, found one after the other (circular binary segmentation).

    Olshen et al. 2004, Biostatistics 5:557. A run has at least `MIN_RUN` sections and at most half of them: of two
    sides of one step, the shorter. The best run is always given; further ones while the last has p <= `alpha`.
    """
    work = filled(series)
    out: list[Run] = []
    if len(work) < SHORTEST or np.ptp(work) <= 0:
        return out
    runs, table = _run_table(len(work))
    while len(out) < most:
        score, effect = _contrast(work[None], table)
        at = int(np.argmax(score[0]))
        rest = work - table[at] * effect[0, at]
        null, _ = _contrast(_surrogates(work, follows(rest), n, rng), table)
        p = tail_p(np.sqrt(null.max(axis=1)), float(np.sqrt(score[0, at])))
        out.append(Run(int(runs[at, 0]), int(runs[at, 1]), float(effect[0, at]), p))
        if p > alpha:
            break
        work = rest
    return out


def frequencies(n: int) -> F64:
    """The frequencies that are looked at in `n` sections: from three periods in all to a period of two sections."""
    return np.arange(3 / n, 0.5 + 1e-9, 0.5 / n)


class Waves:
    """The waves of a Lomb-Scargle periodogram (Scargle 1982, Astrophys. J. 263:835) at sections `z` (N,).

    With `scipy.signal.lombscargle` each surrogate would be a call; here all of them are one matrix product.
    """

    def __init__(self, z: F64, frequency: F64) -> None:
        wave = 2 * np.pi * frequency[:, None] * z
        delay = 0.5 * np.arctan2(np.sin(2 * wave).sum(axis=1), np.cos(2 * wave).sum(axis=1))
        self.cosine, self.sine = np.cos(wave - delay[:, None]), np.sin(wave - delay[:, None])
        self.cosine_power = np.maximum((self.cosine**2).sum(axis=1), 1e-9)
        self.sine_power = np.maximum((self.sine**2).sum(axis=1), 1e-9)

    def power(self, series: F64) -> F64:
        """Share of the power (n, frequencies) of series (n, N) of mean 0."""
        found = (series @ self.cosine.T) ** 2 / self.cosine_power + (series @ self.sine.T) ** 2 / self.sine_power
        whole = np.maximum(np.einsum("ij,ij->i", series, series), 1e-300)
        return np.asarray(found / whole[:, None], dtype=np.float64)

    def fit(self, series: F64, at: int) -> tuple[F64, float]:
        """The wave at one frequency in a series (N,), and its amplitude."""
        c = float(series @ self.cosine[at] / self.cosine_power[at])
        s = float(series @ self.sine[at] / self.sine_power[at])
        return c * self.cosine[at] + s * self.sine[at], float(np.hypot(c, s))


def period(series: F64, n: int, rng: np.random.Generator) -> Period | None:
    """The strongest period of a series (z,), from 2 sections to a third of its length; None when it is too short.

    Lomb-Scargle periodogram, so that sections without a value (NaN) need not be made up; its largest power is held
    against that of `n` surrogates.
    """
    good = np.isfinite(series)
    if int(good.sum()) < SHORTEST or np.ptp(series[good]) <= 0:
        return None
    frequency = frequencies(len(series))
    waves = Waves(np.flatnonzero(good).astype(np.float64), frequency)
    v = np.asarray(scipy.signal.detrend(series[good]), dtype=np.float64)
    seen = waves.power(v[None])[0]
    at = int(np.argmax(seen))
    fit, amplitude = waves.fit(v, at)

    def odds(x: F64) -> F64:
        return np.asarray(np.log(x / np.maximum(1 - x, 1e-9)), np.float64)

    told = []
    # Red noise has its power at long periods and white noise at all: the null is whichever excuses the peak better.
    for rho in sorted({0.0, follows(v - fit)}):
        drawn = np.asarray(scipy.signal.detrend(_surrogates(v, rho, n, rng), axis=1), dtype=np.float64)
        told.append(tail_p(odds(waves.power(drawn).max(axis=1)), float(odds(seen[at : at + 1])[0])))
    return Period(float(1 / frequency[at]), amplitude, max(told))

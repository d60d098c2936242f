"""All that is unusual about one metric in space: boxes, trends through the depth, runs of sections, periods.

The order matters: a box is cut out before the trend is fitted, and a box that reaches through the depth is left to
the trend, so that one artefact makes one finding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from connectome_db.kernels import periods
from connectome_db.kernels.cell_maps import (
    MAD_SD,
    Slab,
    column_mean,
    normal_scores,
    pool,
    robust_spread,
    section_level,
)
from connectome_db.kernels.moran import moran_i
from connectome_db.kernels.scan import candidate, centred, scan, sharpen
from connectome_db.kernels.surrogates import Likeness, draw, likeness, tail_p, value_table
from connectome_db.kernels.trend import affected_box, explained, polynomial_basis, smooth_basis

F64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

COARSE = (32, 8, 8)
"""Cells (z, y, x) of the lattice on which surrogates are drawn; boxes are then sharpened on the full one."""
THROUGH = 0.75
"""A box that spans this share of the sections is a matter of place in the plane: a trend."""
CUT = 4.0
"""Standard scores are cut off here."""
MODE_SECTIONS = 12
"""From this many sections on, the level of a section is what most of its cells agree with; below it, their median."""
SCAN_CELLS = 4
"""Lattices with fewer cells along an axis of the plane are not scanned: the rest of a section says too little."""
DETREND_CELLS = 5
"""Maps with fewer cells along an axis get no trend."""


@dataclass(frozen=True)
class Finding:
    """One test: kind, p-value, and where it is (`part`, slices z, y, x of the lattice), how far it is off.

    `inside` and `outside` are in the metric's own unit; `spread` is the normal spread of what was compared (columns
    of cells, cells, or sections) in that unit; `words` say what the test saw.
    """

    kind: str
    p_value: float
    part: Slab
    inside: float
    outside: float
    spread: float
    words: str


@dataclass(frozen=True)
class Field:
    """A metric on its lattice: values, weights (z, y, x), and whether gain multiplies it (grey values)."""

    values: F64
    weights: F64
    gain: bool

    @property
    def level(self) -> float:
        """Median of all cells."""
        return float(np.nanmedian(self.values)) if np.isfinite(self.values).any() else 0.0

    def additive(self) -> F64:
        """The values on the scale on which section effects add: logarithms where gain multiplies."""
        if not self.gain:
            return self.values
        return np.asarray(np.log(np.maximum(self.values, 0.02 * self.level)), dtype=np.float64)

    def back(self, effect: float, outside: float) -> float:
        """The value `effect` away (on the additive scale) from the value `outside`."""
        return float(outside * np.exp(effect)) if self.gain else outside + effect

    def unit(self, spread: float, outside: float) -> float:
        """A small spread on the additive scale, in the metric's unit."""
        return float(spread * outside) if self.gain else spread


def field_of(values: F64, weights: F64, ratio: bool) -> Field:
    """A metric's field; gain multiplies it if it is on a `ratio` scale and nearly all cells are above 0."""
    finite = values[np.isfinite(values)]
    return Field(values, weights, bool(ratio and finite.size and np.quantile(finite, 0.02) > 0))


def free_of_sections(cells: F64, without: Bool | None = None) -> F64:
    """Cells (z, y, x) less the level of their section, taken over the cells that are not in `without`.

    The level is not the median, which lies between the two where nearly half of a section is off. Cells are first held
    against the usual value of their column; of ten candidates (deciles of a section) that level is taken which most
    cells agree with, and of two that many agree with, the one nearer to the other sections.
    """
    kept = cells if without is None else np.where(without, np.nan, cells)
    depth = len(cells)
    flat = kept.reshape(depth, -1)
    usual = section_level(np.moveaxis(kept, 0, 2).reshape(flat.shape[1], depth, 1)) if depth >= MODE_SECTIONS else None
    known = np.isfinite(flat).any(axis=1)
    if usual is None or not known.any():
        level = section_level(kept)
        level = np.where(known, level, np.median(level[known]) if known.any() else 0.0)
        return np.asarray(cells - level[:, None, None], dtype=np.float64)
    apart = flat - usual
    level = np.full(depth, np.nan)
    level[known] = np.nanmedian(apart[known], axis=1)
    middle, swing = float(np.median(level[known])), robust_spread(level[known])
    grain = max(robust_spread(apart - level[:, None]), 1e-12)
    tried = np.full((10, depth), middle)
    tried[1:, known] = np.nanquantile(apart[known], np.arange(0.1, 0.95, 0.1), axis=1)
    misfit = np.minimum(((apart[None] - tried[:, :, None]) / grain) ** 2, 9.0)
    far = np.minimum(((tried - middle) / max(swing, grain)) ** 2, 9.0)
    cost = np.nansum(misfit, axis=2) / np.maximum(np.isfinite(apart).sum(axis=1), 1) + 0.1 * far
    level = tried[np.argmin(cost, axis=0), np.arange(depth)]
    # The mean of those that agree is smoother than a decile.
    near = np.abs(apart - level[:, None]) <= 3 * grain
    count = near.sum(axis=1)
    level = np.where(count > 0, np.where(near, np.nan_to_num(apart), 0.0).sum(axis=1) / np.maximum(count, 1), level)
    return np.asarray(cells - level[:, None, None] - np.nanmedian(usual), dtype=np.float64)


def examine(field: Field, n: int, rng: np.random.Generator, alpha: float = 0.05, most: int = 3) -> list[Finding]:
    """Every test of one metric, found or not, so that the false discovery rate can be controlled over all of them.

    `n` surrogates per test; up to `most` boxes and runs of sections.
    """
    raw = field.additive()
    if np.isfinite(raw).sum() < 8 or not np.nanmax(raw) > np.nanmin(raw):
        return []
    taken = np.zeros(raw.shape, dtype=np.bool_)
    found: list[Finding] = []
    through: Finding | None = None
    if min(raw.shape[1:]) >= SCAN_CELLS:
        for _ in range(most):
            one = _local(field, raw, taken, n, rng)
            if one is None:
                break
            z = one.part[0]
            if one.p_value <= alpha and z.stop - z.start >= THROUGH * raw.shape[0] and raw.shape[0] > 1:
                through = one
                break
            found.append(one)
            if one.p_value > alpha:
                break
            taken[one.part] = True
    trend = _trend(field, raw, taken, n, rng)
    if trend is not None:
        found.append(trend)
    if through is not None and (trend is None or trend.p_value > alpha):
        found.append(through)
    return found + _sections(field, raw, taken, n, rng, alpha, most)


def _without_suspect(scores: F64) -> F64:
    """Scores without the most unusual box and a cell around it, so that an artefact does not excuse itself."""
    part = candidate(scores)
    rest = scores.copy()
    if part is not None:
        part = sharpen(scores, part)
        if np.prod([s.stop - s.start for s in part]) > 0.5 * scores.size:
            return rest
        z, y, x = (slice(max(s.start - 1, 0), s.stop + 1) for s in part)
        rest[z, y, x] = np.nan
    return rest if np.isfinite(rest).sum() >= 0.3 * np.isfinite(scores).sum() else scores.copy()


def _null(scores: F64) -> Likeness:
    """The autocorrelation of scores, without section means and the smooth trend."""
    shape = (scores.shape[1], scores.shape[2])
    fits = min(shape) >= DETREND_CELLS
    rest = scores - np.nan_to_num(section_mean(scores))[:, None, None]
    if fits:
        columns = column_mean(rest)
        good = np.isfinite(columns).ravel()
        basis = smooth_basis(shape)
        fit, *_ = np.linalg.lstsq(basis[good], columns.ravel()[good], rcond=None)
        rest = rest - (basis @ fit).reshape(shape)
    return likeness(rest, fits)


def section_mean(cells: F64) -> F64:
    """Mean of each section (z,) of cells (z, y, x); NaN where a section has none."""
    count = np.isfinite(cells).sum(axis=(1, 2))
    return np.where(count > 0, np.nan_to_num(cells).sum(axis=(1, 2)) / np.maximum(count, 1), np.nan)


def _scores(raw: F64, taken: Bool) -> F64:
    """Standard scores on the coarse lattice, freed of section levels and cut off at `CUT`; what is taken is left out.

    Cut off, a single wild cell weighs little. Where most cells are equal there is no scale, and ranks are taken.
    """
    free = pool(free_of_sections(np.where(taken, np.nan, raw)), COARSE)
    middle = np.nanmedian(free)
    scale = MAD_SD * float(np.nanmedian(np.abs(free - middle)))
    return normal_scores(free) if scale <= 0 else np.clip((free - middle) / scale, -CUT, CUT)


def _local(field: Field, raw: F64, taken: Bool, n: int, rng: np.random.Generator) -> Finding | None:
    scores = _scores(raw, taken)
    if np.isfinite(scores).sum() < 8:
        return None
    usual = _without_suspect(scores)
    seen = scan(scores, usual, _null(usual), n, rng)
    if seen is None:
        return None
    ratio = np.array(raw.shape) / scores.shape
    ends = [
        (round(s.start * r), max(round(s.stop * r), round(s.start * r) + 1))
        for s, r in zip(seen.part, ratio, strict=True)
    ]
    part = (slice(*ends[0]), slice(*ends[1]), slice(*ends[2]))
    inside = np.zeros(raw.shape, dtype=np.bool_)
    if seen.p_value <= 0.2:
        for _ in range(3):  # levels of sections and the box depend on each other
            inside[:] = False
            inside[part] = True
            spread = robust_spread(free_of_sections(raw, inside | taken)[~inside & ~taken])
            free = np.clip(np.where(taken, np.nan, free_of_sections(raw, inside | taken)), -5 * spread, 5 * spread)
            moved = sharpen(free, part)
            if moved == part:
                break
            part = moved
    inside[:] = False
    inside[part] = True
    free = free_of_sections(raw, inside | taken)
    effect = _mean(free, field.weights, inside) - _mean(free, field.weights, ~inside & ~taken)
    value = _mean(field.values, field.weights, inside)
    outside = value / np.exp(effect) if field.gain else value - effect  # elsewhere in the same sections
    spread = field.unit(robust_spread(free[~inside & ~taken]), outside)
    words = f"the most unusual box of cells is {abs(seen.score):.1f} standard deviations off its sections"
    return Finding("local", seen.p_value, part, value, float(outside), spread, words)


def _mean(cells: F64, weights: F64, where: Bool) -> float:
    use = where & np.isfinite(cells) & (weights > 0)
    return float(np.average(cells[use], weights=weights[use])) if use.any() else float("nan")


def _trend(field: Field, raw: F64, taken: Bool, n: int, rng: np.random.Generator) -> Finding | None:
    """Does a smooth surface over the plane explain more of the map than it does of surrogates?"""
    scores = _scores(raw, taken)
    shape = (scores.shape[0], scores.shape[1], scores.shape[2])
    if min(shape[1:]) < DETREND_CELLS:
        return None
    kept = np.isfinite(scores)
    good = kept.any(axis=0).ravel()
    bases = [polynomial_basis(shape[1:], 1), polynomial_basis(shape[1:], 2), smooth_basis(shape[1:])]
    if good.sum() < 2 * bases[-1].shape[1]:
        return None

    def maps(fields: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        mean = centred(fields, kept).sum(axis=1) / np.maximum(kept.sum(axis=0), 1)
        return np.asarray(mean.reshape(len(fields), -1), dtype=np.float32)

    own = maps(np.nan_to_num(scores).astype(np.float32)[None])
    shares = [float(explained(own, basis, good)[0]) for basis in bases]
    table, like = value_table(scores), _null(scores)
    null = explained(maps(draw(n, shape, like, table, rng)), bases[-1], good)
    p = tail_p(_odds(null), float(_odds(np.array(shares[-1:]))[0]))
    free = np.where(taken, np.nan, free_of_sections(raw, taken))
    columns, weights = column_mean(free, field.weights), np.where(taken, 0.0, field.weights).sum(axis=0)
    if field.gain:  # the ratio and not its logarithm, in which the far end of a strong gradient outweighs all else
        columns = np.expm1(columns)
    box = affected_box(columns, weights)
    effect = float(np.average(np.nan_to_num(columns[box.cells]), weights=weights[box.cells] + 1e-12)) - box.reference
    rest = ~box.cells & np.isfinite(columns)
    spread = robust_spread(columns[rest])
    everywhere = np.broadcast_to(~box.cells, raw.shape) & ~taken
    outside = _mean(field.values, field.weights, everywhere)
    scale = outside / (1 + box.reference) if field.gain else 1.0
    worst = outside + scale * (box.peak - box.reference)
    words = (
        f"a smooth surface explains {shares[2]:.0%} of the map (linear {shares[0]:.0%}, quadratic {shares[1]:.0%}; "
        f"Moran's I {moran_i(columns):.2f}); {worst:.4g} at the far end"
    )
    part = (slice(0, raw.shape[0]), box.y, box.x)
    return Finding("trend", p, part, outside + scale * effect, outside, scale * spread, words)


def _odds(share: F64) -> F64:
    return np.asarray(np.log(np.maximum(share, 1e-9) / np.maximum(1 - share, 1e-9)), dtype=np.float64)


def _sections(
    field: Field, raw: F64, taken: Bool, n: int, rng: np.random.Generator, alpha: float, most: int
) -> list[Finding]:
    """Steps, odd sections and the period of the section levels, over the cells that are not taken by a box."""
    open_cells = np.where(taken, np.nan, raw)
    series = section_level(open_cells)
    depth = len(series)
    if np.isfinite(series).sum() < periods.SHORTEST:
        return []
    whole = (slice(0, raw.shape[1]), slice(0, raw.shape[2]))
    base = section_level(np.where(taken, np.nan, field.values))
    runs = periods.steps(series, n, rng, most, alpha) if depth <= 256 else []
    rest = periods.filled(series)
    in_run = np.zeros(depth, dtype=np.bool_)
    for run in runs:
        if run.p_value <= alpha:
            rest[run.first : run.end] -= run.effect
            in_run[run.first : run.end] = True
    spread = robust_spread(rest)
    found = []
    for kind, runs_of_kind in (("step", runs), ("section", periods.odd_sections(rest, most))):
        for run in runs_of_kind:
            own = np.zeros(depth, dtype=np.bool_)
            own[run.first : run.end] = True
            outside = float(np.nanmedian(base[~own & ~in_run] if (~own & ~in_run).any() else base))
            what = (
                f"{run.end - run.first} sections in a row" if kind == "step" else "one section against its neighbours"
            )
            inside, unit = field.back(run.effect, outside), field.unit(spread, outside)
            place = (slice(run.first, run.end), *whole)
            found.append(Finding(kind, run.p_value, place, inside, outside, unit, what))
    wave = periods.period(np.where(np.isfinite(series), rest, np.nan), n, rng)
    if wave is not None:
        outside = float(np.nanmedian(base))
        words = f"sections repeat every {wave.sections:.1f}"
        inside, unit = field.back(wave.amplitude, outside), field.unit(spread, outside)
        found.append(Finding("period", wave.p_value, (slice(0, depth), *whole), inside, outside, unit, words))
    return found

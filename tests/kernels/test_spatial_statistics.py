"""Cells, Moran's I, trends, false discoveries: each against a computation done another way."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal

from connectome_db.kernels.cell_maps import bin_cells, column_mean, lattice_of, normal_scores, pool, robust_spread
from connectome_db.kernels.fdr import benjamini_hochberg
from connectome_db.kernels.moran import moran_i
from connectome_db.kernels.surrogates import Likeness, draw, expected, likeness, tail_p, value_table
from connectome_db.kernels.trend import affected_box, explained, polynomial_basis, smooth_basis
from connectome_db.phantom.artefacts import StainingGradient, stain_weight
from tests.kernels.fields import ar1_field, overlap


def test_benjamini_hochberg_gives_the_worked_example() -> None:
    # By hand: p * 6 / rank = .006, .024, .078, .06, .06, .5; then the smallest from the right.
    p = np.array([0.04, 0.001, 0.05, 0.5, 0.008, 0.039])
    assert benjamini_hochberg(p) == pytest.approx([0.06, 0.006, 0.06, 0.5, 0.024, 0.06])
    assert benjamini_hochberg(np.zeros(0)).shape == (0,)


def test_morans_i_equals_the_double_sum() -> None:
    cells = np.random.default_rng(3).standard_normal((5, 7))
    cells[2, 3] = np.nan
    for queen in (False, True):
        mean, above, weight, below = np.nanmean(cells), 0.0, 0.0, 0.0
        places = [(i, j) for i in range(5) for j in range(7) if np.isfinite(cells[i, j])]
        for i, j in places:
            below += (cells[i, j] - mean) ** 2
            for k, m in places:
                steps = sorted((abs(i - k), abs(j - m)))
                if steps == [0, 1] or (queen and steps == [1, 1]):
                    weight += 1
                    above += (cells[i, j] - mean) * (cells[k, m] - mean)
        assert moran_i(cells, queen) == pytest.approx(len(places) / weight * above / below)


def test_morans_i_of_a_chessboard_and_of_two_halves() -> None:
    board = np.indices((8, 8)).sum(axis=0) % 2.0
    assert moran_i(board, queen=False) == pytest.approx(-1)
    assert moran_i(np.where(np.arange(8) < 4, 1.0, 0.0) * np.ones((8, 1))) > 0.7
    assert moran_i(np.ones((4, 4))) == 0


def test_rows_are_shared_out_by_what_they_cover() -> None:
    boxes = np.array([[0, 0, 0, 30, 100, 100], [0, 0, 100, 30, 100, 200], [0, 0, 50, 30, 100, 150]], float)
    lattice = lattice_of(boxes)
    assert lattice.shape == (1, 1, 2)
    cells, weight = bin_cells(lattice, boxes, np.array([1.0, 3.0, 8.0]), np.array([1.0, 1.0, 2.0]))
    assert cells[0, 0] == pytest.approx([(1 + 8) / 2, (3 + 8) / 2])
    assert weight[0, 0] == pytest.approx([2, 2])
    assert lattice.box_nm((slice(0, 1), slice(0, 1), slice(1, 2))) == pytest.approx([0, 0, 100, 30, 100, 200])


def test_pooling_and_means_leave_gaps_out() -> None:
    cells = np.arange(8.0).reshape(2, 2, 2)
    cells[0, 0, 0] = np.nan
    assert pool(cells, (1, 1, 1))[0, 0, 0] == pytest.approx(4)
    assert column_mean(cells)[0, 0] == pytest.approx(4)


def test_scores_are_ranks_and_the_spread_is_robust() -> None:
    values = np.r_[np.random.default_rng(0).normal(5, 2, 4000), np.full(200, 1e6)]
    assert robust_spread(values) == pytest.approx(2, rel=0.1)
    scores = normal_scores(np.array([3.0, 1.0, np.nan, 2.0, 2.0]))
    assert np.isnan(scores[2])
    assert scores[3] == scores[4]
    assert scores[1] < scores[3] < scores[0]


def test_a_plane_and_a_saddle_are_explained_by_their_surfaces() -> None:
    y, x = np.meshgrid(np.arange(8.0), np.arange(6.0), indexing="ij")
    good = np.ones(48, bool)
    plane, saddle = (3 * y - x).ravel(), (y * x).ravel()
    shares = explained(np.stack([plane, saddle]), polynomial_basis((8, 6), 1), good)
    assert shares[0] == pytest.approx(1)
    assert shares[1] < 0.95
    assert explained(saddle[None], polynomial_basis((8, 6), 2), good)[0] == pytest.approx(1)
    smooth = smooth_basis((8, 6))
    assert smooth.T @ smooth == pytest.approx(np.eye(smooth.shape[1]), abs=1e-9)


def test_what_detrending_takes_of_the_autocorrelation_is_known() -> None:
    """The exact expectation against the mean over many fields, freed of section means and trend by least squares."""
    shape, rng = (6, 7, 8), np.random.default_rng(5)
    basis = smooth_basis(shape[1:])
    near, power, deep = 0.0, 0.0, 0.0
    for _ in range(300):
        field = ar1_field(rng, shape, 0.6, 0.45)
        field -= field.mean(axis=(1, 2), keepdims=True)
        field -= (basis @ (basis.T @ field.mean(axis=0).ravel())).reshape(shape[1:])
        pairs = [field[:, 1:] * field[:, :-1], field[:, :, 1:] * field[:, :, :-1]]
        near += sum(float(p.sum()) for p in pairs) / sum(p.size for p in pairs)
        deep += float(np.mean(field[1:] * field[:-1]))
        power += float(np.mean(field**2))
    told = expected(shape, True)[4, 3, 3]
    assert told[0] == pytest.approx(near / power, abs=0.02)
    assert told[2] == pytest.approx(deep / power, abs=0.02)


def test_the_autocorrelation_is_found_and_drawn_again() -> None:
    rng = np.random.default_rng(1)
    field = ar1_field(rng, (24, 12, 12), 0.8, 0.45)
    like = likeness(field - field.mean(axis=(1, 2), keepdims=True), detrended=False)
    assert abs(like.rho_z - 0.8) <= 0.1
    assert abs(like.rho_yx - 0.45) <= 0.15
    made = draw(40, (24, 12, 12), Likeness(0.8, 0.45, 1.0), value_table(np.exp(field)), rng)
    logs = np.log(made)
    assert np.mean(logs[:, 1:] * logs[:, :-1]) / np.mean(logs**2) == pytest.approx(0.8, abs=0.05)
    assert np.quantile(made, [0.1, 0.5, 0.9]) == pytest.approx(np.quantile(np.exp(field), [0.1, 0.5, 0.9]), rel=0.15)


def test_tail_p_counts_and_then_continues_the_tail() -> None:
    null = np.random.default_rng(2).exponential(size=999)
    assert tail_p(null, float(np.median(null))) == pytest.approx(0.5, abs=0.01)
    assert tail_p(null, 12.0) == pytest.approx(np.exp(-12), rel=5)
    assert tail_p(null, 1e9) == 1e-6


@pytest.mark.parametrize("strength", [0.6, 0.75, 0.9])
@pytest.mark.parametrize("corner", [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_the_box_of_a_fading_corner_reaches_to_where_it_fades(strength: float, corner: tuple[int, int]) -> None:
    rng = np.random.default_rng([7, int(100 * strength), *corner])
    found = []
    for _ in range(5):
        reach = float(rng.uniform(0.55, 0.75))
        stain = StainingGradient(corner=corner, reach=reach, strength=strength)
        weight = stain_weight(stain, (512, 512)).reshape(8, 64, 8, 64).mean(axis=(1, 3))
        box = affected_box((1 - weight) * (1 + 0.04 * ar1_field(rng, (1, 8, 8), 0.0, 0.3)[0]))
        true = [(8 - 8 * reach, 8.0) if end else (0.0, 8 * reach) for end in corner]
        found.append(overlap((box.y, box.x), tuple(true)))
        assert box.peak < box.reference
    assert np.mean(found) >= 0.6
    assert sorted(found)[1] >= 0.5


def test_the_power_at_fixed_frequencies_is_lomb_scargles() -> None:
    """The periodogram of `periods.period`, which is one matrix product, against scipy's."""
    from connectome_db.kernels import periods

    series = np.random.default_rng(4).standard_normal(40)
    series[[5, 17]] = np.nan
    good = np.isfinite(series)
    frequency = periods.frequencies(len(series))
    v = signal.detrend(series[good])
    wanted = signal.lombscargle(np.flatnonzero(good).astype(float), v, 2 * np.pi * frequency)
    made = periods.Waves(np.flatnonzero(good).astype(float), frequency).power(v[None])[0]
    assert made == pytest.approx(2 * wanted / (v @ v), rel=1e-6)

"""Maps, profiles and shares against the same worked out voxel by voxel."""

from __future__ import annotations

import numpy as np
import pytest

from connectome_db.diagnosis.pages import grids, heatmaps
from connectome_db.diagnosis.pages.html_tags import ends_of, esc, number, tag
from connectome_db.diagnosis.pages.measured import Measured
from connectome_db.diagnosis.pages.shares import connection_share, inside, volume_share
from connectome_db.schema.quality import METRICS


def _measured(
    boxes: list[tuple[float, ...]], value: list[float], weight: list[float], name: str = "degree"
) -> Measured:
    return Measured(METRICS[name], np.asarray(boxes, float), np.asarray(value), np.asarray(weight))


def test_a_map_is_the_weighted_mean_of_what_overlaps_each_bin():
    rng = np.random.default_rng(1)
    low = rng.integers(0, 6, (40, 2)) * 4.0
    boxes = [(0, y, x, 10, y + 8, x + 8) for y, x in low]
    m = _measured(boxes, rng.random(40).tolist(), rng.uniform(1, 3, 40).tolist())
    seen = grids.plane(m, (0, 0, 0, 10, 32, 32))
    assert seen is not None
    assert seen.values.shape == (4, 4)
    total, mass = np.zeros((32, 32)), np.zeros((32, 32))
    for box, v, w in zip(m.boxes.astype(int), m.value, m.weight, strict=True):
        total[box[1] : box[4], box[2] : box[5]] += v * w
        mass[box[1] : box[4], box[2] : box[5]] += w
    fold = lambda a: a.reshape(4, 8, 4, 8).sum(axis=(1, 3))  # noqa: E731
    wanted = np.divide(fold(total), fold(mass), out=np.full((4, 4), np.nan), where=fold(mass) > 0)
    np.testing.assert_allclose(seen.values, wanted)


def test_bins_that_no_cell_covers_have_no_value():
    m = _measured([(0, 0, 0, 1, 8, 8), (0, 24, 24, 1, 32, 32)], [1.0, 2.0], [1.0, 1.0])
    seen = grids.plane(m, (0, 0, 0, 1, 32, 32))
    assert seen is not None
    assert np.isfinite(seen.values).sum() == 2


def test_cells_as_wide_as_the_plane_make_no_map_but_a_profile():
    m = _measured([(z, 0, 0, z + 1, 32, 32) for z in range(5)], [3.0, 1.0, 4.0, 1.0, 5.0], [1.0] * 5)
    assert grids.plane(m, (0, 0, 0, 5, 32, 32)) is None
    along = grids.profile(m, (0, 0, 0, 5, 32, 32))
    assert along is not None
    assert along.mean.tolist() == [3.0, 1.0, 4.0, 1.0, 5.0]
    assert along.z_nm.tolist() == [0.5, 1.5, 2.5, 3.5, 4.5]


def test_a_profile_has_weighted_means_and_quartiles():
    boxes = [(z, 0, x, z + 1, 8, x + 8) for z in (0, 1) for x in (0, 8, 16)]
    m = _measured(boxes, [1.0, 2.0, 6.0, 0.0, 0.0, 9.0], [1.0, 1.0, 2.0, 1.0, 1.0, 1.0])
    along = grids.profile(m, (0, 0, 0, 2, 8, 24))
    assert along is not None
    assert along.mean.tolist() == [15 / 4, 3.0]
    assert along.low.tolist() == [1.5, 0.0]
    assert along.high.tolist() == [4.0, 4.5]


def test_one_place_along_z_makes_no_profile():
    assert grids.profile(_measured([(0, 0, 0, 1, 8, 8)], [1.0], [1.0]), (0, 0, 0, 1, 8, 8)) is None


@pytest.mark.parametrize("n", [1, 3, 400])
def test_the_share_of_a_volume_is_that_of_its_voxels(n: int):
    rng = np.random.default_rng(n)
    shape = np.asarray([20, 30, 40])
    boxes, marked = [], np.zeros(shape, bool)
    for _ in range(n):
        low = rng.integers(-3, shape - 2)
        high = np.maximum(low + rng.integers(1, 6, 3), 1)
        boxes.append(tuple(map(float, (*low, *high))))
        a, b = np.maximum(low, 0), np.minimum(high, shape)
        marked[tuple(slice(*p) for p in zip(a, b, strict=True))] = True
    assert volume_share(boxes, (0, 0, 0, 20, 30, 40)) == pytest.approx(marked.mean())
    places = np.stack(np.meshgrid(*(np.arange(s) + 0.5 for s in shape), indexing="ij"), axis=-1)
    np.testing.assert_array_equal(inside(places.reshape(-1, 3), boxes).reshape(shape), marked)


def test_a_connection_is_touched_by_any_of_its_synapses():
    big = 2**63 + 5
    pairs = np.asarray([[1, 2], [1, 2], [2, 1], [big, 3], [big + 1, 3]], np.uint64)
    share, of = connection_share(pairs, np.asarray([False, True, False, True, False]))
    assert (share, of) == (0.5, 4)
    assert connection_share(np.zeros((0, 2), np.uint64), np.zeros(0, bool)) == (None, 0)


def test_dark_is_where_quality_is_worse():
    values = np.asarray([[0.0, 1.0]])
    for worse, dark in (("low", 0), ("high", 1)):
        colours = heatmaps.colour_map(worse)(values)[0, :, :3].sum(axis=-1)  # type: ignore[arg-type]
        assert int(np.argmin(colours)) == dark


def test_noise_looks_calm_and_outliers_hide_nothing():
    usual = heatmaps.Usual(median=10.0, spread=2.0, least=8.5, greatest=40.0)
    low, high = heatmaps.limits(np.asarray([[9.9, 10.1]]), usual)
    assert (low, high) == (8.5, 13.0)
    many = np.append(np.linspace(0, 1, 999), 1e6)
    assert heatmaps.limits(many)[1] < 1.1
    assert heatmaps.limits(np.full((2, 2), np.nan)) == (0.0, 1.0)
    assert heatmaps.limits(np.full((2, 2), 3.0)) == (3.0, 3.0)


@pytest.mark.parametrize(("um", "bar"), [(4.6, 1.0), (2.0, 0.5), (900.0, 200.0), (0.1, 0.02)])
def test_scale_bars_are_round(um: float, bar: float):
    assert heatmaps.scale_bar_um(um) == pytest.approx(bar)


def test_spread_is_robust_and_badness_has_a_direction():
    value = np.append(np.tile([9.0, 10.0, 11.0], 20), 1000.0)
    boxes = [(0.0, 0.0, float(k), 1.0, 1.0, k + 1.0) for k in range(len(value))]
    low = _measured(boxes, value.tolist(), [1.0] * len(value), "coverage")
    high = _measured(boxes, value.tolist(), [1.0] * len(value), "raw_noise")
    assert low.spread == pytest.approx(1.4826)
    assert low.badness()[0] == pytest.approx(1 / 1.4826)
    np.testing.assert_allclose(high.badness(), -low.badness())


def test_numbers_are_short_and_ends_can_be_told_apart():
    assert [number(v) for v in (0.0, -0.12345, 1234.5, 5_221_440.0, 1e-7)] == ["0", "−0.1235", "1,234", "5.221×10⁶",
                                                                              "1×10⁻⁷"]  # fmt: skip
    assert ends_of(0.99991, 0.99999) == ("0.9999", "1")


def test_everything_that_is_not_markup_is_escaped():
    assert tag("p", "<b>", title='"x"') == '<p title="&quot;x&quot;">&lt;b&gt;</p>'
    assert tag("p", tag("b", "&")) == "<p><b>&amp;</b></p>"
    assert esc("a\x1b[31m\x00") == "a\ufffd[31m\ufffd"

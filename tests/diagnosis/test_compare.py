"""A region against a reference: values by hand, chance kept at its rate, the border compared with the border."""

from __future__ import annotations

import numpy as np
import pytest

from connectome_db.diagnosis.cells import Cells
from connectome_db.diagnosis.compare import compare, estimate, false_discovery, sample, share_inside, whole_sections
from connectome_db.schema.quality import METRICS

BOUNDS = (0.0, 0.0, 0.0, 960.0, 4096.0, 4096.0)
CORNER = (0.0, 2048.0, 2048.0, 960.0, 4096.0, 4096.0)


def lattice(step: tuple[float, float, float] = (240.0, 512.0, 512.0)) -> np.ndarray:
    axes = [np.arange(BOUNDS[k], BOUNDS[k + 3], step[k]) for k in range(3)]
    low = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    return np.concatenate([low, low + np.asarray(step)], axis=1)


def cells(metric: str, value: np.ndarray, boxes: np.ndarray | None = None, weight: np.ndarray | None = None) -> Cells:
    boxes = lattice() if boxes is None else boxes
    return Cells(METRICS[metric], boxes, value, np.ones(len(boxes)) if weight is None else weight)


def test_shares_of_boxes_in_a_region():
    boxes = np.array([[0, 0, 0, 10, 10, 10], [0, 0, 5, 10, 10, 15], [0, 20, 0, 10, 30, 10.0]])
    assert share_inside(boxes, (0, 0, 0, 10, 10, 10)).tolist() == [1.0, 0.5, 0.0]
    assert whole_sections((120, 0, 0, 300, 4096, 4000), BOUNDS)
    assert not whole_sections(CORNER, BOUNDS)


def test_the_effect_is_the_difference_of_weighted_means():
    rng = np.random.default_rng(1)
    boxes, value, weight = lattice(), rng.normal(10, 1, 256), rng.uniform(0.5, 2, 256)
    inside = share_inside(boxes, CORNER) >= 0.5
    value[inside] -= 3
    found = compare(cells("synapse_density", value, boxes, weight), CORNER, BOUNDS)
    assert found is not None
    here = (value * weight)[inside].sum() / weight[inside].sum()
    there = (value * weight)[~inside].sum() / weight[~inside].sum()
    assert found.region == pytest.approx(here)
    assert found.reference == pytest.approx(there)
    assert found.effect == pytest.approx(here - there)
    assert found.p_value < 1e-6
    assert found.worse
    assert found.ci95[0] < found.effect < found.ci95[1]


def test_chance_is_called_a_difference_at_its_rate_also_when_neighbours_are_alike():
    rng = np.random.default_rng(2)
    p = []
    for _ in range(300):
        blocks = rng.normal(0, 1, (2, 4, 4)).repeat(2, 0).repeat(2, 1).repeat(2, 2)  # alike within 480 x 1024 x 1024 nm
        value = 10 + (blocks + 0.3 * rng.normal(0, 1, blocks.shape)).ravel()
        p.append(compare(cells("synapse_density", value), CORNER, BOUNDS).p_value)  # type: ignore[union-attr]
    assert np.mean(np.asarray(p) < 0.05) < 0.1
    assert np.mean(np.asarray(p) < 0.5) > 0.35


def test_a_section_s_own_level_is_taken_out_unless_whole_sections_are_compared():
    rng = np.random.default_rng(3)
    boxes = lattice((30.0, 512.0, 512.0))
    gain = rng.uniform(0.7, 1.3, 32)[(boxes[:, 0] / 30).astype(int)]
    value = gain * 20 * np.where(share_inside(boxes, CORNER) >= 0.5, 0.9, 1.0) * rng.normal(1, 0.01, len(boxes))
    corner = compare(cells("raw_membrane_contrast", value, boxes), CORNER, BOUNDS)
    assert corner is not None
    assert corner.relative == pytest.approx(-0.1, abs=0.01)
    assert corner.p_value < 1e-4
    run = (300.0, 0.0, 0.0, 600.0, 4096.0, 4096.0)
    weak = np.where((boxes[:, 0] >= 300) & (boxes[:, 0] < 600), 0.4, 1.0) * value
    found = compare(cells("raw_membrane_contrast", weak, boxes), run, BOUNDS)
    assert found is not None
    assert found.relative is not None
    assert found.relative < -0.4
    assert found.p_value < 0.01


def test_cells_near_the_border_are_compared_with_such():
    boxes = lattice((240.0, 256.0, 256.0))
    centre = 0.5 * (boxes[:, :3] + boxes[:, 3:])
    near = sum(((centre[:, k] < 600) | (centre[:, k] > 4096 - 600)).astype(float) for k in (1, 2))
    rng = np.random.default_rng(4)
    value = 10 - 3 * near + rng.normal(0, 0.2, len(boxes))  # the border cuts neurites; the corner is nothing special
    region = (0.0, 2900.0, 2900.0, 960.0, 4096.0, 4096.0)
    found = compare(cells("connection_density", value, boxes), region, BOUNDS)
    assert found is not None
    assert found.edge_corrected
    assert abs(found.effect) < 0.15
    plain = value[share_inside(boxes, region) >= 0.5].mean() - value[share_inside(boxes, region) < 0.1].mean()
    assert plain < -1.0


def test_too_little_on_one_side_is_no_comparison():
    tiny = (0.0, 0.0, 0.0, 240.0, 512.0, 512.0)
    assert compare(cells("synapse_density", np.ones(256)), tiny, BOUNDS) is None
    assert estimate(sample(cells("synapse_density", np.full(256, np.nan)), CORNER, BOUNDS)) is None


def test_q_values_by_hand():
    assert false_discovery([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.16 / 3, 0.16 / 3, 0.5])
    assert false_discovery([]) == []

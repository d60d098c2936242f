"""Gradients of synapses are found; chance, clumps, the border and thick dendrites do not pass for one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectome_db.diagnosis.cells import Cells
from connectome_db.diagnosis.density_columns import Columns, columns, per_membrane
from connectome_db.diagnosis.density_scan import sparsest
from connectome_db.diagnosis.density_trend import gradient, of_pairs, thins_out
from connectome_db.schema.quality import METRICS

BOUNDS = (0.0, 0.0, 0.0, 960.0, 4096.0, 4096.0)
MIDDLE = (np.arange(8) + 0.5) / 8


def density(rng: np.random.Generator, factor: np.ndarray) -> Cells:
    """Cells of which those of a column (8, 8) have `factor` times the usual 12 synapses per um3."""
    low = np.stack(np.meshgrid(*(np.arange(n) * s for n, s in ((4, 240), (8, 512), (8, 512))), indexing="ij"), axis=-1)
    low = low.reshape(-1, 3).astype(float)
    boxes = np.concatenate([low, low + np.array([240, 512, 512])], axis=1)
    volume = rng.uniform(0.04, 0.063, len(boxes))
    mean = 12 * factor[(low[:, 1] // 512).astype(int), (low[:, 2] // 512).astype(int)] * volume
    return Cells(METRICS["connection_density"], boxes, rng.poisson(mean) / volume, volume)


def plane(rng: np.random.Generator, factor: np.ndarray | float = 1.0) -> Columns:
    made = columns(density(rng, np.broadcast_to(factor, (8, 8))), BOUNDS)
    assert made is not None
    return made


def chance(factor: np.ndarray | float, draws: int = 40) -> np.ndarray:
    rng = np.random.default_rng(1)
    return np.asarray([thins_out(plane(rng, factor), 1.0, rng, 99) for _ in range(draws)])


def test_a_smooth_thinning_towards_a_corner_or_a_side_is_found():
    corner = 1 - 0.9 * np.clip(1.2 - np.hypot(1 - MIDDLE[:, None], 1 - MIDDLE[None]), 0, 1)
    side = np.broadcast_to(0.1 + 0.9 * MIDDLE[:, None], (8, 8))
    assert np.mean(chance(corner, 10) <= 0.05) >= 0.9
    assert np.mean(chance(side, 10) <= 0.05) >= 0.8


def test_chance_is_kept_at_its_rate():
    p = chance(1.0, 120)
    assert np.mean(p <= 0.05) <= 0.1
    assert np.mean(p <= 0.5) > 0.3


def test_columns_are_held_against_columns_as_near_to_the_border():
    near = (np.arange(8) % 7 == 0).astype(int)
    found = plane(np.random.default_rng(3), 1 - 0.4 * (near[:, None] + near[None]))
    assert found.stratum.tolist() == (near[:, None] + near[None]).tolist()
    for mine in found.strata():
        assert found.expected[mine].sum() == pytest.approx(found.count[mine].sum())
        assert found.expected[mine] / found.room[mine] == pytest.approx(
            found.count[mine].sum() / found.room[mine].sum()
        )
    assert found.null(np.random.default_rng(4), 3)[:, near == 0][:, :, near == 0].sum(axis=(1, 2)).tolist() == (
        [found.count[1:7, 1:7].sum()] * 3
    )


def test_clumps_do_not_pass_for_a_gradient():
    rng = np.random.default_rng(2)
    clumped = [rng.gamma(0.25, 4.0, (8, 8)) for _ in range(60)]
    p = [thins_out(plane(rng, factor), 1.0, rng, 99) for factor in clumped]
    assert np.mean(np.asarray(p) <= 0.05) <= 0.12


def test_the_scan_tells_where():
    corner = np.where((MIDDLE[:, None] > 0.5) & (MIDDLE[None] > 0.5), 0.15, 1.0)
    found = sparsest(plane(np.random.default_rng(5), corner), BOUNDS)
    assert found is not None
    assert found.found < 0.5 * found.expected
    z0, y0, x0, z1, y1, x1 = found.box_nm
    assert (z0, z1) == (0.0, 960.0)
    assert min(y0, x0) >= 1536
    assert max(y1, x1) == 4096


def test_too_few_synapses_tell_nothing():
    assert columns(density(np.random.default_rng(6), np.full((8, 8), 0.01)), BOUNDS) is None


@pytest.fixture
def dendrites(tmp_path: Path) -> Path:
    """Two receiving neurites, objects 1 and 2, whose membrane lies in the columns with x below 2048 nm alone."""
    y, x = (v.ravel() for v in np.meshgrid(MIDDLE * 512, MIDDLE * 512, indexing="ij"))  # voxels of 8 nm
    left = x < 256
    tables = {
        "score/contact": {
            "a": np.where(left, 1, 3), "b": np.where(left, 9, 4), "area_nm2": np.full(64, 2e6), "y_vx": y, "x_vx": x
        },
        "agglomerate/member": {"supervoxel": [1, 2, 3, 4, 9], "object": [1, 2, 3, 4, 9]},
        "graph/link": {
            "pre": [9, 9, 9, 3], "post": [1, 1, 1, 4], "counted": [True, True, True, False]
        },
    }  # fmt: skip
    for name, made in tables.items():
        path = tmp_path / "data" / f"{name}.parquet"
        path.parent.mkdir(parents=True)
        ids = {
            c: pa.array(v, pa.uint64())
            for c, v in made.items()
            if c in ("a", "b", "supervoxel", "object", "pre", "post")
        }
        pq.write_table(pa.table(made | ids), path)
    (tmp_path / "data" / "segment").mkdir()
    (tmp_path / "data" / "segment" / "record.json").write_text(json.dumps({"voxel_nm": [30, 8, 8]}))
    return tmp_path


def test_room_is_the_membrane_of_neurites_that_receive(dendrites):
    membrane = per_membrane(plane(np.random.default_rng(7)), dendrites)
    assert membrane is not None
    assert membrane.room[:, :4] == pytest.approx(2.0)
    assert (membrane.room[:, 4:] == 0).all()
    assert of_pairs(dendrites) == 3.0


def test_synapses_that_follow_the_membrane_are_no_gradient_per_membrane(dendrites):
    half = np.where(MIDDLE[None] < 0.5, 1.0, 0.0)
    rng = np.random.default_rng(8)
    found = plane(rng, np.broadcast_to(half, (8, 8)))
    membrane = per_membrane(found, dendrites)
    assert membrane is not None
    assert thins_out(found, 1.0, rng, 99) <= 0.02
    assert thins_out(membrane, 1.0, rng, 99) > 0.1


def test_without_a_graph_the_volume_of_tissue_alone_is_tried(tmp_path):
    rng = np.random.default_rng(9)
    found = plane(rng)
    p, clearest = gradient(found, tmp_path, rng)
    assert 0 < p <= 1
    assert clearest is found

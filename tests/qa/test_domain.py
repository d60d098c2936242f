"""Every expectation beyond the schema: tables of a few rows that meet it, and the same with one thing wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from connectome_db import ids
from connectome_db.errors import ConfigError
from connectome_db.qa.checks import check_domain, check_project
from connectome_db.qa.domain import DOMAIN
from connectome_db.qa.result import Result
from connectome_db.qa.settings import QaParams, names
from connectome_db.schema.all import STAGE_OF, TABLES
from tests.tiny_project import table_of

Rows = Mapping[str, list[dict[str, Any]]]
VOXEL_NM = (50.0, 10.0, 10.0)
BOUNDS = [0, 0, 0, 4, 200, 300]


def write(root: Path, rows: Rows) -> Path:
    for name, given in rows.items():
        stage = STAGE_OF[name]
        folder = root / "data" / stage
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(table_of(name, [{"unit": 1} | r for r in given]), folder / f"{name}.parquet")
        (folder / "record.json").write_text(json.dumps({"voxel_nm": VOXEL_NM, "bounds": BOUNDS}))
    return root


def tiles(*given: dict[str, Any]) -> list[dict[str, Any]]:
    """One tile per section from 0 on, all sound except for what is given."""
    sound = {"saturation": 0.0, "sharpness": 0.4, "std": 30.0, "noise": 5.0, "mean": 120.0, "valid_fraction": 1.0,
             "membrane_contrast": 0.8}  # fmt: skip
    return [sound | {"section": z, "tile": f"t{z}"} | g for z, g in enumerate(given)]


def matches(weight: list[float], residual: float = 0.1) -> list[dict[str, Any]]:
    return [{"section": 0, "patch": i, "weight": w, "residual_px": residual} for i, w in enumerate(weight)]


def residuals(y: float) -> list[dict[str, Any]]:
    near = {"section_a": 0, "section_b": 1, "residual_y_px": 0.3, "residual_x_px": 0.4, "weight": 1.0}
    far = {"section_a": 1, "section_b": 2, "residual_y_px": y, "residual_x_px": 0.0, "weight": 1.0}
    return [pair | {"y_px": float(i)} for pair, n in ((near, 3), (far, 5)) for i in range(n)]


def pairs(taken: list[bool]) -> list[dict[str, Any]]:
    return [{"section_a": 0, "section_b": 1, "a_y_px": float(i), "accepted": ok} for i, ok in enumerate(taken)]


def planes(*coverage: float) -> list[dict[str, Any]]:
    return [{"section": z, "coverage": c} for z, c in enumerate(coverage)]


def areas(tissue: int, outside: int = 0, fold: int = 0) -> list[dict[str, Any]]:
    return [{"mask_class": c, "voxels": v} for c, v in ((0, tissue), (1, outside), (3, fold))]


def objects(*sizes: int) -> list[dict[str, Any]]:
    box = {"z1_vx": 1, "y0_vx": 10, "y1_vx": 20, "x1_vx": 5}
    return [{"object": i + 1, "size_vx": s} | box for i, s in enumerate(sizes)]


def members(*of: tuple[int, int]) -> list[dict[str, Any]]:
    return [{"supervoxel": s, "fragment": s, "object": o} for s, o in of]


def merges(*score: float) -> list[dict[str, Any]]:
    return [{"a": i + 1, "b": i + 2, "score": s, "area_nm2": 100.0, "rank": i} for i, s in enumerate(score)]


def synapses(n: int, **same: float) -> list[dict[str, Any]]:
    return [{"synapse": i + 1} | same for i in range(n)]


def links(*edge: tuple[int, int, str]) -> list[dict[str, Any]]:
    return [{"synapse": i + 1, "pre": a, "post": b, "counted": why == "counted", "reason": why}
            for i, (a, b, why) in enumerate(edge)]  # fmt: skip


def neurons(*degree: tuple[int, int]) -> list[dict[str, Any]]:
    return [{"neuron": i + 1, "synapses_out": a, "synapses_in": b} for i, (a, b) in enumerate(degree)]


def edge(a: int, b: int, n: int) -> dict[str, Any]:
    return {"pre": a, "post": b, "synapses": n}


OK = (1, 2, "counted")
UM3 = 200_000
"""Voxels of 50 x 10 x 10 nm in one cubic micrometre."""
SUPERVOXELS = [{"supervoxel": 1, "size_vx": 7}, {"supervoxel": 2, "size_vx": 5}, {"supervoxel": 3, "size_vx": 4}]

CASES: dict[str, tuple[Rows, Rows, float, str]] = {
    # name: (met, not met, the value that is furthest off, where)
    "unusable_tiles": (
        {"tile": tiles({}, {}), "tile_issue": []},
        {"tile": tiles({}, {}, {}), "tile_issue": [{"section": 2, "tile": "gone", "problem": "missing"}]},
        0.5, "section 2",
    ),
    "tile_valid": (
        {"tile": tiles({}, {"valid_fraction": 0.6})}, {"tile": tiles({}, {"valid_fraction": 0.4})}, 0.4, "tile t1",
    ),
    "tile_saturation": ({"tile": tiles({"saturation": 0.05})}, {"tile": tiles({"saturation": 0.06})}, 0.06, "tile t0"),
    "tile_sharpness": (
        {"tile": tiles({}, {"sharpness": 0.2}, {})}, {"tile": tiles({}, {"sharpness": 0.1}, {})}, 0.25, "tile t1",
    ),
    "tile_contrast": (
        {"tile": tiles({"membrane_contrast": 0.5})}, {"tile": tiles({}, {"membrane_contrast": 0.3})}, 0.3, "tile t1",
    ),
    "tile_noise": ({"tile": tiles({"noise": 14.0})}, {"tile": tiles({"noise": 24.0})}, 0.8, "tile t0"),
    "section_grey_step": (
        {"tile": tiles({"mean": 100.0}, {"mean": 150.0})},
        {"tile": tiles({"mean": 107.0}, {"mean": 130.0}, {"mean": 214.0})},
        84.0, "section 2",
    ),
    "section_gap": (
        {"tile": tiles({"section": 3}, {"section": 5})}, {"tile": tiles({"section": 3}, {"section": 6})},
        2, "section 6",
    ),
    "tile_matches": ({"tile_match": matches([1, 1, 0])}, {"tile_match": matches([1, 0, 0, 0])}, 0.25, "section 0"),
    "tile_residual_px": (
        {"tile_match": [*matches([1, 1], 1.4), {"section": 0, "patch": 9, "weight": 0.0, "residual_px": 99.0}]},
        {"tile_match": matches([1, 1], 2.0)}, 2.0, "section 0",
    ),
    "loose_tiles": (
        {"tile_transform": [{"section": 0, "tile": "a"}, {"section": 1, "tile": "b"}]},
        {"tile_transform": [{"section": 0, "tile": "a"}, {"section": 0, "tile": "b", "component": 1}]},
        0.5, "section 0",
    ),
    "section_matches": (
        {"section_match": [*pairs([True, True, False]), {"section_a": 0, "section_b": 2, "accepted": False}]},
        {"section_match": pairs([True, False, False, False])}, 0.25, "section 1",
    ),
    "section_residual_px": (
        {"alignment_residual": residuals(3.0)}, {"alignment_residual": residuals(6.0)}, 6.0, "section 1",
    ),
    "coverage": ({"image_plane": planes(0.5, 0.45, 0.5)}, {"image_plane": planes(0.5, 0.3, 0.5)}, 0.6, "section 1"),
    "masked": (
        {"mask_area": areas(80, 900, 20)}, {"mask_area": areas(60, 900, 40)}, 0.4, "unit 1",
    ),
    "tissue_in_objects": (
        {"object": objects(40, 50), "mask_area": areas(100)}, {"object": objects(20, 30), "mask_area": areas(100)},
        0.5, "whole dataset",
    ),
    "object_sizes": (
        {"object": objects(12, 4), "member": members((1, 1), (2, 1), (3, 2)), "supervoxel": SUPERVOXELS},
        {"object": objects(12, 9), "member": members((1, 1), (2, 1), (3, 2)), "supervoxel": SUPERVOXELS},
        5.0, "object 2",
    ),
    "overlap_accepted": (
        {"overlap": [{"a": 1, "b": 2, "overlap_vx": 30, "accepted": True}, {"a": 1, "b": 3, "overlap_vx": 60}]},
        {"overlap": [{"a": 1, "b": 2, "overlap_vx": 10, "accepted": True}, {"a": 1, "b": 3, "overlap_vx": 90}]},
        0.1, "unit 1",
    ),
    "largest_object": (
        {"object": objects(25, 25, 25, 25)}, {"object": objects(10, 80, 10)}, 0.8, "object 2",
    ),
    "weak_merges": ({"merge": merges(*[0.9] * 9, 0.4)}, {"merge": merges(0.9, 0.4)}, 0.5, "whole dataset"),
    "borderline": (
        {"borderline": [{"a": 1, "b": 2}], "object": objects(5, 5)},
        {"borderline": [{"a": 1, "b": 2}, {"a": 1, "b": 3}, {"a": 2, "b": 3}], "object": objects(5, 5, 5)},
        1.0, "whole dataset",
    ),
    "synapse_density": (
        {"synapse": synapses(3), "mask_area": areas(3 * UM3)}, {"synapse": synapses(40), "mask_area": areas(2 * UM3)},
        20.0, "whole dataset",
    ),
    "synapse_confidence": (
        {"synapse": synapses(3, confidence=0.7)}, {"synapse": synapses(3, confidence=0.4)}, 0.4, "whole dataset",
    ),
    "synapse_polarity": (
        {"synapse": synapses(3, polarity=0.7)}, {"synapse": synapses(3, polarity=0.1)}, 0.1, "whole dataset",
    ),
    "counted": (
        {"link": links(OK, OK, OK, (1, 1, "autapse"), (1, 2, "duplicate"), (1, 2, "duplicate"))},
        {"link": links(OK, (1, 2, "low confidence"))}, 0.5, "whole dataset",
    ),
    "duplicates": (
        {"link": links(OK, OK, OK, OK, (1, 2, "duplicate"))}, {"link": links(OK, (1, 2, "duplicate"))},
        0.5, "whole dataset",
    ),
    "autapses": (
        {"link": links(*[OK] * 20, (1, 1, "autapse"))}, {"link": links(OK, OK, OK, (1, 1, "autapse"))},
        0.25, "whole dataset",
    ),
    "connection_sums": (
        {"connection": [edge(1, 2, 2)], "link": links(OK, OK, (1, 1, "autapse"))},
        {"connection": [edge(1, 2, 1), edge(2, 1, 1)], "link": links(OK, OK, (2, 1, "counted"))},
        -1.0, "neuron 1",
    ),
    "neuron_sums": (
        {"neuron": neurons((2, 0), (0, 2)), "link": links(OK, OK)},
        {"neuron": neurons((2, 0), (0, 4)), "link": links(OK, OK)},
        2.0, "neuron 2",
    ),
    "unconnected": (
        {"neuron": neurons((1, 0), (0, 1), (0, 0))}, {"neuron": neurons((1, 0), (0, 0), (0, 0), (0, 0))},
        0.75, "whole dataset",
    ),
    "connection_synapses": (
        {"connection": [edge(1, 2, 200)]}, {"connection": [edge(1, 2, 7), edge(2, 3, 201)]}, 201, "connection 2 to 3",
    ),
    "serious_flags": (
        {"flag": [{"flag": "a/local/1", "severity": "warning"}]},
        {"flag": [{"flag": "a/local/1", "severity": "serious"}]}, 1, "flag a/local/1",
    ),
}  # fmt: skip


def of(root: Path, name: str, params: QaParams | None = None) -> Result:
    (found,) = [r for r in check_domain(root, params or QaParams()) if r.name == name]
    return found


@pytest.mark.parametrize("name", CASES)
def test_it_is_met_and_not_met(tmp_path: Path, name: str) -> None:
    well, wrong, furthest, where = CASES[name]
    assert of(write(tmp_path / "well", well), name).success
    found = of(write(tmp_path / "wrong", wrong), name)
    assert not found.success
    assert found.observed == pytest.approx(furthest)
    assert found.place == where
    assert found.unexpected >= 1
    assert found.reason


def test_sections_are_placed_by_matches(tmp_path: Path) -> None:
    poses = [{"section": 0, "placed": "anchor"}, {"section": 1, "placed": "matches"}]
    assert of(write(tmp_path / "well", {"section_pose": poses}), "sections_placed").success
    poses.append({"section": 2, "placed": "neighbours"})
    found = of(write(tmp_path / "wrong", {"section_pose": poses}), "sections_placed")
    assert (found.success, found.severity, found.unexpected) == (False, "error", 1)
    assert (found.place, found.example) == ("section 2", "neighbours")
    assert (found.z0_nm, found.z1_nm, found.y1_nm, found.x1_nm) == (100.0, 150.0, 2000.0, 3000.0)


def test_every_expectation_has_a_case_a_reason_and_a_setting() -> None:
    assert {*CASES, "sections_placed"} == {d.name for d in DOMAIN} == set(names())
    for d in DOMAIN:
        assert d.reason.endswith("."), d.name
        for table, column in (n.split(".") for n in d.needs):
            assert column in {"unit", *(c.name for c in TABLES[table].columns)}, d.name


def test_a_place_has_its_box(tmp_path: Path) -> None:
    found = of(write(tmp_path, CASES["largest_object"][1]), "largest_object")
    box = (found.z0_nm, found.y0_nm, found.x0_nm, found.z1_nm, found.y1_nm, found.x1_nm)
    assert box == (0.0, 100.0, 0.0, 50.0, 200.0, 50.0)


def test_limits_and_severities_are_settings(tmp_path: Path) -> None:
    root = write(tmp_path, CASES["tile_noise"][1])
    assert of(root, "tile_noise", QaParams(tile_noise_max=0.9)).success
    assert of(root, "tile_noise", QaParams(severity={"tile_noise": "error"})).severity == "error"
    for off in (QaParams(tile_noise_max=None), QaParams(severity={"tile_noise": "off"})):
        assert "tile_noise" not in {r.name for r in check_domain(root, off)}


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"severity": {"tile_nois": "error"}}, "did you mean 'tile_noise'"),
        ({"severity": {"tile_noise": "grave"}}, "severity.tile_noise"),
        ({"tile_valid_min": 1.5}, "less than or equal to 1"),
        ({"synapse_density_range": [3, 1]}, "lowest, highest"),
        ({"tile_noise": 0.5}, "did you mean 'tile_noise_max'"),
        ({"strict": "very"}, "strict"),
    ],
)
def test_wrong_settings_are_told(values: dict[str, Any], says: str) -> None:
    from connectome_db.config import _parse

    with pytest.raises(ConfigError, match=says):
        _parse(QaParams, values, "params.yaml: qa")


def test_strict_off_may_be_written_as_yaml_1_1_reads_it() -> None:
    assert QaParams(strict=False).strict == "off"  # type: ignore[arg-type]


def test_tables_that_are_empty_are_as_expected(tmp_path: Path) -> None:
    root = write(tmp_path, {name: [] for name in TABLES})
    results = check_domain(root, QaParams())
    assert {r.name for r in results} == set(names())
    assert [r.name for r in results if not r.success] == []


def test_what_the_schema_refuses_is_not_measured(tmp_path: Path) -> None:
    root = write(tmp_path, {"tile": tiles({}, {})})
    path = root / "data/ingest/tile.parquet"
    rows = pq.read_table(path)
    pq.write_table(rows.drop_columns(["noise"]), path)
    results = check_project(root, QaParams())
    assert "tile_noise" not in {r.name for r in results}
    assert [r.name for r in results if not r.success] == ["same"]
    assert "tile_sharpness" in {r.name for r in results}


def test_ids_above_two_to_the_53_stay_apart(tmp_path: Path) -> None:
    a, b = (int(v) for v in ids.mint(int(ids.pack([(4000, 4000, 4000)], 0)[0]), [1, 2]))
    assert np.float64(a) == np.float64(b)
    rows = {"neuron": [{"neuron": a, "synapses_out": 1, "synapses_in": 0}, {"neuron": b, "synapses_in": 1}],
            "link": links((a, b, "counted"))}  # fmt: skip
    assert of(write(tmp_path, rows), "neuron_sums").success

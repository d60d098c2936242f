"""Rows of quality -> flags: what is planted is told once, with a severity; the rest is silent and repeatable."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from connectome_db import plans
from connectome_db.codedigest import code_digest
from connectome_db.geometry import Box
from connectome_db.schema.quality import FLAG, METRICS, QUALITY_GRAPH, QUALITY_RAW, QUALITY_VOLUME
from connectome_db.spec import Block, Extent, Found
from connectome_db.stages import flag
from tests.kernels.fields import ar1_field

NM = (30.0, 8.0, 8.0)
BOUNDS = Box((0, 0, 0), (32, 512, 512))
CELL_VX = {flag.RAW: (1, 64, 64), flag.VOLUME: (8, 64, 64), flag.GRAPH: (8, 64, 64)}
TABLES = {flag.RAW: QUALITY_RAW, flag.VOLUME: QUALITY_VOLUME, flag.GRAPH: QUALITY_GRAPH}


def cells_of(metric: str, table: str, seed: int, grain: float = 0.1) -> np.ndarray:
    """Values (z, y, x) of an undisturbed metric: tissue that hangs together, and grey values with a swinging gain."""
    shape = tuple(n // c for n, c in zip(BOUNDS.shape, CELL_VX[table], strict=True))
    rng = np.random.default_rng([seed, *metric.encode()])
    out = 10 * (1 + grain * ar1_field(rng, (shape[0], shape[1], shape[2]), 0.6, 0.3))
    if METRICS[metric].measure == "grey":
        out *= np.exp(rng.uniform(-0.16, 0.16, shape[0]))[:, None, None]
    return out / 20 if METRICS[metric].measure == "1" else out


def rows_of(metric: str, table: str, cells: np.ndarray) -> pa.Table:
    """The rows of a metric, with a `unit` in front as the runner gives them."""
    size = np.array(CELL_VX[table]) * NM
    at = np.argwhere(np.isfinite(cells))
    lo, hi = at * size, (at + 1) * size
    columns: dict[str, Any] = {
        "unit": np.zeros(len(at), np.uint64),
        "layer": [METRICS[metric].layer] * len(at),
        "metric": [metric] * len(at),
        **{f"{a}0_nm": lo[:, k] for k, a in enumerate("zyx")},
        **{f"{a}1_nm": hi[:, k] for k, a in enumerate("zyx")},
        "value": cells[tuple(at.T)],
        "weight": np.full(len(at), 4096.0),
        "measure": [METRICS[metric].measure] * len(at),
        "section": at[:, 0].astype(np.int32),
        "tile": [f"s{z}_r{y}_c{x}" for z, y, x in at],
    }
    schema = TABLES[table].stored()
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def flags_of(rows: dict[str, list[pa.Table]], seed: int = 7, **params: Any) -> pa.Table:
    """Run the stage on rows by table."""
    tables = {k: pa.concat_tables([t.stored().empty_table(), *rows.get(k, [])]) for k, t in TABLES.items()}
    extent = Extent(np.array([0], np.uint64), np.array([BOUNDS.flat()]))
    chosen = flag.FlagParams(**{"permutations": 199, **params})
    plan = flag.plan(Found(NM, dict.fromkeys(flag.STAGE.inputs, extent)), chosen)
    assert len(plan) == 1
    made = flag.compute(Block(plans.unit(plan, 0), chosen, NM, {}, {}, tables, {}, None, seed))["flag"]
    assert isinstance(made, pa.Table)
    assert made.schema.equals(FLAG.arrow())
    return made


def undisturbed(seed: int = 0) -> dict[str, list[pa.Table]]:
    """A dozen metrics of all layers without any artefact."""
    names = {
        flag.RAW: ("raw_membrane_contrast", "raw_mean", "raw_sharpness", "raw_noise"),
        flag.VOLUME: ("image_contrast", "affinity_certainty", "supervoxel_density", "synapse_confidence"),
        flag.GRAPH: ("object_density", "degree", "connection_density", "orphan_fraction"),
    }
    return {t: [rows_of(m, t, cells_of(m, t, seed)) for m in metrics] for t, metrics in names.items()}


def planted(metric: str, table: str, cells: np.ndarray) -> pa.Table:
    """The flags of the undisturbed metrics with one of them replaced."""
    rows = undisturbed()
    rows[table] = [t for t in rows[table] if t["metric"][0].as_py() != metric] + [rows_of(metric, table, cells)]
    return flags_of(rows)


def test_undisturbed_tissue_has_no_flags() -> None:
    for seed in range(4):
        assert [s for s in flags_of(undisturbed(seed))["severity"].to_pylist() if s != "info"] == []


def test_a_bad_session_is_a_serious_step_over_whole_sections() -> None:
    cells = cells_of("raw_membrane_contrast", flag.RAW, 1)
    cells[8:18] *= 0.45
    (row,) = planted("raw_membrane_contrast", flag.RAW, cells).to_pylist()
    assert (row["flag"], row["layer"], row["severity"]) == ("raw_membrane_contrast/step/1", "ingest", "serious")
    assert [row[c] for c in flag.BOX] == pytest.approx([240, 0, 0, 540, 4096, 4096])
    assert row["relative"] == pytest.approx(-0.55, abs=0.08)
    assert row["effect"] == pytest.approx(row["inside"] - row["outside"])
    assert row["worse"]
    assert row["q_value"] <= 0.05
    assert "10 sections in a row" in row["evidence"]


def test_a_defocused_tile_in_some_sections_is_one_local_box() -> None:
    cells = cells_of("raw_sharpness", flag.RAW, 2)
    cells[5:16, :4, 4:] *= 0.5
    (row,) = planted("raw_sharpness", flag.RAW, cells).to_pylist()
    assert (row["kind"], row["severity"]) == ("local", "serious")
    assert [row[c] for c in flag.BOX] == pytest.approx([150, 0, 2048, 480, 2048, 4096])


def test_what_gets_better_is_told_as_info() -> None:
    cells = cells_of("raw_sharpness", flag.RAW, 2)
    cells[5:16, :4, 4:] *= 1.6
    (row,) = planted("raw_sharpness", flag.RAW, cells).to_pylist()
    assert (row["severity"], row["worse"], row["effect"] > 0) == ("info", False, True)


def test_flags_are_repeatable_and_no_metric_changes_those_of_another() -> None:
    cells = cells_of("raw_sharpness", flag.RAW, 2)
    cells[5:16, :4, 4:] *= 0.5
    alone = rows_of("raw_sharpness", flag.RAW, cells)
    other = rows_of("raw_mean", flag.RAW, cells_of("raw_mean", flag.RAW, 3))
    first = flags_of({flag.RAW: [alone]})
    assert flags_of({flag.RAW: [alone]}).equals(first)
    both = flags_of({flag.RAW: [other, alone]})
    assert both.drop(["q_value"]).equals(first.drop(["q_value"]))


def test_no_rows_make_no_flags() -> None:
    assert len(flags_of({})) == 0


def test_the_stage_is_pure_and_quick() -> None:
    assert code_digest("stages.flag")
    rows = undisturbed()
    start = time.process_time()
    flags_of(rows, permutations=499)
    assert time.process_time() - start < 12  # about 1 s; generous for a machine that does other things

"""measure_volume against plain loops over a small volume, and whatever the blocks are."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy import ndimage

from connectome_db import ids, plans
from connectome_db.errors import StageError
from connectome_db.geometry import Box
from connectome_db.schema.alignment import SECTION_MATCH, SECTION_TRANSFORM
from connectome_db.schema.quality import METRICS
from connectome_db.schema.segmentation import CONTACT, SUPERVOXEL
from connectome_db.schema.wiring import SYNAPSE
from connectome_db.spec import Extent, Found, Table
from connectome_db.stages.measure_volume import STAGE, MeasureVolumeParams
from tests.stages.memory import Memory

NM = (30.0, 8.0, 10.0)
UM3 = 30 * 8 * 10 * 1e-9
SHAPE = (5, 32, 48)
CELL = (2, 16, 16)
SHIFT = {0: (0.0, 0.0), 1: (3.0, -2.0), 2: (1.0, 5.0), 4: (0.0, 2.0)}
"""Plane minus volume, per section. Section 3 was lost."""
Key = tuple[str, int, int, int]


def volumes() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(4)
    base = ndimage.gaussian_filter(rng.normal(size=SHAPE), (0.7, 2.0, 2.0))
    image = np.clip(128 + 30 * base / base.std() + rng.normal(0, 4, SHAPE), 1, 255).astype(np.uint8)
    image[1, :20, :30] = 0
    image[3] = 0
    mask = np.where(image == 0, 1, 0).astype(np.uint8)
    mask[0, :9, :40] = 3
    mask[2, 4:, 32:] = 2
    mask[4, 16:, :] = 6
    affinity = rng.integers(0, 256, (3, *SHAPE), dtype=np.uint8)
    return {"render.image": image, "mask.mask": mask} | {
        f"segment.affinity_{axis}": affinity[k] for k, axis in enumerate("zyx")
    }


def scattered(table: Table, n: int, seed: int) -> pa.Table:
    """Rows in a grid of blocks of (3, 16, 24) voxels, as their stage would store them."""
    rng = np.random.default_rng(seed)
    place = rng.uniform((-0.49,) * 3, np.asarray(SHAPE) - 0.51, (n, 3))
    code = ids.pack(np.floor(place + 0.5).astype(np.int64) // (3, 16, 24))
    rows = []
    for k in range(n):
        row: dict[str, Any] = {c.name: "" if c.dtype == "string" else 0 for c in table.columns}
        row |= {f"{axis}_vx": place[k, i] for i, axis in enumerate("zyx")}
        row |= {c: k + 1 for c in ("supervoxel", "synapse", "a") if c in row}
        row |= {c: float(rng.uniform()) for c in ("affinity", "confidence", "polarity") if c in row}
        row |= {"size_vx": int(rng.integers(20, 90))} if "size_vx" in row else {}
        row |= {"area_nm2": float(rng.uniform(1e3, 1e4))} if "area_nm2" in row else {}
        rows.append({"unit": int(code[k]), **row})
    return pa.Table.from_pylist(rows, schema=table.stored()).sort_by([("unit", "ascending")])


def matches() -> pa.Table:
    """Every pair of sections up to two apart, on a grid in the plane of the lower one, with a known error."""
    rng, rows = np.random.default_rng(9), []
    for a, b in itertools.combinations(SHIFT, 2):
        if b - a > 2:
            continue
        for y, x in itertools.product(range(-8, SHAPE[1] + 8, 5), range(-8, SHAPE[2] + 8, 5)):
            error = rng.normal(0, 2, 2)
            there = [v - SHIFT[a][k] + SHIFT[b][k] + error[k] for k, v in enumerate((y, x))]
            rows.append(
                {"unit": int(ids.pack([(a, b - a, 0)])[0]), "section_a": a, "section_b": b}
                | {"a_y_px": float(y), "a_x_px": float(x), "b_y_px": there[0], "b_x_px": there[1]}
                | {"peak_ratio": float(rng.uniform(1, 3)), "correlation": float(rng.uniform())}
                | {"accepted": bool(rng.uniform() < 0.7)}
            )
    return pa.Table.from_pylist(rows, schema=SECTION_MATCH.stored())


def meshes() -> pa.Table:
    """A map per section whose outermost cells lie outside the volume but for the last columns."""
    rows = [
        {"unit": int(ids.pack([(z, 0, 0)])[0]), "section": z, "node_y_px": y, "node_x_px": x}
        | {"source_y_px": float(y + dy), "source_x_px": float(x + dx)}
        for z, (dy, dx) in SHIFT.items()
        for y, x in itertools.product(range(-16, 49, 16), range(-16, 49, 16))
    ]
    return pa.Table.from_pylist(rows, schema=SECTION_TRANSFORM.stored())


def project() -> Memory:
    memory = Memory(NM, volumes(), Box((0, 0, 0), SHAPE))
    grid = plans.grid(memory.bounds, (3, 16, 24))
    for name, table, n in (
        ("segment.supervoxel", SUPERVOXEL, 150),
        ("score.contact", CONTACT, 90),
        ("synapses.synapse", SYNAPSE, 40),
    ):
        memory.tables[name] = scattered(table, n, n)
        memory.extents[name] = Extent(grid.codes, grid.cores)
    memory.tables["match.section_match"] = matches()
    pairs = sorted({(r["unit"], r["section_a"], r["section_b"]) for r in matches().to_pylist()})
    memory.extents["match.section_match"] = Extent(
        np.asarray([p[0] for p in pairs], np.uint64),
        np.asarray([(a, -99, -99, b + 1, 99, 99) for _, a, b in pairs], np.int64),
    )
    memory.tables["align.section_transform"] = meshes()
    memory.extents["align.section_transform"] = Extent(
        ids.pack([(z, 0, 0) for z in SHIFT]), np.asarray([(z, -16, -16, z + 1, 49, 49) for z in SHIFT], np.int64)
    )
    return memory


def measured(block_vx: tuple[int, int, int] = (4, 32, 32), order: tuple[int, ...] = ()) -> list[dict[str, Any]]:
    memory = project()
    memory.run(STAGE, MeasureVolumeParams(block_vx=block_vx, cell_vx=CELL, band_px=(1.0, 4.0)), order=order)
    keys = [(k, "ascending") for k in ("metric", "z0_nm", "y0_nm", "x0_nm")]
    return list(memory.tables["measure_volume.quality_volume"].drop_columns("unit").sort_by(keys).to_pylist())


def found() -> dict[Key, tuple[float, float]]:
    """(value, weight) by metric and lowest corner in voxels."""
    return {
        (r["metric"], round(r["z0_nm"] / 30), round(r["y0_nm"] / 8), round(r["x0_nm"] / 10)): (r["value"], r["weight"])
        for r in measured()
    }


def mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def of(metric: str, rows: dict[Key, tuple[float, float]]) -> dict[Key, tuple[float, float]]:
    return {k: v for k, v in rows.items() if k[0] == metric}


def corners(thick: int) -> list[tuple[int, int, int]]:
    return list(itertools.product(range(0, SHAPE[0], thick), range(0, SHAPE[1], 16), range(0, SHAPE[2], 16)))


def voxels(corner: tuple[int, int, int], thick: int) -> list[tuple[int, int, int]]:
    sides = zip(corner, (thick, 16, 16), SHAPE, strict=True)
    return list(itertools.product(*(range(lo, min(lo + n, end)) for lo, n, end in sides)))


def test_cells_of_a_section() -> None:
    volume, rows = volumes(), found()
    image, mask = volume["render.image"], volume["mask.mask"]
    wanted: dict[Key, tuple[float, float]] = {}
    for corner in corners(1):
        seen = [v for v in voxels(corner, 1) if image[v]]
        expected = [v for v in voxels(corner, 1) if v[2] < 32]  # the maps' last cells (x from 32) promise nothing
        if expected:
            share = sum(1 for v in expected if image[v]) / len(expected)
            wanted["coverage", *corner] = (share, len(expected))
        if len(seen) >= 0.05 * 256:
            wanted["damaged", *corner] = (mean(mask[v] in {3, 4, 5, 6} for v in seen), len(seen))
    got = of("coverage", rows) | of("damaged", rows)
    assert got.keys() == wanted.keys()
    assert {wanted["coverage", 3, 0, 0], wanted["coverage", 0, 0, 0]} == {(0.0, 256), (1.0, 256)}
    for key, pair in wanted.items():
        assert got[key] == pytest.approx(pair, rel=1e-5), key


def test_continuity_and_contrast() -> None:
    """Against SciPy's filters and NumPy's correlation."""
    image, rows = volumes()["render.image"], found()
    grey = np.where(image == 0, 128, image).astype(np.float64)
    # Boxes of 3 and 13 px have standard deviations of 0.8 and 3.7 (5: 1.4, 15: 4.3): the nearest to 1.0 and 4.0.
    fine, coarse = (ndimage.uniform_filter(grey, (0, n, n), mode="mirror") for n in (3, 13))
    smooth = ndimage.gaussian_filter(grey, (0, 2, 2), mode="mirror", truncate=4)
    line, curve = np.asarray([1, 2, 1]) / 4, np.asarray([1, -2, 1])
    yy, xx, xy = (
        ndimage.correlate1d(ndimage.correlate1d(smooth, a, axis=1, mode="mirror"), b, axis=2, mode="mirror")
        for a, b in ((curve, line), (line, curve), (np.asarray([-1, 0, 1]) / 2, np.asarray([-1, 0, 1]) / 2))
    )
    ridge = 4 * (0.5 * (yy + xx) + np.sqrt(0.25 * (yy - xx) ** 2 + xy**2))
    gaps = [ndimage.binary_dilation(p == 0, np.ones((13, 13))) for p in image]
    wanted: dict[Key, tuple[float, float]] = {}
    for z, y, x in corners(1):
        window = slice(y, y + 16), slice(x, x + 16)
        if z + 1 < SHAPE[0]:
            both = (image[z][window] > 0) & (image[z + 1][window] > 0)
            a, b = (fine[k][window][both] - coarse[k][window][both] for k in (z, z + 1))
            if both.sum() >= 0.05 * 256:
                wanted["section_continuity", z, y, x] = (float(np.corrcoef(a, b)[0, 1]), float(both.sum()))
        clean = ridge[z][window][~gaps[z][window]]
        if clean.size >= 0.05 * 256:
            top = np.sort(clean)[-(clean.size // 10) :]
            wanted["image_contrast", z, y, x] = (float(np.maximum(top, 0).mean()), float(clean.size))
    got = of("section_continuity", rows) | of("image_contrast", rows)
    assert got.keys() == wanted.keys()
    for key, pair in wanted.items():
        assert got[key] == pytest.approx(pair, rel=2e-4, abs=1e-4), key


def test_matches_where_they_lie_in_the_volume() -> None:
    rows = found()
    at: dict[tuple[int, int, int], list[tuple[float, float, float, bool]]] = {}
    for r in matches().to_pylist():
        a, b = r["section_a"], r["section_b"]
        here = [r[f"a_{axis}_px"] - SHIFT[a][k] for k, axis in enumerate("yx")]
        there = [r[f"b_{axis}_px"] - SHIFT[b][k] for k, axis in enumerate("yx")]
        y, x = (int(np.floor(v + 0.5)) for v in here)
        following = min(k for k in SHIFT if k > a)
        if b == following and 0 <= y < SHAPE[1] and 0 <= x < SHAPE[2]:
            gap = float(np.hypot(there[0] - here[0], there[1] - here[1]))
            at.setdefault((a, y // 16 * 16, x // 16 * 16), []).append(
                (gap, r["correlation"], r["peak_ratio"], r["accepted"])
            )
    wanted: dict[Key, tuple[float, float]] = {}
    for cell, seen in at.items():
        wanted["match_refused", *cell] = (mean(not s[3] for s in seen), len(seen))
        kept = [s for s in seen if s[3]]
        for k, name in enumerate(("alignment_residual", "match_correlation", "match_peak_ratio")):
            if kept:
                wanted[name, *cell] = (median(s[k] for s in kept), len(kept))
    got = {k: v for k, v in rows.items() if METRICS[k[0]].layer in {"match", "align"}}
    assert got.keys() == wanted.keys()
    assert {k[1] for k in wanted} == {0, 1, 2}, "section 2 is matched with 4, across the lost one"
    for key, pair in wanted.items():
        assert got[key] == pytest.approx(pair, rel=1e-5), key


def test_cells_of_the_tissue() -> None:
    volume, memory, rows = volumes(), project(), found()
    affinity = [volume[f"segment.affinity_{axis}"].astype(int) for axis in "zyx"]
    by_cell: dict[tuple[str, int, int, int], list[dict[str, Any]]] = {}
    for name in ("segment.supervoxel", "score.contact", "synapses.synapse"):
        for r in memory.tables[name].to_pylist():
            corner = (int(np.floor(r[f"{axis}_vx"] + 0.5)) // n * n for axis, n in zip("zyx", CELL, strict=True))
            by_cell.setdefault((name, *corner), []).append(r)
    wanted: dict[Key, tuple[float, float]] = {}
    for corner in corners(2):
        inside = voxels(corner, 2)
        tissue = [v for v in inside if volume["render.image"][v] and volume["mask.mask"][v] == 0]
        if len(tissue) < 0.05 * len(inside):
            continue
        n, um3 = len(tissue), len(tissue) * UM3
        wanted["affinity_certainty", *corner] = (mean(abs(2 * a[v] / 255 - 1) for v in tissue for a in affinity), n)
        wanted["boundary_fraction", *corner] = (mean(sum(a[v] for a in affinity) / 765 < 0.5 for v in tissue), n)
        body, touch, syn = (
            by_cell.get((t, *corner), []) for t in ("segment.supervoxel", "score.contact", "synapses.synapse")
        )
        wanted["supervoxel_density", *corner] = (len(body) / um3, um3)
        wanted["synapse_density", *corner] = (len(syn) / um3, um3)
        if touch:
            unsure = sum(r["area_nm2"] for r in touch if 0.3 <= r["affinity"] <= 0.7)
            wanted["contact_ambiguous", *corner] = (unsure / sum(r["area_nm2"] for r in touch), len(touch))
        if syn:
            wanted["synapse_confidence", *corner] = (mean(r["confidence"] for r in syn), len(syn))
            wanted["synapse_polarity", *corner] = (mean(r["polarity"] for r in syn), len(syn))
            wanted["cleft_size", *corner] = (mean(r["size_vx"] for r in syn) * 2400, len(syn))
    got = {k: v for k, v in rows.items() if METRICS[k[0]].layer in {"segment", "score", "synapses"}}
    assert got.keys() == wanted.keys()
    assert len(of("synapse_density", got)) < len(corners(2)), "a cell without tissue has no density"
    assert any(v[0] == 0 for v in of("synapse_density", got).values()), "tissue without a synapse has density 0"
    for key, pair in wanted.items():
        assert got[key] == pytest.approx(pair, rel=1e-5), key


@pytest.mark.parametrize("block_vx", [(2, 16, 16), (4, 16, 48), (6, 32, 48)])
def test_blocks_and_their_order_change_nothing(block_vx: tuple[int, int, int]) -> None:
    units = len(plans.grid(Box((0, 0, 0), SHAPE), block_vx))
    assert measured(block_vx, tuple(reversed(range(units)))) == measured()


def test_rows_say_what_and_where() -> None:
    rows = measured()
    assert {r["metric"] for r in rows} == {m for m in METRICS if METRICS[m].layer not in
        {"ingest", "montage", "agglomerate", "graph"}}  # fmt: skip
    assert all((r["layer"], r["measure"]) == (METRICS[r["metric"]].layer, METRICS[r["metric"]].measure) for r in rows)
    assert all(r["weight"] > 0 and np.isfinite(r["value"]) for r in rows)
    last = max((r for r in rows if r["metric"] == "boundary_fraction"), key=lambda r: (r["z0_nm"], r["x0_nm"]))
    assert (last["z0_nm"], last["z1_nm"]) == (120.0, 150.0), "the last cell is clipped to the volume"


def test_a_cell_in_two_blocks_is_refused() -> None:
    params = MeasureVolumeParams(block_vx=(16, 96, 128), cell_vx=(8, 64, 64))
    with pytest.raises(StageError, match="multiple of cell_vx"):
        STAGE.plan(
            Found(NM, {name: Extent(np.zeros(0, np.uint64), np.zeros((0, 6), np.int64)) for name in STAGE.inputs}),
            params,
        )

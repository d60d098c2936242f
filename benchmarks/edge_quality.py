"""Does low quality mean wrong synapses? Phantoms with truth: fit the model of `p_true` and `p_found`, and check it.

    python benchmarks/edge_quality.py PROJECT...

Prints the fitted numbers, a reliability table (by bins of what was predicted), and how often the 95 % interval of
`weighted_connections` holds the true number of synapses. Folds are projects: each is predicted by a fit on the others.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.spatial import cKDTree

from connectome_db import assess
from connectome_db.config import load
from connectome_db.phantom import evaluate
from connectome_db.phantom.frames import Frames, points_to_tissue_nm
from connectome_db.query import quality
from connectome_db.query.database import Database, open_database
from connectome_db.query.quality_model import CENTRE, DEEP
from connectome_db.stages.pipeline import STAGES

F64 = npt.NDArray[np.float64]
_POINTS = "SELECT synapse, confidence, z_nm, y_nm, x_nm FROM points"


@dataclass(frozen=True)
class Case:
    """Found synapses (rows of `synapse_quality`, and whether true and bound right), and true ones (found right)."""

    found: pa.Table
    true: pa.Table


def read_case(root: Path) -> Case:
    project = load(root, STAGES)
    maps = assess.load_frames(project)
    view = assess.load_view(project, maps)
    names = evaluate.objects_to_truth(evaluate.segmentation_scores(view.objects, view.truth).shared)
    truth = assess.covered_truth_synapses(maps, view)
    with open_database(root) as db:
        found = db.rows(
            "SELECT q.*, s.confidence, s.z_vx, s.y_vx, s.x_vx, l.pre, l.post FROM synapse_quality q "
            "JOIN synapse s USING (synapse) JOIN link l USING (synapse) WHERE l.counted ORDER BY synapse"
        )
        points = np.stack([found[c].to_numpy() for c in ("z_vx", "y_vx", "x_vx")], axis=1)
        pairs = zip(found["pre"].to_pylist(), found["post"].to_pylist(), strict=True)
        partners = np.asarray([[names.get(a, 0), names.get(b, 0)] for a, b in pairs], np.uint64).reshape(-1, 2)
        true_nm = np.stack([truth[c].to_numpy() for c in "zyx"], axis=1) * np.asarray(maps.truth.voxel_nm)
        true_partners = np.stack([truth["pre"].to_numpy(), truth["post"].to_numpy()], axis=1).astype(np.uint64)
        where = points_to_tissue_nm(maps, points)
        match = evaluate.synapse_scores(where, partners, true_nm, true_partners, assess.MATCH_NM).match
        right = (partners[match.predicted] == true_partners[match.truth]).all(axis=1)
        places = _aligned_nm(maps, view, truth, db)
        at_truth = db.rows(quality.at_places(_POINTS), beside={"points": places})
    found = _labelled(found, "true", match.predicted, np.ones(len(right), bool))
    found = _labelled(found, "right", match.predicted, right)
    found = found.append_column("pre_true", pa.array(partners[:, 0])).append_column(
        "post_true", pa.array(partners[:, 1])
    )
    at_truth = at_truth.sort_by("synapse")
    at_truth = _labelled(
        _labelled(at_truth, "found", match.truth, np.ones(len(right), bool)), "right", match.truth, right
    )
    at_truth = at_truth.append_column("pre", truth["pre"]).append_column("post", truth["post"])
    return Case(found, at_truth)


def _labelled(rows: pa.Table, name: str, at: npt.NDArray[np.int64], values: npt.NDArray[np.bool_]) -> pa.Table:
    column = np.zeros(rows.num_rows, bool)
    column[at] = values
    return rows.append_column(name, pa.array(column))


def _aligned_nm(maps: Frames, view: assess.View, truth: pa.Table, db: Database) -> pa.Table:
    """Places of true synapses in the aligned volume (within 2 px): the nearest of a grid that is mapped to tissue."""
    z = np.rint(truth["z"].to_numpy()).astype(int)
    tissue = np.stack([truth["y"].to_numpy(), truth["x"].to_numpy()], axis=1)
    at = np.full((len(z), 3), np.nan)
    lo, hi = view.box.lo, view.box.hi
    grid = np.stack(np.meshgrid(np.arange(lo[1], hi[1], 4), np.arange(lo[2], hi[2], 4), indexing="ij"), axis=-1)
    grid = grid.reshape(-1, 2).astype(np.float64)
    for section in range(lo[0], hi[0]):
        rows = np.flatnonzero(z == maps.truth.plane(section))
        if len(rows):
            _, nearest = cKDTree(maps.to_tissue(section, grid)).query(tissue[rows])
            at[rows] = np.column_stack([np.full(len(rows), section), grid[nearest]])
    nm = (at + 0.5) * np.asarray(db.voxel_nm)
    columns = {f"{a}_nm": nm[:, k] for k, a in enumerate("zyx")}
    return pa.table({"synapse": np.arange(len(z), dtype=np.uint64), "confidence": np.zeros(len(z)), **columns})


def limited(rows: pa.Table) -> F64:
    """Deviation of the worst metric, 0 where unknown, between -DEEP and 0."""
    return np.clip(np.nan_to_num(rows["worst_dev"].to_numpy().astype(float), nan=0.0), -DEEP, 0)


def logistic(odds: F64) -> F64:
    return np.asarray(1 / (1 + np.exp(-odds)))


def fit(design: F64, label: npt.NDArray[np.bool_]) -> F64:
    """Coefficients of a logistic regression, by Newton steps."""
    w = np.zeros(design.shape[1])
    for _ in range(25):
        p = logistic(design @ w)
        w += np.linalg.solve((design * (p * (1 - p))[:, None]).T @ design, design.T @ (label - p))
    return w


def design_found(rows: pa.Table) -> F64:
    return np.column_stack([np.ones(rows.num_rows), rows["confidence"].to_numpy() - CENTRE, limited(rows)])


def design_true(rows: pa.Table) -> F64:
    return np.column_stack([np.ones(rows.num_rows), limited(rows)])


def flags_of(rows: pa.Table, name: str) -> npt.NDArray[np.bool_]:
    return np.asarray(rows[name].to_numpy(zero_copy_only=False), bool)


def report(cases: dict[str, Case], group: dict[str, object]) -> None:
    """`group` says which cases share their tissue: they are in one fold."""
    p: dict[str, F64] = {}
    r: dict[str, F64] = {}
    inside, edges, width = 0, 0, 0.0
    for name, case in cases.items():
        others = [c for n, c in cases.items() if group[n] != group[name]]
        w = fit(*_stacked([(design_found(c.found), flags_of(c.found, "right")) for c in others]))
        v = fit(*_stacked([(design_true(c.true), flags_of(c.true, "right")) for c in others]))
        p[name], r[name] = logistic(design_found(case.found) @ w), logistic(design_true(case.true) @ v)
        told = coverage(case, p[name], logistic(design_true(case.found) @ v))
        inside, edges, width = inside + told[0], edges + told[1], width + told[2]
    for what, rows, predicted in (
        ("found synapses that are true with the right partners", {n: c.found for n, c in cases.items()}, p),
        ("true synapses that are found with the right partners", {n: c.true for n, c in cases.items()}, r),
    ):
        values = np.concatenate([predicted[n] for n in rows])
        right = np.concatenate([flags_of(x, "right") for x in rows.values()])
        quality_here = np.concatenate([x["quality"].to_numpy().astype(float) for x in rows.values()])
        print(f"\n{what}: {right.mean():.3f} of {len(right)}; Brier {((values - right) ** 2).mean():.4f} "
              f"(a constant: {right.mean() * (1 - right.mean()):.4f})")  # fmt: skip
        _bins("predicted", values, values, right, np.quantile(values, np.linspace(0, 1, 9)))
        _bins("quality", quality_here, values, right, np.asarray([0, 0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 1]))
    print(
        f"\n95 % intervals that hold the true number: {inside / edges:.3f} of {edges}; mean width {width / edges:.2f}"
    )
    found = fit(*_stacked([(design_found(c.found), flags_of(c.found, "right")) for c in cases.values()]))
    true = fit(*_stacked([(design_true(c.true), flags_of(c.true, "right")) for c in cases.values()]))
    print(f"p_true: {np.round(found, 3)} (intercept, confidence, deviation); p_found: {np.round(true, 3)}")


def _stacked(parts: list[tuple[F64, npt.NDArray[np.bool_]]]) -> tuple[F64, npt.NDArray[np.bool_]]:
    return np.concatenate([a for a, _ in parts]), np.concatenate([b for _, b in parts])


def _bins(name: str, by: F64, predicted: F64, right: npt.NDArray[np.bool_], ends: F64) -> None:
    print(f"{name:>16} {'n':>6} {'predicted':>10} {'observed':>9} {'+-':>6}")
    for low, high in pairwise(ends):
        here = (by >= low) & ((by < high) | (high == ends[-1]))
        if here.any():
            share = right[here].mean()
            error = 1.96 * np.sqrt(share * (1 - share) / here.sum())
            print(f"{low:7.2f} - {high:5.2f}  {here.sum():6d} {predicted[here].mean():10.3f} {share:9.3f} {error:6.3f}")


def coverage(case: Case, p: F64, r: F64) -> tuple[int, int, float]:
    """(edges whose interval holds the true number, edges, sum of widths), over edges between neurons that have a name.

    An edge is between two found neurons; the true number is that of the true neurons they are named by. Neurons that
    share a name are one.
    """
    of: dict[tuple[int, int], list[int]] = {}
    named = zip(case.found["pre_true"].to_pylist(), case.found["post_true"].to_pylist(), strict=True)
    for i, pair in enumerate(named):
        if all(pair) and pair[0] != pair[1]:
            of.setdefault(pair, []).append(i)
    true = Counter(zip(case.true["pre"].to_pylist(), case.true["post"].to_pylist(), strict=True))
    inside, width = 0, 0.0
    for pair, at in of.items():
        mean, sd = (p[at] / r[at]).sum(), np.sqrt((p[at] * (2 - r[at] - p[at]) / r[at] ** 2).sum())
        low, high = max(mean - 1.96 * sd, 0), mean + 1.96 * sd
        inside += low <= true[pair] <= high
        width += high - low
    return inside, len(of), width


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", nargs="+", type=Path)
    projects = {p.name: p for p in parser.parse_args().project}
    told = {
        n: json.loads((p / "case.json").read_text()) if (p / "case.json").is_file() else {} for n, p in projects.items()
    }
    report({n: read_case(p) for n, p in projects.items()}, {n: told[n].get("seed", n) for n in projects})


if __name__ == "__main__":
    main()

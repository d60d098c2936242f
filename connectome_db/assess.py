"""Compare a finished project with the truth beside its tiles, layer by layer. For phantoms and re-acquired volumes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy.spatial import cKDTree

from connectome_db import volumes
from connectome_db.config import Project
from connectome_db.geometry import Box
from connectome_db.phantom import evaluate
from connectome_db.phantom.frames import (
    Frames,
    connected_truth,
    frames,
    points_to_tissue_nm,
    truth_labels_in_pipeline_frame,
)
from connectome_db.phantom.truth import Truth

U64 = npt.NDArray[np.uint64]
DUST_VX = 200
"""True pieces below this many voxels are too small to be asked for."""
MATCH_NM = 250.0
"""A detected synapse this near to a true one is that synapse."""


@dataclass(frozen=True)
class Measure:
    """One number about one layer: what, value, unit, and the target it is held against (None: only told)."""

    layer: str
    what: str
    value: float
    unit: str = ""
    at_most: float | None = None
    at_least: float | None = None

    @property
    def ok(self) -> bool | None:
        """Whether the target is met; None without one."""
        if self.at_most is not None:
            return self.value <= self.at_most
        return None if self.at_least is None else self.value >= self.at_least


@dataclass(frozen=True)
class View:
    """The pipeline's volume and the truth in its frame, for the sections asked for."""

    box: Box
    supervoxels: U64
    objects: U64
    truth: U64
    truth_pieces: U64
    covered: npt.NDArray[np.bool_]


def _table(project: Project, stage: str, table: str) -> pa.Table:
    return pq.read_table(project.data(stage) / f"{table}.parquet")


def _relabel(ids: U64, member: pa.Table) -> U64:
    """Supervoxel ids -> object ids by the member table (sorted by supervoxel)."""
    old, new = member["supervoxel"].to_numpy(), member["object"].to_numpy()
    order = np.argsort(old)
    old, new = old[order], new[order]
    at = np.minimum(np.searchsorted(old, ids), len(old) - 1)
    return np.where(old[at] == ids, new[at], 0).astype(np.uint64)


def load_frames(project: Project) -> Frames:
    """The maps between the pipeline's frames and the truth."""
    truth = Truth.load(project.root)
    return frames(_table(project, "montage", "tile_transform"), _table(project, "align", "section_transform"), truth)


def load_view(project: Project, maps: Frames, sections: tuple[int, int] | None = None) -> View:
    """Read the segmentation, its objects, and the truth at the same voxels; 0 where no tile covers the volume."""
    bounds = volumes.open_info(project.data("segment") / "supervoxels").bounds
    if sections:
        bounds = bounds.clip(Box((sections[0], bounds.lo[1], bounds.lo[2]), (sections[1], bounds.hi[1], bounds.hi[2])))
    supervoxels = volumes.read(project.data("segment") / "supervoxels", bounds)
    covered = volumes.read(project.data("render") / "image", bounds) > 0
    truth = truth_labels_in_pipeline_frame(maps, bounds.lo, bounds.shape)
    truth[~covered] = 0
    objects = _relabel(supervoxels, _table(project, "agglomerate", "member"))
    return View(bounds, supervoxels, objects, truth, connected_truth(truth, DUST_VX), covered)


def _alignment_points(view: View) -> npt.NDArray[np.float64]:
    """Places (y, x) that are covered in every section."""
    everywhere = view.covered.mean(axis=0) > 0.999
    grid = np.stack(np.nonzero(everywhere[::16, ::16]), axis=1) * 16
    return grid.astype(np.float64) + np.asarray(view.box.lo[1:], np.float64)


def covered_truth_synapses(maps: Frames, view: View) -> pa.Table:
    """True synapses whose centroid lies where tiles cover the volume (within 4 px)."""
    synapses = pq.read_table(maps.truth.folder / "synapses.parquet")
    keep = np.zeros(synapses.num_rows, dtype=bool)
    z = np.rint(synapses["z"].to_numpy()).astype(int)
    place = np.stack([synapses["y"].to_numpy(), synapses["x"].to_numpy()], axis=1)
    for section in range(view.box.lo[0], view.box.hi[0]):
        if section not in maps.mesh or section not in maps.offset_px:
            continue
        rows = np.flatnonzero(z == maps.truth.plane(section))
        inside = np.stack(np.nonzero(view.covered[section - view.box.lo[0], ::4, ::4]), axis=1) * 4
        if len(rows) and len(inside):
            tissue = maps.to_tissue(section, inside + np.asarray(view.box.lo[1:], np.float64))
            distance, _ = cKDTree(tissue).query(place[rows])
            keep[rows] = distance <= 4
    return synapses.filter(pa.array(keep))


def _segmentation(view: View) -> Iterator[Measure]:
    fragments = evaluate.segmentation_scores(view.supervoxels, view.truth_pieces)
    yield Measure("segment", "VI merge of supervoxels", fragments.vi_merge, "bit")
    yield Measure("segment", "VI split of supervoxels", fragments.vi_split, "bit")
    objects = evaluate.segmentation_scores(view.objects, view.truth_pieces)
    yield Measure("agglomerate", "adapted Rand error", objects.adapted_rand_error, "", at_most=0.10)
    yield Measure("agglomerate", "VI split", objects.vi_split, "bit")
    yield Measure("agglomerate", "VI merge", objects.vi_merge, "bit")


def _wiring(project: Project, maps: Frames, view: View, exhaustive: bool) -> Iterator[Measure]:
    names = evaluate.objects_to_truth(evaluate.segmentation_scores(view.objects, view.truth).shared)
    synapse, link = _table(project, "synapses", "synapse"), _table(project, "graph", "link")
    both = synapse.join(link.drop_columns(["unit"]), "synapse").filter(pc.field("counted"))
    both = both.sort_by("synapse")
    z = both["z_vx"].to_numpy()
    both = both.filter(pa.array((z >= view.box.lo[0]) & (z < view.box.hi[0])))
    points = np.stack([both[c].to_numpy() for c in ("z_vx", "y_vx", "x_vx")], axis=1)
    partners = np.asarray(
        [
            [names.get(a, 0), names.get(b, 0)]
            for a, b in zip(both["pre"].to_pylist(), both["post"].to_pylist(), strict=True)
        ],
        dtype=np.uint64,
    ).reshape(-1, 2)
    truth = covered_truth_synapses(maps, view)
    true_nm = np.stack([truth[c].to_numpy() for c in "zyx"], axis=1) * np.asarray(maps.truth.voxel_nm)
    true_partners = np.stack([truth["pre"].to_numpy(), truth["post"].to_numpy()], axis=1).astype(np.uint64)
    found_nm = points_to_tissue_nm(maps, points) if len(points) else np.zeros((0, 3))
    s = evaluate.synapse_scores(found_nm, partners, true_nm, true_partners, MATCH_NM)
    yield Measure("synapses", "recall", s.recall)
    if exhaustive:  # a list that is not exhaustive says nothing about precision
        yield Measure("synapses", "precision", s.precision)
        yield Measure("synapses", "F1", s.f1, "", at_least=0.85)
    yield Measure("synapses", "partners right", s.partners_right)
    if exhaustive:
        e = evaluate.edge_scores(evaluate.edges_of(partners), evaluate.edges_of(true_partners), 2)
        yield Measure("graph", "true edges with ≥ 2 synapses", float(e.true_edges))
        yield Measure("graph", "recall of those", e.recall, "", at_least=0.80)
        yield Measure("graph", "precision of found ones", e.precision, "", at_least=0.80)


def assess(
    project: Project, sections: tuple[int, int] | None = None, *, exhaustive: bool = True
) -> tuple[list[Measure], View]:
    """All measures of a finished project that has truth, over `sections` (first, last + 1) or all.

    `exhaustive`: the truth lists every synapse. Raises SourceError when there is no truth beside the tiles.
    """
    maps = load_frames(project)
    montage = evaluate.montage_error_px(_table(project, "montage", "tile_transform"), maps.truth)
    view = load_view(project, maps, sections)
    alignment = evaluate.alignment_error_px(maps, _alignment_points(view))
    measures = [
        Measure("montage", "tile offset error, median", montage.median_px, "px", at_most=0.3),
        Measure("montage", "tile offset error, p95", montage.p95_px, "px"),
        Measure("align", "residual between sections, median", alignment.median_px, "px", at_most=1.0),
        Measure("align", "residual between sections, p95", alignment.p95_px, "px"),
        # No target: neurites that run obliquely look like drift, and no image can tell the two apart.
        Measure("align", "drift over the stack", alignment.drift_px, "px"),
        *_segmentation(view),
        *_wiring(project, maps, view, exhaustive),
    ]
    return [m for m in measures if not math.isnan(m.value)], view

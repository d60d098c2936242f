"""The synapses of a phantom against the truth, inside a box and outside it. Real data has no truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy.spatial import cKDTree

from connectome_db.assess import MATCH_NM, View, covered_truth_synapses, load_frames, load_view
from connectome_db.config import Project
from connectome_db.phantom import evaluate
from connectome_db.phantom.frames import Frames, points_to_tissue_nm
from connectome_db.regional.neuroglancer import SixNm
from connectome_db.tables import read_units

Mask = npt.NDArray[np.bool_]
F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Against:
    """Counted synapses of one part of the volume against the truth there.

    `partners_right` is the share of the matched ones whose pre and post are the true ones; `wired` the number that are.
    """

    true: int
    found: int
    matched: int
    recall: float
    precision: float
    partners_right: float
    wired: int

    @property
    def deficit(self) -> float:
        """Found over true, minus 1: what a count of connections is off by here."""
        return self.found / self.true - 1 if self.true else float("nan")

    @property
    def wired_recall(self) -> float:
        """Share of the true synapses that were found with both partners right."""
        return self.wired / self.true if self.true else float("nan")


def in_and_out(project: Project, box_nm: SixNm) -> dict[str, Against]:
    """`region` and `outside` of a finished phantom project, for a box (z, y, x) in nm of the aligned volume.

    Raises SourceError when there is no truth beside the tiles.
    """
    maps = load_frames(project)
    view = load_view(project, maps)
    points, partners = _found(project, view)
    truth = covered_truth_synapses(maps, view)
    true_nm = np.stack([truth[c].to_numpy() for c in "zyx"], axis=1) * np.asarray(maps.truth.voxel_nm, np.float64)
    true_partners = np.stack([truth["pre"].to_numpy(), truth["post"].to_numpy()], axis=1).astype(np.uint64)
    found_nm = points_to_tissue_nm(maps, points) if len(points) else np.zeros((0, 3))
    match = evaluate.synapse_scores(found_nm, partners, true_nm, true_partners, MATCH_NM).match
    right = (partners[match.predicted] == true_partners[match.truth]).all(axis=1)
    voxel_nm = np.asarray(project.voxel_nm)
    found_in = _in_box(points * voxel_nm, box_nm)
    true_in = _in_box(_aligned(maps, view, truth) * voxel_nm, box_nm)
    out = {}
    for name, (here, there) in {"region": (found_in, true_in), "outside": (~found_in, ~true_in)}.items():
        recalled, confirmed = there[match.truth], here[match.predicted]
        out[name] = Against(
            true=int(there.sum()),
            found=int(here.sum()),
            matched=int(recalled.sum()),
            recall=_share(int(recalled.sum()), int(there.sum())),
            precision=_share(int(confirmed.sum()), int(here.sum())),
            partners_right=_share(int((recalled & right).sum()), int(recalled.sum())),
            wired=int((recalled & right).sum()),
        )
    return out


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def _found(project: Project, view: View) -> tuple[F64, npt.NDArray[np.uint64]]:
    """Counted synapses: places float64[N, 3] (z, y, x) in voxels, and the true names uint64[N, 2] of their partners."""
    names = evaluate.objects_to_truth(evaluate.segmentation_scores(view.objects, view.truth).shared)
    synapse = read_units(project.data("synapses") / "synapse.parquet", None)
    link = read_units(project.data("graph") / "link.parquet", None).drop_columns(["unit"])
    counted = synapse.join(link, "synapse").filter(pc.field("counted")).sort_by("synapse")
    points = np.stack([counted[c].to_numpy() for c in ("z_vx", "y_vx", "x_vx")], axis=1)
    pairs = zip(counted["pre"].to_pylist(), counted["post"].to_pylist(), strict=True)
    partners = [[names.get(a, 0), names.get(b, 0)] for a, b in pairs]
    return points, np.asarray(partners, np.uint64).reshape(-1, 2)


def _in_box(points_nm: F64, box_nm: SixNm) -> Mask:
    low, high = np.asarray(box_nm[:3]), np.asarray(box_nm[3:])
    return np.asarray(np.all((points_nm >= low) & (points_nm < high), axis=1), np.bool_)


def _aligned(maps: Frames, view: View, truth: pa.Table) -> F64:
    """True synapses in the aligned volume, float64[N, 3] (z, y, x) in voxels: the nearest of a grid of 4 px.

    The maps lead from the aligned volume to the tissue; looked up on a grid, they need not be inverted.
    """
    z = np.rint(truth["z"].to_numpy()).astype(int)
    place = np.stack([truth["y"].to_numpy(), truth["x"].to_numpy()], axis=1)
    out = np.full((truth.num_rows, 3), -1.0)
    for section in range(view.box.lo[0], view.box.hi[0]):
        if section not in maps.mesh or section not in maps.offset_px:
            continue
        rows = np.flatnonzero(z == maps.truth.plane(section))
        grid = np.stack(np.nonzero(view.covered[section - view.box.lo[0], ::4, ::4]), axis=1) * 4.0
        if len(rows) and len(grid):
            grid += np.asarray(view.box.lo[1:], np.float64)
            _, at = cKDTree(maps.to_tissue(section, grid)).query(place[rows])
            out[rows, 0], out[rows, 1:] = section, grid[at]
    return out

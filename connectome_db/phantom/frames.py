"""From the pipeline's aligned volume to the true tissue: its own tables, composed with the truth's exact maps.

Tile pixels -> section plane (`tile_transform`) <- aligned volume (`section_transform`, a mesh). The pipeline's section
plane and the truth's differ by a translation per section, which no tile can tell: `plane_offsets` finds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cc3d
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from connectome_db.errors import QueryError
from connectome_db.phantom.truth import Truth

F64 = npt.NDArray[np.float64]


def tile_errors(tile_transform: pa.Table, truth: Truth) -> tuple[list[str], npt.NDArray[np.int64], F64]:
    """Per row of `tile_transform`: tile, section, and (n, 2) true minus found place of its centre, in px."""
    names = [str(name) for name in tile_transform["tile"].to_pylist()]
    section = tile_transform["section"].to_numpy().astype(np.int64)
    column = {n: tile_transform[n].to_numpy().astype(np.float64) for n in ("yy", "yx", "xy", "xx", "ty", "tx")}
    unknown = [name for name in names if name not in truth.tiles]
    if unknown:
        raise QueryError(f"tiles not in the truth: {', '.join(unknown[:5])}; evaluate against the truth made with them")
    tiles = [truth.tiles[name] for name in names]
    centre = (np.array([tile.shape_px for tile in tiles], np.float64).reshape(-1, 2) - 1) / 2
    true = centre + np.array([tile.true_px for tile in tiles], np.float64).reshape(-1, 2)
    y, x = centre[:, 0], centre[:, 1]
    found_y = column["yy"] * y + column["yx"] * x + column["ty"]
    found_x = column["xy"] * y + column["xx"] * x + column["tx"]
    return names, section, true - np.stack([found_y, found_x], axis=1)


def plane_offsets(tile_transform: pa.Table, truth: Truth) -> dict[int, tuple[float, float]]:
    """Per section (y, x): truth's plane minus the pipeline's plane, the median over the section's tiles."""
    _, section, miss = tile_errors(tile_transform, truth)
    out = {}
    for number in np.unique(section):
        y, x = np.median(miss[section == number], axis=0)
        out[int(number)] = (float(y), float(x))
    return out


@dataclass(frozen=True)
class Mesh:
    """A section's map from the aligned volume to its plane: nodes on a regular grid, bilinear in between."""

    node_y_px: F64
    """(rows,) ascending."""
    node_x_px: F64
    """(columns,) ascending."""
    source_px: F64
    """(rows, columns, 2) y, x in the section's plane."""

    def __call__(self, yx: npt.ArrayLike) -> F64:
        """(..., 2) aligned points -> section plane; beyond the outer nodes the outer cells continue."""
        points = np.asarray(yx, np.float64)
        i, fy = _cell(self.node_y_px, points[..., 0])
        j, fx = _cell(self.node_x_px, points[..., 1])
        s, fy, fx = self.source_px, fy[..., None], fx[..., None]
        top = s[i, j] * (1 - fx) + s[i, j + 1] * fx
        bottom = s[i + 1, j] * (1 - fx) + s[i + 1, j + 1] * fx
        out: F64 = top * (1 - fy) + bottom * fy
        return out


def _cell(nodes: F64, at: F64) -> tuple[npt.NDArray[np.int64], F64]:
    i = np.clip(np.searchsorted(nodes, at, side="right") - 1, 0, len(nodes) - 2)
    return i, (at - nodes[i]) / (nodes[i + 1] - nodes[i])


def meshes(section_transform: pa.Table) -> dict[int, Mesh]:
    """Per section its mesh, from rows section, node_y_px, node_x_px, source_y_px, source_x_px.

    Raises:
        QueryError: a section's nodes are not a full grid of at least 2 x 2.
    """
    names = ("section", "node_y_px", "node_x_px", "source_y_px", "source_x_px")
    section, y, x, to_y, to_x = (section_transform[name].to_numpy().astype(np.float64) for name in names)
    out = {}
    for number in np.unique(section):
        rows = np.flatnonzero(section == number)
        rows = rows[np.lexsort((x[rows], y[rows]))]
        node_y, node_x = np.unique(y[rows]), np.unique(x[rows])
        if len(rows) != len(node_y) * len(node_x) or min(len(node_y), len(node_x)) < 2:
            raise QueryError(
                f"section {int(number)}: {len(rows)} mesh nodes are no full grid of {len(node_y)} x {len(node_x)}; "
                "was section_transform filtered?"
            )
        source = np.stack([to_y[rows], to_x[rows]], axis=1).reshape(len(node_y), len(node_x), 2)
        out[int(number)] = Mesh(node_y, node_x, source)
    return out


@dataclass(frozen=True)
class Frames:
    """From the pipeline's aligned volume to the true tissue, per section."""

    truth: Truth
    mesh: Mapping[int, Mesh]
    offset_px: Mapping[int, tuple[float, float]]

    def to_tissue(self, section: int, yx: npt.ArrayLike) -> F64:
        """(..., 2) aligned points of one section -> tissue (y, x).

        Raises:
            QueryError: the pipeline has no mesh or no tiles for the section.
        """
        if section not in self.mesh or section not in self.offset_px:
            raise QueryError(f"section {section} has no mesh or no placed tile in the pipeline's tables")
        return self.truth.section_to_tissue(section, self.mesh[section](yx) + self.offset_px[section])


def frames(tile_transform: pa.Table, section_transform: pa.Table, truth: Truth) -> Frames:
    """The maps of a finished pipeline, from its two tables."""
    return Frames(truth, meshes(section_transform), plane_offsets(tile_transform, truth))


def truth_labels_in_pipeline_frame(
    maps: Frames, lo_vx: tuple[int, int, int], shape_vx: tuple[int, int, int], volume: str = "labels"
) -> npt.NDArray[np.uint64]:
    """Truth's `volume` at the voxels (z, y, x) of a box of the aligned volume: nearest neighbour, 0 outside the tissue.

    z of the aligned volume is the section number. Sections without a map in the pipeline are 0.
    """
    labels = maps.truth.volume(volume)
    out = np.zeros(shape_vx, np.uint64)
    axes = [lo + np.arange(n) for lo, n in zip(lo_vx[1:], shape_vx[1:], strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    for k in range(shape_vx[0]):
        section = lo_vx[0] + k
        if section not in maps.mesh or section not in maps.offset_px:
            continue
        plane = labels[maps.truth.plane(section)]
        index = np.rint(maps.to_tissue(section, grid)).astype(np.int64)
        inside = np.all((index >= 0) & (index < plane.shape), axis=-1)
        y, x = index[inside].T
        out[k][inside] = plane[y, x]
    return out


def points_to_tissue_nm(maps: Frames, points_vx: npt.ArrayLike) -> F64:
    """(n, 3) points of the aligned volume (z, y, x in voxels; z may lie between sections) -> tissue in nm (z, y, x)."""
    points = np.asarray(points_vx, np.float64).reshape(-1, 3)
    voxel = maps.truth.voxel_nm
    known = np.array(sorted(set(maps.mesh) & set(maps.offset_px)))
    section = known[np.abs(points[:, :1] - known).argmin(axis=1)]
    out = np.empty_like(points)
    for number in np.unique(section):
        rows = section == number
        out[rows, 1:] = maps.to_tissue(int(number), points[rows, 1:]) * voxel[1:]
        out[rows, 0] = (points[rows, 0] - number + maps.truth.plane(int(number))) * voxel[0]
    return out


def connected_truth(labels: npt.NDArray[np.uint64], dust_vx: int = 0) -> npt.NDArray[np.uint64]:
    """Give each 6-connected piece of each label (z, y, x) its own label; pieces below `dust_vx` become 0.

    What the imaged window cuts in two cannot be joined by anyone, so a segmentation is scored against the pieces.
    """
    # Dense 32-bit numbers: cc3d takes no more than it must.
    _, number = np.unique(labels, return_inverse=True)
    dense = number.reshape(labels.shape).astype(np.uint32) + 1
    dense[labels == 0] = 0
    found = cc3d.connected_components(dense, connectivity=6)
    size = np.bincount(found.ravel())
    kept = size >= max(1, dust_vx)
    kept[0] = False
    out: npt.NDArray[np.uint64] = np.where(kept, np.cumsum(kept), 0).astype(np.uint64)[found]
    return out

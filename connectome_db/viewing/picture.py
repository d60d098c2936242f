"""One picture of a project as of any revision: image, objects and synapses in the plane and along the stack."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib.axes import Axes

from connectome_db.geometry import Box
from connectome_db.revisions import Revision
from connectome_db.viewing.place import bounds_of, read_box

U64 = npt.NDArray[np.uint64]


def colours(ids: U64) -> npt.NDArray[np.float64]:
    """(…,) ids -> (…, 3) RGB in [0, 1]: a colour that depends on the id alone; background is black."""
    h = (ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)
    hue = (h & np.uint64(0xFFF)).astype(np.float64) / 4096
    value = 0.55 + 0.45 * ((h >> np.uint64(12)) & np.uint64(0xFF)).astype(np.float64) / 255
    # a cosine palette: smooth hues without a colour-space library
    rgb = 0.5 + 0.5 * np.cos(2 * np.pi * (hue[..., None] + np.array([0.0, 1 / 3, 2 / 3])))
    out: npt.NDArray[np.float64] = rgb * value[..., None]
    out[ids == 0] = 0
    return out


def _overlay(grey: npt.NDArray[np.uint8], objects: U64, alpha: float) -> npt.NDArray[np.float64]:
    base = np.repeat(grey[..., None] / 255.0, 3, axis=-1)
    mixed = base * (1 - alpha) + colours(objects) * alpha
    out: npt.NDArray[np.float64] = np.where(objects[..., None] > 0, mixed, base)
    return out


def _table(revision: Revision, stage: str, table: str) -> pa.Table:
    revision.record(stage)  # its error says which stage is not there
    return pq.read_table(revision.root / "data" / stage / f"{table}.parquet")


def _objects(revision: Revision, supervoxels: U64) -> U64:
    member = _table(revision, "agglomerate", "member")
    old, new = member["supervoxel"].to_numpy(), member["object"].to_numpy()
    order = np.argsort(old)
    at = np.minimum(np.searchsorted(old[order], supervoxels), len(old) - 1)
    return np.where(old[order][at] == supervoxels, new[order][at], 0).astype(np.uint64)


def _marks(ax: Axes, revision: Revision, z: int, low: tuple[int, int]) -> None:
    """Arrows from pre to post for synapses near the section."""
    synapse = _table(revision, "synapses", "synapse")
    near = np.abs(synapse["z_vx"].to_numpy() - z) <= 1.5
    for row in synapse.filter(near).to_pylist():
        start = (row["pre_x_vx"] - low[1], row["pre_y_vx"] - low[0])
        end = (row["post_x_vx"] - low[1], row["post_y_vx"] - low[0])
        ax.annotate("", xy=end, xytext=start, arrowprops={"arrowstyle": "-|>", "color": "#ff2a2a", "lw": 1.6})
        ax.plot(row["x_vx"] - low[1], row["y_vx"] - low[0], "o", ms=5, mfc="none", mec="#ffe600", mew=1.2)


def draw(revision: Revision, path: Path, title: str) -> Path:
    """Write a PNG: section, section with objects and synapses, and two cuts along z. Returns `path`.

    Raises RevisionError when a stage has no data at the revision.
    """
    bounds = bounds_of(revision, "render")
    z = (bounds.lo[0] + bounds.hi[0]) // 2
    plane = Box((z, *bounds.lo[1:]), (z + 1, *bounds.hi[1:]))
    y = (bounds.lo[1] + bounds.hi[1]) // 2
    cut = Box((bounds.lo[0], y, bounds.lo[2]), (bounds.hi[0], y + 1, bounds.hi[2]))
    image = read_box(revision, "render", "image", plane)[0]
    labels = _objects(revision, read_box(revision, "segment", "supervoxels", plane)[0])
    image_cut = read_box(revision, "render", "image", cut)[:, 0]
    labels_cut = _objects(revision, read_box(revision, "segment", "supervoxels", cut)[:, 0])
    voxel_nm = revision.record("render")["voxel_nm"]
    anisotropy = voxel_nm[0] / voxel_nm[2]
    rows = [bounds.shape[1], bounds.shape[0] * anisotropy]
    fig, axes = plt.subplots(
        2, 2, figsize=(13, 13 * sum(rows) / (2 * bounds.shape[2]) + 0.9), height_ratios=rows, constrained_layout=True
    )
    fig.suptitle(title, fontsize=12, x=0.01, ha="left")
    axes[0, 0].imshow(image, cmap="gray", vmin=0, vmax=255)
    axes[0, 0].set_title(f"aligned image, section {z}", fontsize=10, loc="left")
    axes[0, 1].imshow(_overlay(image, labels, 0.5))
    _marks(axes[0, 1], revision, z, (bounds.lo[1], bounds.lo[2]))
    axes[0, 1].set_title("objects and synapses (arrow: pre → post)", fontsize=10, loc="left")
    axes[1, 0].imshow(image_cut, cmap="gray", vmin=0, vmax=255, aspect=anisotropy)
    axes[1, 0].set_title(f"along the stack, y = {y}", fontsize=10, loc="left")
    axes[1, 1].imshow(_overlay(image_cut, labels_cut, 0.5), aspect=anisotropy)
    for ax in axes.flat:
        ax.set_xticks([])
        ax.set_yticks([])
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".new-{path.name}")
    fig.savefig(new, dpi=80, format="png")
    plt.close(fig)
    new.replace(path)
    return path

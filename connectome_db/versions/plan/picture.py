"""Where in the volume a run would compute: every block stage seen along z and along y."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle

from connectome_db.config import Project
from connectome_db.errors import RunError
from connectome_db.geometry import Box
from connectome_db.versions.plan.foresee import PERHAPS, REUSED, STORED, SURE, Foresight, StageAhead
from connectome_db.versions.plan.present import I64

F64 = npt.NDArray[np.float64]

COLOURS = {REUSED: "#dfe4ea", STORED: "#7fb8a4", PERHAPS: "#f2b134", SURE: "#c8322b"}
LABELS = {REUSED: "reused", STORED: "from the store", PERHAPS: "perhaps", SURE: "sure"}
VIEWS = (("along z", 1, 2), ("along y", 0, 2))
"""Title, and the axes (0 z, 1 y, 2 x) that go down and right."""
ZOOM = 0.5
"""The picture zooms in when what it then shows is less than this share of the volume in y and in x."""
FLATTEST = 0.25
"""A view lower than this share of its width is stretched, and says so."""


def draw(seen: Foresight, path: Path) -> Path:
    """Write a PNG; returns `path`. Raises RunError when no stage that was asked about works in blocks."""
    stages = [s for s in seen.stages if s.plan.kind == "blocks" and len(s.plan)]
    if not stages:
        raise RunError("--picture: none of these stages works in blocks (render, mask, segment, score, synapses do)")
    um = np.asarray(seen.project.voxel_nm) / 1000
    whole = _hull([s.plan.cores for s in stages]) * np.tile(um, 2)
    shown = _window([s.plan.cores[s.stale] for s in stages], whole, um)
    lo, hi = shown[:3], shown[3:]
    size = hi - lo
    shape = [max(size[v] / size[h], FLATTEST) for _, v, h in VIEWS]
    wide = 2.6
    fig, axes = plt.subplots(
        2, len(stages), squeeze=False, height_ratios=shape, layout="constrained",
        figsize=(max(wide * len(stages) + 0.9, 7.0), wide * sum(shape) + 1.9),
    )  # fmt: skip
    fig.suptitle(_title(seen, shown, whole), x=0.01, ha="left", fontsize=11)
    for k, stage in enumerate(stages):
        for row, (title, v, h) in enumerate(VIEWS):
            ax = axes[row, k]
            _panel(ax, stage, (v, h), um, zoomed=bool((shown != whole).any()))
            _regions(ax, seen.project, stage.stage, (v, h), um)
            ax.set_xlim(lo[h], hi[h])
            ax.set_ylim(hi[v], lo[v])
            stretch = shape[row] / (size[v] / size[h])
            ax.set_aspect(stretch)
            if row == 0:
                ax.set_title(f"{stage.stage}{' ≈' if stage.guessed else ''}\n{_told(stage)}", fontsize=9, loc="left")
            if k == 0:
                stretched = f", {'zyx'[v]} × {stretch:.2g}" if stretch > 1.01 else ""
                ax.set_ylabel(f"{title}{stretched}\n{'zyx'[v]} (µm)", fontsize=8)
            else:
                ax.tick_params(labelleft=False)
            ax.set_xlabel(f"{'zyx'[h]} (µm)", fontsize=8)
            ax.tick_params(labelsize=7)
    used = [k for k in COLOURS if any(s.count(k) for s in stages)]
    handles = [Patch(facecolor=COLOURS[k], label=LABELS[k]) for k in used]
    handles.append(Patch(visible=False, label="(paler: only some of the blocks behind)"))
    if any(seen.project.overrides.values()):
        handles.append(Patch(fill=False, edgecolor="black", label="region that overrides this stage"))
        handles.append(Patch(fill=False, edgecolor="black", linestyle=":", label="that overrides another"))
    fig.legend(handles=handles, loc="outside lower left", ncols=len(handles), fontsize=8, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=110)
    plt.close(fig)
    return path


def _hull(boxes: Sequence[I64]) -> F64:
    """The box float64[6] around some boxes int64[N, 6]."""
    every = np.concatenate(boxes)
    return np.concatenate([every[:, :3].min(axis=0), every[:, 3:].max(axis=0)]).astype(np.float64)


def _window(stale: Sequence[I64], whole: F64, um: F64) -> F64:
    """What is shown, in micrometres: all, or what is to be computed and its surroundings where that is far smaller."""
    if not sum(len(s) for s in stale):
        return whole
    box = _hull(stale) * np.tile(um, 2)
    half = (box[3:] - box[:3]).max()
    centre = (box[:3] + box[3:]) / 2
    near = np.concatenate([np.maximum(centre - half, whole[:3]), np.minimum(centre + half, whole[3:])])
    part = (near[3:] - near[:3]) / (whole[3:] - whole[:3])
    return near if part[1:].max() < ZOOM else whole


def _title(seen: Foresight, shown: F64, whole: F64) -> str:
    sure, perhaps = (sum(s.count(k) for s in seen.stages) for k in (SURE, PERHAPS))
    units = f"{sure:,} unit{'' if sure == 1 else 's'} to compute for sure, {sure + perhaps:,} at most"
    zoomed = ""
    if (shown != whole).any():
        spans = ", ".join(f"{a} {shown[k]:.3g}–{shown[k + 3]:.3g}" for k, a in enumerate("zyx"))
        zoomed = f"\nonly {spans} µm of {' × '.join(f'{v:.3g}' for v in whole[3:] - whole[:3])} µm; the rest is reused"
    return f"{seen.project.dataset.name}: {units}{zoomed}"


def _told(stage: StageAhead) -> str:
    texts = [f"{n:,} {word}" for state, word in ((SURE, "sure"), (PERHAPS, "perhaps"), (STORED, "from store"))
             if (n := stage.count(state))]  # fmt: skip
    return ", ".join(texts) or "all reused"


def _panel(ax: Axes, stage: StageAhead, view: tuple[int, int], um: F64, *, zoomed: bool) -> None:
    """Columns of blocks in the colour of their worst block; paler, the fewer of their blocks are like it."""
    v, h = view
    cores, state = stage.plan.cores, stage.state
    rows, cols = (np.unique(cores[:, [a, a + 3]], axis=0) for a in view)
    at = [_index(edges, cores[:, [a, a + 3]]) for edges, a in ((rows, v), (cols, h))]
    cell = at[0] * len(cols) + at[1]
    n = len(rows) * len(cols)
    worst = np.full(n, -1)
    np.maximum.at(worst, cell, state)
    depth, like = np.bincount(cell, minlength=n), np.bincount(cell, state == worst[cell], minlength=n)
    share = like / np.maximum(depth, 1)
    palette = np.asarray([mpl.colors.to_rgb(COLOURS[k]) for k in range(4)])
    base = palette[REUSED]
    strength = np.where(worst == REUSED, 1.0, 0.6 + 0.4 * share)[:, None]
    colour = base * (1 - strength) + palette[np.maximum(worst, 0)] * strength
    image = np.where((worst >= 0)[:, None], colour, 1.0).reshape(len(rows), len(cols), 3)
    y, x = (np.append(edges[:, 0], edges[-1, 1]) * um[a] for edges, a in ((rows, v), (cols, h)))
    few = max(image.shape[:2]) <= 40 or zoomed
    ax.pcolormesh(x, y, image, edgecolors="white" if few else "none", linewidth=0.6 if few else 0)


def _index(edges: I64, values: I64) -> I64:
    """Row of `edges` (sorted, distinct pairs) that equals each pair of `values`."""
    return np.searchsorted(edges[:, 0], values[:, 0])


def _regions(ax: Axes, project: Project, stage: str, view: tuple[int, int], um: F64) -> None:
    v, h = view
    drawn: dict[tuple[Box, bool], str] = {}
    for name, overrides in project.overrides.items():
        for o in overrides:
            drawn[o.box, name == stage] = o.region
    for (box, own), region in sorted(drawn.items(), key=lambda d: d[0][1]):
        if not own and (box, True) in drawn:
            continue
        low, high = np.asarray(box.lo) * um, np.asarray(box.hi) * um
        frame = Rectangle((low[h], low[v]), high[h] - low[h], high[v] - low[v], fill=False, ec="black", zorder=3,
                          lw=1.3 if own else 0.8, ls="-" if own else ":")  # fmt: skip
        ax.add_patch(frame)
        if own and view == VIEWS[0][1:]:
            ax.annotate(region, (high[h], low[v]), xytext=(2, -2), textcoords="offset points", fontsize=7, va="top",
                        annotation_clip=True)  # fmt: skip

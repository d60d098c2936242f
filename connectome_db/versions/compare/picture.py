"""Where two revisions differ, and why, in one picture."""

from __future__ import annotations

import textwrap
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator, ScalarFormatter

from connectome_db import ids
from connectome_db.errors import QueryError
from connectome_db.geometry import Box, box_of
from connectome_db.query.compare.changes import CHANGED, boxes_of
from connectome_db.revisions import Revision
from connectome_db.versions.compare.diff import Bodies, Diff
from connectome_db.versions.compare.evidence import read

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

COLOURS = ("#4477aa", "#ee6677", "#ccbb44", "#66ccee", "#aa3377", "#228833", "#ee8866")
"""Of the first causes (Tol's bright scheme, which colour-blind readers can tell apart); later ones are grey."""
OTHER = "#999999"
MOST_VOXELS = 1 << 30
"""Blocks are read up to this many voxels; the rest is drawn as whole blocks."""
MARKS = {
    "gained": ("^", "#118833", "gained"),
    "lost": ("v", "#cc2222", "lost"),
    "repartnered": ("D", "#7733bb", "other partner"),
    "moved": ("o", "#555555", "moved or altered"),
    "altered": ("o", "#555555", "moved or altered"),
}
COUNTS = (("units_changed", "units"), ("objects", "objects"), ("synapses", "synapses"), ("edges", "connections"))


def draw(diff: Diff, path: Path) -> Path:
    """Write a PNG: voxels that changed hands, synapses and regions seen along z and along y, and counts per cause.

    Without a segmentation only the connections are drawn. Returns `path`.
    """
    placed = diff.bodies is not None or "edge_change" not in diff.tables
    fig = plt.figure(figsize=(13.5, _height_in(diff) if placed else 7.5), constrained_layout=True)
    left, right = np.asarray(fig.subfigures(1, 2, width_ratios=[1.5, 1])).tolist()
    if placed:
        _places(left, diff)
    else:
        _weights(left, diff.tables["edge_change"])
    _bars(right, diff)
    names = [r.name if r.commit is None else f"{r.name} ({r.commit[:8]})" for r in (diff.a, diff.b)]
    fig.suptitle(f"{diff.a.project.name}: {names[0]} → {names[1]}", x=0.01, ha="left", fontsize=13)
    tmp = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fig.savefig(tmp, dpi=110, format="png")
        tmp.replace(path)
    except OSError as e:
        raise QueryError(f"{path}: cannot be written ({e.strerror}); choose another place") from None
    finally:
        plt.close(fig)
    return path


def _colour(cause: int) -> str:
    return COLOURS[cause] if cause < len(COLOURS) else OTHER


@dataclass(frozen=True)
class _View:
    """A projection: the axes of the volume that run down and to the right, and the one looked along."""

    title: str
    down: int
    right: int
    along: int


VIEWS = (_View("seen along z", 1, 2, 0), _View("seen along y", 0, 2, 1))


def _height_in(diff: Diff) -> float:
    """Inches that the two views need when each is as wide as the left side."""
    bounds, voxel_nm = _extent(diff)
    tall = sum(bounds.shape[v.down] * voxel_nm[v.down] for v in VIEWS)
    return float(np.clip(7.4 * tall / (bounds.shape[2] * voxel_nm[2]) + 2.2, 7.0, 14.0))


def _places(fig: SubFigure, diff: Diff) -> None:
    bounds, voxel_nm = _extent(diff)
    tall = [bounds.shape[v.down] * voxel_nm[v.down] for v in VIEWS]
    axes = fig.subplots(2, 1, height_ratios=[tall[0], max(tall[1], 0.1 * tall[0])])
    flat = [np.ones((bounds.shape[v.down], bounds.shape[v.right], 3)) for v in VIEWS]
    _shade_units(diff, bounds, flat)
    if diff.bodies is not None:
        _paint(diff, diff.bodies, bounds, flat)
    for ax, view, image in zip(axes, VIEWS, flat, strict=True):
        edges = (bounds.lo[view.right], bounds.hi[view.right], bounds.hi[view.down], bounds.lo[view.down])
        ax.imshow(image, extent=edges, aspect=voxel_nm[view.down] / voxel_nm[view.right], interpolation="nearest")
        ax.set_title(view.title, fontsize=10, loc="left")
        ax.set_xlabel("x (voxels)", fontsize=8)
        ax.set_ylabel(f"{'zyx'[view.down]} (voxels)", fontsize=8)
        ax.tick_params(labelsize=8)
        ax.yaxis.set_major_locator(MaxNLocator("auto", integer=True))
        _regions(ax, diff, view, bounds)
        if "synapse_change" in diff.tables:
            _synapses(ax, diff.tables["synapse_change"], view)
    _legend(axes[0], diff)


def _extent(diff: Diff) -> tuple[Box, tuple[float, float, float]]:
    """The hull of the segmentation (or whatever there is) in both revisions, and the voxel size."""
    for stage in ("segment", "render", *diff.why.stages):
        found = [r.record(stage) for r in (diff.a, diff.b) if stage in r.stages]
        if found:
            boxes = np.asarray([r["bounds"] for r in found])
            z, y, x = found[-1]["voxel_nm"]
            return box_of([*boxes[:, :3].min(axis=0), *boxes[:, 3:].max(axis=0)]), (z, y, x)
    raise QueryError("no stage has data in either version: there is nothing to draw")


def _shade_units(diff: Diff, bounds: Box, flat: list[npt.NDArray[np.float64]]) -> None:
    """Blocks whose content differs, in a light grey."""
    for stage in ("render", "segment", "score", "synapses"):
        if stage in diff.why.stages:
            change = diff.why.stages[stage].change
            for six in change.cores[change.what == CHANGED]:
                box = box_of(six).clip(bounds)
                for view, image in zip(VIEWS, flat, strict=True):
                    image[_flat(box, bounds, view)] = 0.93


def _flat(box: Box, bounds: Box, view: _View) -> tuple[slice, slice]:
    cut = box.slices(bounds.lo)
    return cut[view.down], cut[view.right]


def _paint(diff: Diff, bodies: Bodies, bounds: Box, flat: list[npt.NDArray[np.float64]]) -> None:
    """Voxels that belong to another object than before, in the colour of the cause."""
    x, y, colour = _changed_hands(diff, bodies)
    palette = np.asarray([to_rgb(c) for c in (*COLOURS, OTHER)])
    left = MOST_VOXELS
    for box, same_lattice in _blocks(diff, x, y):
        left -= box.size_vx
        if left < 0 or not same_lattice:
            for view, image in zip(VIEWS, flat, strict=True):
                image[_flat(box.clip(bounds), bounds, view)] = 0.7
            continue
        labels = [_labels(r, box) for r in (diff.a, diff.b)]
        number = _lookup(labels, x, y, colour)
        for view, image in zip(VIEWS, flat, strict=True):
            seen = number.max(axis=view.along)
            where = _flat(box, bounds, view)
            image[where] = np.where((seen >= 0)[..., None], palette[seen], image[where])


def _labels(revision: Revision, box: Box) -> U64:
    found: U64 = revision.read_unit("segment", "supervoxels", box)
    return found


def _changed_hands(diff: Diff, bodies: Bodies) -> tuple[U64, U64, I64]:
    """Pairs of supervoxels that share voxels and lie in objects that are not each other's heir, with a colour each."""
    objects, why = bodies.objects, diff.why
    member = [_members(r) for r in (diff.a, diff.b)]
    x, y = bodies.overlap["a"].to_numpy(), bodies.overlap["b"].to_numpy()
    of_a, of_b = (_taken(m, s) for m, s in zip(member, (x, y), strict=True))
    group = np.maximum(objects.group_of(0, of_a), objects.group_of(1, of_b))
    moved = (group >= 0) & (objects.carried_on(of_a) != of_b)
    times = diff.tables["cause"]["objects"].to_pylist()
    rarest = {k: min(why.sets.ids(k), key=lambda c: (times[c], c)) for k in np.unique(objects.reasons.causes).tolist()}
    colours = np.asarray([min(rarest[k], len(COLOURS)) for k in objects.reasons.causes.tolist()], dtype=np.int64)
    return x[moved], y[moved], colours[group[moved]]


def _members(revision: Revision) -> pa.Table:
    return read(revision, "agglomerate", "member", ["supervoxel", "object"]).sort_by("supervoxel")


def _taken(member: pa.Table, supervoxel: U64) -> U64:
    """The object of each supervoxel; 0 for background."""
    known, found = member["supervoxel"].to_numpy(), member["object"].to_numpy()
    if len(known) == 0:
        return np.zeros(len(supervoxel), np.uint64)
    at = np.minimum(np.searchsorted(known, supervoxel), len(known) - 1)
    return np.where(known[at] == supervoxel, found[at], np.uint64(0))


def _blocks(diff: Diff, x: U64, y: U64) -> Iterator[tuple[Box, bool]]:
    """Blocks that hold any of these supervoxels, and whether both revisions have the block."""
    change = diff.why.stages["segment"].change
    codes = np.unique(ids.unit_of(np.concatenate([x[x != 0], y[y != 0]])))
    rows = change.index(codes)
    rows = rows[rows >= 0]
    both = (change.at_a[rows] >= 0) & (change.at_b[rows] >= 0)
    if change.a is not None and change.b is not None:
        at = change.at_a[rows[both]], change.at_b[rows[both]]
        cores = boxes_of(change.a.units, "core_")[at[0]], boxes_of(change.b.units, "core_")[at[1]]
        both[both] = (cores[0] == cores[1]).all(axis=1)
    for row, same in zip(rows.tolist(), both.tolist(), strict=True):
        yield box_of(change.cores[row]), same


def _lookup(labels: list[U64], x: U64, y: U64, colour: I64) -> I64:
    """Labels of both revisions (z, y, x) -> the colour of each pair of them, -1 for pairs that are not listed."""
    known = np.unique(x), np.unique(y)
    width = len(known[1])
    keys = np.searchsorted(known[0], x) * width + np.searchsorted(known[1], y)
    order = np.argsort(keys)
    keys, colour = keys[order], colour[order]
    place = []
    for label, names in zip(labels, known, strict=True):
        at = np.minimum(np.searchsorted(names, label), len(names) - 1)
        place.append(np.where(names[at] == label, at, -1))
    key = np.where((place[0] < 0) | (place[1] < 0), -1, place[0] * width + place[1])
    at = np.minimum(np.searchsorted(keys, key), len(keys) - 1)
    return np.where(keys[at] == key, colour[at], -1)


def _regions(ax: Axes, diff: Diff, view: _View, bounds: Box) -> None:
    """Outlines of regions whose parameters differ, and the sections of tiles that do."""
    named = set()
    for number, cause in enumerate(diff.why.sets.causes):
        colour = _colour(number)
        for box in cause.boxes:
            low, high = (box.lo[view.right], box.lo[view.down]), (box.hi[view.right], box.hi[view.down])
            if (cause.region, box) in named:
                continue
            named.add((cause.region, box))
            size = high[0] - low[0], high[1] - low[1]
            ax.add_patch(Rectangle(low, *size, fill=False, ec="white", lw=3.5, zorder=4))
            ax.add_patch(Rectangle(low, *size, fill=False, ec=colour, lw=2, ls=(0, (4, 2)), zorder=4))
            ax.annotate(
                cause.region, low, xytext=(3, -3), textcoords="offset points", color=colour, fontsize=9, va="top",
                weight="bold", zorder=5, bbox={"fc": "white", "ec": "none", "alpha": 0.75, "pad": 1},
            )  # fmt: skip
        if cause.section is not None and view.along != 0:
            ax.axhline(cause.section + 0.5, color=colour, lw=1.5, ls=(0, (4, 2)))
            ax.annotate(
                f"section {cause.section}", (bounds.hi[view.right], cause.section + 0.5), xytext=(-3, 0), fontsize=8,
                textcoords="offset points", ha="right", va="center", color=colour, weight="bold",
                bbox={"fc": "white", "ec": "none", "alpha": 0.75, "pad": 1},
            )  # fmt: skip


def _synapses(ax: Axes, table: pa.Table, view: _View) -> None:
    places = [table[f"{'zyx'[k]}_vx"].to_numpy() for k in (view.right, view.down)]
    kinds = np.asarray(table["kind"].to_pylist())
    for kind in ("altered", "moved", "repartnered", "lost", "gained"):  # what matters most is drawn last
        chosen = kinds == kind
        marker, colour, _ = MARKS[kind]
        open_ = marker == "o"
        ax.scatter(
            places[0][chosen] + 0.5, places[1][chosen] + 0.5, s=22 if open_ else 46, marker=marker,
            facecolors="none" if open_ else colour, edgecolors=colour if open_ else "white", linewidths=0.9, zorder=3,
        )  # fmt: skip


def _legend(ax: Axes, diff: Diff) -> None:
    entries: list[Patch | Line2D] = [Patch(fc="#ededed", label="block with other content")]
    if diff.bodies is not None:
        entries.append(Patch(fc=COLOURS[0], label="voxels now in another object: its cause, of several the rarest"))
    if "synapse_change" in diff.tables:
        present = set(diff.tables["synapse_change"]["kind"].to_pylist())
        seen = {MARKS[k][2]: MARKS[k] for k in MARKS if k in present}
        for label, (marker, colour, _) in seen.items():
            face = "none" if marker == "o" else colour
            entries.append(
                Line2D([], [], marker=marker, ls="", mfc=face, mec=colour, label=f"synapse: {label}", markersize=6)
            )
    ax.legend(handles=entries, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1.07), ncol=3, frameon=False)


def _bars(fig: SubFigure, diff: Diff) -> None:
    """The causes in words, and how many rows of each table name each."""
    causes = diff.tables["cause"]
    shown = min(causes.num_rows, len(COLOURS) + 1)
    if shown == 0:
        fig.text(0.5, 0.5, "no differences", ha="center")
        return
    rows = causes.slice(0, shown).to_pylist()
    texts = [textwrap.wrap(textwrap.shorten(r["text"], 150, placeholder=" …"), 58) for r in rows]
    counts = [(c, label) for c, label in COUNTS if c in causes.column_names]
    lines = sum(len(t) for t in texts) + 0.5 * len(texts) + 1
    per_bar = 1.3 * shown + 3
    axes = fig.subplots(1 + len(counts), 1, height_ratios=[lines, *[per_bar] * len(counts)])
    axes[0].set_axis_off()
    axes[0].set_xlim(0, 1)
    axes[0].set_ylim(lines, 0)
    at = 0.5
    for row, text in zip(rows, texts, strict=True):
        axes[0].text(0.0, at, f"■ {row['cause']}", color=_colour(row["cause"]), fontsize=10, va="top", weight="bold")
        axes[0].text(0.08, at, "\n".join(text), fontsize=9, va="top")
        at += len(text) + 0.5
    for ax, (column, label) in zip(axes[1:], counts, strict=True):
        values = [r[column] for r in rows]
        bars = ax.barh(range(shown), values, color=[_colour(r["cause"]) for r in rows], height=0.7)
        ax.bar_label(bars, [f"{v:,}" for v in values], fontsize=8, padding=3)
        ax.set_title(f"{label} that differ, by cause", fontsize=10, loc="left")
        ax.set_yticks(range(shown), [str(r["cause"]) for r in rows])
        ax.set_xlim(0, max(1, *values) * 1.15)
        ax.set_ylim(max(shown, 4) - 0.4, -0.6)
        ax.tick_params(labelsize=8)
        ax.spines[["top", "right"]].set_visible(False)
        ax.xaxis.get_major_locator().set_params(integer=True)
    if causes.num_rows > shown:
        axes[-1].set_xlabel(f"and {causes.num_rows - shown:,} more causes", fontsize=8)


def _weights(fig: SubFigure, edges: pa.Table) -> None:
    """Synapses of each connection that differs, before and after."""
    ax = fig.subplots()
    before, after = edges["synapses_a"].to_numpy(), edges["synapses_b"].to_numpy()
    points, times = np.unique(np.stack([before, after], axis=1).reshape(-1, 2), axis=0, return_counts=True)
    top = max(2.0, float(points.max(initial=1)) * 1.1)
    ax.plot([0, top], [0, top], color="#bbbbbb", lw=1)
    colour = np.where(points[:, 0] == 0, "#118833", np.where(points[:, 1] == 0, "#cc2222", "#4477aa"))
    ax.scatter(points[:, 0], points[:, 1], s=18 + 14 * np.log2(times), c=colour, alpha=0.75, linewidths=0)
    ax.set_xscale("symlog", linthresh=1)
    ax.set_yscale("symlog", linthresh=1)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(ScalarFormatter())
    ax.set_xlim(-0.3, top)
    ax.set_ylim(-0.3, top)
    ax.set_xlabel("synapses of a connection before")
    ax.set_ylabel("after")
    entries = [
        Line2D([], [], marker="o", ls="", color=c, label=f"{n} ({int(times[chosen].sum()):,})")
        for c, n, chosen in (
            ("#118833", "gained", points[:, 0] == 0),
            ("#cc2222", "lost", points[:, 1] == 0),
            ("#4477aa", "stronger or weaker", (points > 0).all(axis=1)),
        )
    ]
    ax.legend(handles=entries, fontsize=9, frameon=False, loc="upper left")

"""Neurons in the tissue: skeletons, synapses and the boxes of objects, in three views and as a model to turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from connectome_db.errors import QueryError
from connectome_db.plots import about as read
from connectome_db.plots import places
from connectome_db.plots.picture import Picture, style
from connectome_db.plots.projections import VIEWS, Views, views
from connectome_db.query.database import Database
from connectome_db.versions.compare.picture import COLOURS
from connectome_db.viewing.picture import colours

MOST = 60
"""Neurons in one picture."""
MOST_POINTS = 60_000
"""Synapses that the turning model holds; the picture has them all."""


def neuron(db: Database, ids: Sequence[int], *, synapses: bool = True) -> Picture:
    """Skeletons (lines), synapses (triangles: made, dots: received) and boxes of objects, in µm.

    Raises QueryError for an unknown neuron, or when nothing says where they lie.
    """
    wanted = list(dict.fromkeys(int(n) for n in ids))
    if not 1 <= len(wanted) <= MOST:
        raise QueryError(f"wanted 1 to {MOST} neurons for one picture, got {len(wanted)}")
    places.refuse_unknown(db, wanted)
    skeletons = places.skeletons(db, wanted)
    boxes = places.boxes(db, wanted)
    rows = places.synapses(db, wanted)
    shown = rows if synapses or not (skeletons or boxes) else rows.slice(0, 0)
    at = np.stack([read.floats(shown, f"{a}_nm") for a in "zyx"], axis=1) / 1000
    hull = np.concatenate(
        [at, *(s.lines.reshape(-1, 3) / 1000 for s in skeletons), *(b / 1000 for b in boxes.values())]
    )
    if not len(hull):
        raise QueryError(f"these neurons have no skeleton and no synapse with a place. {places.NO_PLACES}")
    names = read.names_of(db, wanted)
    colour = _colours(wanted)
    label = names[wanted[0]] if len(wanted) == 1 else f"{len(wanted)} neurons"
    title = f"{'Neuron' if len(wanted) == 1 else 'Neurons:'} {label}"
    about = read.about_of(db)
    with style():
        v = views(title, about, hull.min(axis=0), hull.max(axis=0))
        for n, box in boxes.items():
            _box(v, box / 1000, colour[n])
        for s in skeletons:
            _lines(v, s.lines / 1000, colour[s.neuron])
        sides = _sides(shown, wanted)
        for n, (made, received) in sides.items():
            _points(v, at[received], colour[n], "o", 5)
            _points(v, at[made], colour[n], "^", 11)
        _legend(v, wanted, names, colour, sides)
    counts = [sum(len(s[k]) for s in sides.values()) for k in (0, 1)]
    told = f"{counts[0]:,} synapses made and {counts[1]:,} received"
    says = f"{title}: {len(skeletons)} skeletons, {told} that have a place."
    scene = _scene(wanted, names, colour, skeletons, sides, at, hull)
    return Picture(v.figure, title, about, says, None, scene)


def _colours(ids: Sequence[int]) -> Mapping[int, str]:
    """The first colours are told apart best; with many neurons each has the colour of its id, as in other pictures."""
    if len(ids) <= len(COLOURS):
        return dict(zip(ids, COLOURS, strict=False))
    return {n: to_hex(c) for n, c in zip(ids, colours(np.asarray(ids, dtype=np.uint64)), strict=True)}


def _sides(rows: pa.Table, ids: Sequence[int]) -> Mapping[int, tuple[read.I64, read.I64]]:
    """Rows where each neuron is presynaptic, and where it is postsynaptic."""
    pre, post = rows["pre"].to_numpy(), rows["post"].to_numpy()
    return {n: (np.flatnonzero(pre == np.uint64(n)), np.flatnonzero(post == np.uint64(n))) for n in ids}


def _lines(v: Views, lines_um: read.F64, colour: str) -> None:
    for name, (down, right) in VIEWS.items():
        v.axes[name].add_collection(
            LineCollection(lines_um[:, :, [right, down]].tolist(), colors=colour, linewidths=0.9)
        )


def _points(v: Views, at: read.F64, colour: str, marker: str, size: float) -> None:
    for name, (down, right) in VIEWS.items():
        edge = "white" if marker == "^" else "none"
        v.axes[name].scatter(
            at[:, right], at[:, down], s=size, c=colour, marker=marker, linewidths=0.25, edgecolors=edge, alpha=0.85,
            rasterized=len(at) > 2000, zorder=3,
        )  # fmt: skip


def _box(v: Views, corners_um: read.F64, colour: str) -> None:
    """The box of an object, thin, with a cross in the middle: a centre of the box, not of mass."""
    middle = corners_um.mean(axis=0)
    for name, (down, right) in VIEWS.items():
        low, size = corners_um[0], corners_um[1] - corners_um[0]
        v.axes[name].add_patch(
            Rectangle((low[right], low[down]), size[right], size[down], fill=False, ec=colour, lw=0.7, ls=":")
        )
        v.axes[name].plot(middle[right], middle[down], "+", color=colour, ms=7, mew=1.2)


def _legend(
    v: Views, ids: Sequence[int], names: Mapping[int, str], colour: Mapping[int, str],
    sides: Mapping[int, tuple[read.I64, read.I64]],
) -> None:  # fmt: skip
    entries = []
    for n in ids[:12]:
        label = read.shortened([names[n]], 26)[0]
        made, received = (len(k) for k in sides[n])
        entries.append(Line2D([], [], color=colour[n], lw=2, label=f"{label}\n{made:,} made, {received:,} received"))
    if len(ids) > 12:
        entries.append(Line2D([], [], lw=0, label=f"and {len(ids) - 12} more"))
    entries.append(Line2D([], [], marker="^", color="#555555", lw=0, ms=5, label="synapse made"))
    entries.append(Line2D([], [], marker="o", color="#555555", lw=0, ms=3, label="synapse received"))
    v.beside.legend(handles=entries, loc="upper left", fontsize=7, borderaxespad=0)


def _scene(
    ids: Sequence[int], names: Mapping[int, str], colour: Mapping[int, str], skeletons: Sequence[places.Skeleton],
    sides: Mapping[int, tuple[read.I64, read.I64]], at: read.F64, hull: read.F64,
) -> Mapping[str, Any]:  # fmt: skip
    """What the turning model draws: per neuron lines and points, whole nm, flat (x, y, z)."""
    lines = {s.neuron: s.lines for s in skeletons}
    step = max(1, -(-sum(len(s) for pair in sides.values() for s in pair) // MOST_POINTS))

    def flat(points_nm: read.F64) -> list[int]:
        return np.round(points_nm.reshape(-1, 3)[:, ::-1]).astype(np.int64).ravel().tolist()

    groups = [
        {
            "name": names[n],
            "colour": colour[n],
            "lines": flat(lines[n]) if n in lines else [],
            "made": flat(at[sides[n][0][::step]] * 1000),
            "received": flat(at[sides[n][1][::step]] * 1000),
        }
        for n in ids
    ]
    low, high = (np.round(e[::-1] * 1000).astype(int).tolist() for e in (hull.min(axis=0), hull.max(axis=0)))
    return {"groups": groups, "low": low, "high": high}

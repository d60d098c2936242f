"""Flow from group to group: bands as wide as the synapses from a region (or type) on the left to one on the right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path as Curve

from connectome_db.errors import QueryError
from connectome_db.plots import about as read
from connectome_db.plots.matrix import REST, largest, text_pair
from connectome_db.plots.picture import Picture, new_figure, style
from connectome_db.query.database import Database
from connectome_db.versions.compare.picture import COLOURS, OTHER

GAP = 0.012
"""Between two groups, as a part of the height."""
BAR = 0.03
_BY_TYPE = """
SELECT coalesce(a.value, '(none)') AS source, coalesce(b.value, '(none)') AS target, sum(c.synapses)::BIGINT AS synapses
FROM connection c
LEFT JOIN (SELECT neuron, min(value) AS value FROM annotation WHERE kind = $kind GROUP BY neuron) a ON a.neuron = c.pre
LEFT JOIN (SELECT neuron, min(value) AS value FROM annotation WHERE kind = $kind GROUP BY neuron) b ON b.neuron = c.post
WHERE c.synapses >= $least GROUP BY ALL ORDER BY ALL
"""


def flow_of(db: Database, kind: str | None = None, *, min_synapses: int = 1) -> tuple[pa.Table, str]:
    """(Synapses from group to group, the kind of annotation): `kind`, or what says the neurons' type.

    Raises QueryError when there are no annotations, or none of that kind.
    """
    there = read.kinds_of(db)
    kind = kind or read.type_kind(db) or (there[0] if there else None)
    if kind is None:
        raise QueryError(
            "a Sankey diagram needs groups of neurons, and this project has no annotations: "
            "`connectome import` takes them, or draw the rows of a query with two columns of text and synapses"
        )
    read.groups_of(db, kind, np.empty(0, dtype=np.uint64))  # its error names the kinds there are
    return db.rows(_BY_TYPE, {"kind": kind, "least": min_synapses}), kind


def sankey(rows: pa.Table, about: str = "", *, most: int = 12) -> Picture:
    """Flow diagram of two columns of text (from, to) and a number; past the `most` largest groups, the rest are one.

    Raises QueryError when there are no such columns, or nothing flows.
    """
    source, target = text_pair(rows, "Sankey diagram")
    weight = read.need(rows, "Sankey diagram", "synapses", "connections", "weight")
    read.refuse_empty(rows, "rows")
    froms, tos, counts = read.texts(rows, source), read.texts(rows, target), np.nan_to_num(read.floats(rows, weight))
    if counts.sum() <= 0:
        raise QueryError(f"nothing to draw: {weight} is 0 in every row")
    left, right = largest(froms, counts, most), largest(tos, counts, most)
    flow = np.zeros((len(left), len(right)))
    at = {n: k for k, n in enumerate(left)}, {n: k for k, n in enumerate(right)}
    rest = at[0].get(REST, -1), at[1].get(REST, -1)
    np.add.at(flow, ([at[0].get(f, rest[0]) for f in froms], [at[1].get(t, rest[1]) for t in tos]), counts)
    title = f"Flow of {weight} from {source.replace('_', ' ')} to {target.replace('_', ' ')}"
    if {source, target} == {"source", "target"}:
        title = f"Flow of {weight} from group to group"
    with style():
        fig = new_figure(title, about, 8.0, max(4.5, 1.2 + 0.42 * max(len(left), len(right))))
        _draw(fig.subplots(), flow, left, right, weight)
    top = np.unravel_index(int(flow.argmax()), flow.shape)
    widest = f"the widest band, {flow.max():,.0f}, goes from {left[top[0]]} to {right[top[1]]}"
    says = f"{counts.sum():,.0f} {weight}; {widest}."
    return Picture(fig, title, about, says, rows)


def _draw(ax: Axes, flow: read.F64, left: Sequence[str], right: Sequence[str], weight: str) -> None:
    ax.set_axis_off()
    ax.set_xlim(-0.42, 1.42)
    ax.set_ylim(1.0 + GAP, -0.045)
    total = float(flow.sum())
    scale = (1 - GAP * (max(flow.shape) - 1)) / total
    starts = _stack(flow.sum(axis=1), scale), _stack(flow.sum(axis=0), scale)
    colour = _colours([*left, *(r for r in right if r not in left)])
    # each column keeps its own order of bands; thin ones are drawn last, so that none is hidden
    for i, j in sorted(np.ndindex(*flow.shape), key=lambda at: -flow[at]):
        if flow[i, j] > 0:
            y0 = starts[0][i] + flow[i, :j].sum() * scale
            y1 = starts[1][j] + flow[:i, j].sum() * scale
            ax.add_patch(_band(y0, y1, flow[i, j] * scale, colour[left[i]]))
    for side, (names, tops) in enumerate(zip((left, right), starts, strict=True)):
        x, text_x, align = ((-BAR, -BAR - 0.012, "right"), (1.0, 1 + BAR + 0.012, "left"))[side]
        ax.text(text_x, -0.02, f"{weight} {('from', 'to')[side]}", ha=align, va="bottom", fontsize=8.5, color="#525d6d")
        for label, y, size, name in zip(read.shortened(names, 24), tops, flow.sum(axis=1 - side), names, strict=True):
            ax.add_patch(Rectangle((x, y), BAR, size * scale, color=colour[name], lw=0))
            told = f"{label}  {size:,.0f} ({100 * size / total:.0f} %)"
            ax.text(text_x, y + size * scale / 2, told, ha=align, va="center", fontsize=7.5)


def _stack(sizes: read.F64, scale: float) -> read.F64:
    """Where each group of a column begins, float64[N]; the shorter column stands in the middle."""
    heights = sizes * scale
    spare = 1 - heights.sum() - GAP * (len(sizes) - 1)
    starts: read.F64 = spare / 2 + np.concatenate([[0.0], np.cumsum(heights + GAP)[:-1]])
    return starts


def _colours(names: Sequence[str]) -> Mapping[str, str]:
    """One colour for a group, on both sides; those of no name are grey."""
    known = [n for n in names if n not in {REST, read.UNTYPED}]
    return {n: COLOURS[k % len(COLOURS)] for k, n in enumerate(known)} | {REST: OTHER, read.UNTYPED: "#bbbbbb"}


def _band(y0: float, y1: float, height: float, colour: str) -> PathPatch:
    points = [
        (0, y0), (0.5, y0), (0.5, y1), (1, y1),
        (1, y1 + height), (0.5, y1 + height), (0.5, y0 + height), (0, y0 + height), (0, y0),
    ]  # fmt: skip
    codes = [Curve.MOVETO, *[Curve.CURVE4] * 3, Curve.LINETO, *[Curve.CURVE4] * 3, Curve.CLOSEPOLY]
    return PathPatch(Curve(points, codes), facecolor=colour, alpha=0.5, lw=0)

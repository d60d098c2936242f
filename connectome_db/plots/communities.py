"""Communities: how large each is, and how the synapses lie between them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes

from connectome_db.plots import about as read
from connectome_db.plots.axes import colour_bar, grid, plain_numbers
from connectome_db.plots.matrix import synapse_colours
from connectome_db.plots.motifs import null_note
from connectome_db.plots.picture import Picture, new_figure, style
from connectome_db.versions.compare.picture import COLOURS, OTHER

MOST = 30
"""Communities drawn; smaller ones are counted in the title."""


def communities(rows: pa.Table, about: str = "", *, edges: pa.Table | None = None) -> Picture:
    """Sizes of the communities, and with `edges` (pre, post, synapses) the share of synapses that stays inside each.

    `rows`: neuron, community; or community, neurons (a row per community). Raises QueryError without them.
    """
    community = read.need(rows, "picture of communities", "community")
    read.refuse_empty(rows, "communities")
    names = np.asarray(read.texts(rows, community))
    if "neuron" in rows.column_names:
        labels, sizes = np.unique(names, return_counts=True)
    else:
        size = read.need(rows, "picture of communities", "neurons", "size")
        labels, sizes = names, read.floats(rows, size).astype(np.int64)
        edges = None
    order = np.lexsort((labels, -sizes))[:MOST]
    shown, counts = labels[order], sizes[order]
    title = f"{len(labels):,} communities of {int(sizes.sum()):,} neurons"
    about = " · ".join(t for t in (about, null_note(rows)) if t)
    between = None if edges is None else _between(rows, names, edges, shown)
    with style():
        wide, ratios = (4.6, [1.0]) if between is None else (9.4, [1.0, 1.5])
        fig = new_figure(title, about, wide, max(3.4, 1.3 + 0.2 * len(shown)))
        axes = fig.subplots(1, len(ratios), squeeze=False, width_ratios=ratios)[0]
        _sizes(axes[0], shown, counts)
        if between is not None:
            _shares(axes[1], shown, between)
    says = f"{title}; the largest has {int(counts[0]):,}."
    if between is not None:
        says += f" {100 * np.trace(between) / between.sum():.0f} % of their synapses stay inside a community."
    return Picture(fig, title, about, says, rows if rows.num_rows <= 500 else None)


def _between(rows: pa.Table, names: np.ndarray, edges: pa.Table, shown: np.ndarray) -> read.F64:
    """Synapses from community to community, float64[C, C], of those shown."""
    neurons = rows["neuron"].to_numpy()
    by_id = np.argsort(neurons)
    index = {n: k for k, n in enumerate(shown)}
    number = np.asarray([index.get(n, -1) for n in names])[by_id]
    ends = []
    for side in ("pre", "post"):
        ids = edges[side].to_numpy()
        at = np.minimum(np.searchsorted(neurons[by_id], ids), len(neurons) - 1)
        ends.append(np.where(neurons[by_id][at] == ids, number[at], -1))
    good = (ends[0] >= 0) & (ends[1] >= 0)
    out = np.zeros((len(shown), len(shown)))
    np.add.at(out, (ends[0][good], ends[1][good]), edges["synapses"].to_numpy()[good])
    return out


def _sizes(ax: Axes, names: np.ndarray, counts: np.ndarray) -> None:
    at = np.arange(len(names))
    colour = [COLOURS[k] if k < len(COLOURS) else OTHER for k in range(len(names))]
    bars = ax.barh(at, counts, color=colour, height=0.75)
    ax.bar_label(bars, [f"{c:,}" for c in counts], fontsize=7, padding=3)
    ax.set_yticks(at, names.tolist(), fontsize=7.5)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlim(0, max(counts) * 1.18)
    ax.set_ylabel("community")
    ax.set_xlabel("neurons")
    ax.xaxis.set_major_formatter(plain_numbers())
    grid(ax, "x")


def _shares(ax: Axes, names: np.ndarray, between: read.F64) -> None:
    """Where the synapses that a community makes go: each row adds up to 100 %."""
    made = between.sum(axis=1, keepdims=True)
    share = 100 * np.divide(between, made, out=np.zeros_like(between), where=made > 0)
    image = ax.imshow(np.ma.masked_less(share, 0.05), cmap=synapse_colours(), vmin=0, vmax=100)
    colour_bar(image, ax, "% of the synapses made by a community", 0.7)
    ax.set_xticks(range(len(names)), names.tolist(), fontsize=7.5, rotation=90 if len(names) > 12 else 0)
    ax.set_yticks(range(len(names)), names.tolist(), fontsize=7.5)
    ax.set_xlabel("postsynaptic community")
    ax.set_ylabel("presynaptic community")
    ax.spines[["top", "right"]].set_visible(True)
    if len(names) <= 14:
        for (y, x), v in np.ndenumerate(share):
            if v >= 0.5:
                ax.text(x, y, f"{v:.0f}", ha="center", va="center", fontsize=7, color="white" if v > 45 else "#1b222c")

"""Connectivity matrices: neuron by neuron, and group by group."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullLocator

from connectome_db.errors import QueryError
from connectome_db.plots import about as read
from connectome_db.plots.axes import colour_bar
from connectome_db.plots.order import Order, order_of, wiring_of
from connectome_db.plots.picture import Picture, new_figure, style
from connectome_db.query.database import Database
from connectome_db.versions.compare.picture import COLOURS

MOST_CELLS = 600
"""Cells along an axis; more neurons than that share cells."""
NAMED = 60
"""Neurons up to which each has its name on the axes."""
MOST_GROUPS = 40
"""Groups of a group-by-group matrix; the rest are one."""
REST = "(others)"


def synapse_colours() -> Colormap:
    """White for none, then from a blue that shows on white to nearly black: an order that print keeps."""
    ends = ["#b8d3ee", "#6fa5d8", "#2f73b4", "#173f7a", "#0b1633"]
    return LinearSegmentedColormap.from_list("synapses", ends).with_extremes(bad="white")


def matrix(db: Database, *, by: str = "auto", min_synapses: int = 1, seed: int = 1) -> Picture:
    """Synapses between every two neurons: rows are presynaptic, columns postsynaptic, colours logarithmic.

    `by` is how neurons are sorted: see `order.order_of`. Raises QueryError when there is no connection.
    """
    rows = db.rows(
        "SELECT pre, post, synapses FROM connection WHERE synapses >= $least ORDER BY pre, post",
        {"least": min_synapses},
    )
    edges = wiring_of(read.refuse_empty(rows, "connections"))
    order = order_of(db, edges, by, seed)
    n = len(edges.neurons)
    where = np.empty(n, dtype=np.int64)
    where[order.place] = np.arange(n)
    cells = min(n, MOST_CELLS)
    at = where * cells // n
    flat = at[edges.pre] * cells + at[edges.post]
    values = np.bincount(flat, edges.synapses, cells * cells).reshape(cells, cells).astype(np.float64)
    told = f"sorted by {order.told}"
    about = read.about_of(db, read.at_least(min_synapses), told)
    title = f"Connectivity matrix: {n:,} neurons, {len(rows):,} connections, {int(edges.synapses.sum()):,} synapses"
    with style():
        fig = new_figure(title, about, 8.2, 7.4)
        names = list(read.names_of(db, edges.neurons[order.place].tolist()).values()) if n <= NAMED else []
        _draw(fig, values, order, names, n)
    strongest = rows["synapses"].to_numpy().max()
    says = f"{title}, {told}. The strongest connection has {strongest:,} synapses."
    return Picture(fig, title, about, says)


def _draw(fig: Figure, values: read.F64, order: Order, names: Sequence[str], n: int) -> None:
    cells = len(values)
    ax = fig.subplots()
    each = "synapses" if cells == n else f"synapses in a cell of about {n / cells:.2g} × {n / cells:.2g} neurons"
    image = ax.imshow(
        np.ma.masked_less(values, 1), norm=LogNorm(1, max(2.0, float(values.max()))), cmap=synapse_colours(),
        extent=(0, n, n, 0), interpolation="nearest",
    )  # fmt: skip
    ax.spines[["top", "right"]].set_visible(True)
    colour_bar(image, ax, each, 0.5)
    ax.set_xlabel("postsynaptic neuron")
    ax.set_ylabel("presynaptic neuron")
    if names:
        size = 8 if n <= 30 else 5.5
        ax.set_xticks(np.arange(n) + 0.5, read.shortened(names), rotation=90, fontsize=size)
        ax.set_yticks(np.arange(n) + 0.5, read.shortened(names), fontsize=size)
    elif order.group:
        _mark_groups(ax, order.group, n)


def _mark_groups(ax: Axes, group: Sequence[str], n: int) -> None:
    """Lines between groups, a strip of colour along either axis, and the names of groups that are wide enough."""
    runs = [(name, len(list(same))) for name, same in itertools.groupby(group)]
    ends = np.cumsum([size for _, size in runs])
    strip = 0.014 * n
    for k, ((_, size), end) in enumerate(zip(runs, ends, strict=True)):
        colour = COLOURS[k % len(COLOURS)]
        ax.add_patch(_strip(-1.3 * strip, end - size, strip, size, colour))
        ax.add_patch(_strip(end - size, -1.3 * strip, size, strip, colour))
        if size >= 0.01 * n and end < n:
            ax.axhline(end, color="#777777", lw=0.35)
            ax.axvline(end, color="#777777", lw=0.35)
    ax.set_xlim(-1.4 * strip, n)
    ax.set_ylim(n, -1.4 * strip)
    named = [(name, end - size / 2) for (name, size), end in zip(runs, ends, strict=True) if size >= 0.017 * n]
    labels = read.shortened([name for name, _ in named])
    ax.set_yticks([at for _, at in named], labels, fontsize=7.5)
    ax.set_xticks([at for _, at in named], labels, rotation=90, fontsize=7.5)
    ax.tick_params(length=2)
    if not named:
        ax.xaxis.set_major_locator(NullLocator())
        ax.yaxis.set_major_locator(NullLocator())


def _strip(x: float, y: float, width: float, height: float, colour: str) -> Rectangle:
    return Rectangle((x, y), width, height, color=colour, lw=0)


def groups(rows: pa.Table, about: str = "") -> Picture:
    """Synapses from group to group (type, region): the first two columns of text and the number of synapses.

    Raises QueryError when there are no such columns or no rows.
    """
    source, target = text_pair(rows, "matrix of groups")
    weight = read.need(rows, "matrix of groups", "synapses", "connections", "weight")
    read.refuse_empty(rows, "groups that connect")
    froms, tos, counts = read.texts(rows, source), read.texts(rows, target), read.floats(rows, weight)
    kept = largest([*froms, *tos], np.concatenate([counts, counts]), MOST_GROUPS)
    index = {name: k for k, name in enumerate(kept)}
    values = np.zeros((len(kept), len(kept)))
    rest = index.get(REST, -1)
    np.add.at(values, ([index.get(f, rest) for f in froms], [index.get(t, rest) for t in tos]), np.nan_to_num(counts))
    title = f"{weight.capitalize()} from group to group"
    with style():
        side = 3.0 + 0.19 * len(kept)
        fig = new_figure(title, about, max(5.5, side + 1.2), max(4.8, side))
        ax = fig.subplots()
        shown = np.ma.masked_less_equal(values, 0)
        image = ax.imshow(
            shown, norm=LogNorm(max(shown.min(), 1e-9), max(2.0, float(values.max()))), cmap=synapse_colours()
        )
        colour_bar(image, ax, weight, 0.6)
        labels = read.shortened(kept, 26)
        ax.set_xticks(range(len(kept)), labels, rotation=90, fontsize=7.5)
        ax.set_yticks(range(len(kept)), labels, fontsize=7.5)
        ax.set_xlabel(f"postsynaptic ({target})")
        ax.set_ylabel(f"presynaptic ({source})")
        ax.spines[["top", "right"]].set_visible(True)
        if len(kept) <= 12:
            _write_values(ax, values)
    return Picture(fig, title, about, f"{title}: {len(kept)} groups, {counts.sum():,.0f} {weight} in all.", rows)


def _write_values(ax: Axes, values: read.F64) -> None:
    dark = np.sqrt(max(1.0, values.max()))
    for (y, x), v in np.ndenumerate(values):
        if v > 0:
            text = f"{v:,.0f}" if v < 1e5 else f"{v / 1000:,.0f}k"
            ax.text(x, y, text, ha="center", va="center", fontsize=6.5, color="white" if v > dark else "#1b222c")


def text_pair(rows: pa.Table, picture: str) -> tuple[str, str]:
    """The two columns that say from which group to which: by name, else the first two of text."""
    for names in (
        ("source", "target"),
        ("pre_group", "post_group"),
        ("pre_type", "post_type"),
        ("pre_roi", "post_roi"),
    ):
        if set(names) <= set(rows.column_names):
            return names
    found = [f.name for f in rows.schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)]
    if len(found) < 2:
        raise QueryError(
            f"a {picture} needs two columns of text (from which group, to which); "
            f"these rows have {', '.join(rows.column_names)}"
        )
    return found[0], found[1]


def largest(names: Sequence[str], weights: read.F64, most: int) -> list[str]:
    """Names by their total weight, the largest first; past `most`, the rest are one."""
    unique, back = np.unique(np.asarray(names), return_inverse=True)
    total = np.bincount(back, np.nan_to_num(weights))
    order = np.lexsort((unique, -total))
    kept = [str(unique[k]) for k in order[:most]]
    return [*kept, REST] if len(unique) > most else kept


def of_rows(rows: pa.Table, about: str = "") -> Picture:
    """Rows of pre, post, synapses as a matrix: presynaptic neurons down, postsynaptic across, by id.

    Raises QueryError without these columns or rows.
    """
    sides = [read.need(rows, "matrix of neurons", n) for n in ("pre", "post")]
    weight = read.need(rows, "matrix of neurons", "synapses", "connections", "weight")
    read.refuse_empty(rows, "connections")
    names, at, cells = [], [], []
    for side in sides:
        ids, back = np.unique(rows[side].to_numpy(), return_inverse=True)
        names.append([str(n) for n in ids.tolist()])
        cells.append(min(len(ids), MOST_CELLS))
        at.append(back * cells[-1] // len(ids))
    counts = np.nan_to_num(read.floats(rows, weight))
    values = np.bincount(at[0] * cells[1] + at[1], counts, cells[0] * cells[1]).reshape(cells)
    title = f"{weight.capitalize()} between {len(names[0]):,} and {len(names[1]):,} neurons"
    with style():
        small = max(len(names[0]), len(names[1])) <= NAMED
        tall, wide = (0.2 * n if small else 5.2 for n in cells)
        fig = new_figure(title, about, max(5.2, wide + 3.2), max(3.6, tall + 2.4))
        ax = fig.subplots()
        shown = np.ma.masked_less_equal(values, 0)
        image = ax.imshow(
            shown, norm=LogNorm(min(1.0, float(shown.min()) or 1.0), max(2.0, float(values.max()))),
            cmap=synapse_colours(), interpolation="nearest", extent=(0, len(names[1]), len(names[0]), 0),
            aspect="equal" if small else "auto",
        )  # fmt: skip
        each = weight if cells == [len(n) for n in names] else f"{weight} in a cell of several neurons"
        colour_bar(image, ax, each, 0.7)
        ax.set_xlabel("postsynaptic neuron")
        ax.set_ylabel("presynaptic neuron")
        ax.spines[["top", "right"]].set_visible(True)
        if small:
            ax.set_xticks(np.arange(len(names[1])) + 0.5, read.shortened(names[1]), rotation=90, fontsize=6.5)
            ax.set_yticks(np.arange(len(names[0])) + 0.5, read.shortened(names[0]), fontsize=6.5)
    says = f"{title}: {counts.sum():,.0f} {weight}, at most {counts.max():,.0f} in one row."
    return Picture(fig, title, about, says, rows)

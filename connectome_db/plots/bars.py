"""Rows by name as bars, and what changed from one version to another."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from matplotlib.ticker import SymmetricalLogLocator

from connectome_db.errors import QueryError
from connectome_db.plots import about as read
from connectome_db.plots.axes import grid, plain_numbers
from connectome_db.plots.distribution import label_of, numbers_in
from connectome_db.plots.picture import Picture, new_figure, style
from connectome_db.versions.compare.picture import COLOURS

MOST_BARS = 30
MOST_PANELS = 3
CHANGED = (("new", "#118833"), ("gone", "#cc2222"), ("stronger", "#4477aa"), ("weaker", "#ccbb44"))


def bars(rows: pa.Table, about: str = "") -> Picture:
    """The first column of text as names, up to three columns of numbers as bars; in the order of the rows.

    Raises QueryError without them.
    """
    read.refuse_empty(rows, "rows")
    name = next((f.name for f in rows.schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)), None)
    columns = numbers_in(rows)
    shares = [c for c in columns if c.startswith("known") or c.endswith("share")]
    shown = [*[c for c in columns if c not in shares][: MOST_PANELS - bool(shares)], *shares][:MOST_PANELS]
    if name is None or not shown:
        raise QueryError(
            f"bars need a column of text and one of numbers; these rows have {', '.join(rows.column_names)}"
        )
    top = rows.slice(0, MOST_BARS)
    names = read.shortened(read.texts(top, name), 26)
    title = f"{label_of(shown[0]).capitalize()} by {label_of(name)}"
    if rows.num_rows > MOST_BARS:
        about = " · ".join(t for t in (about, f"the first {MOST_BARS} of {rows.num_rows:,} rows") if t)
    with style():
        fig = new_figure(title, about, 1.8 + 2.5 * len(shown), 1.3 + 0.22 * len(names))
        for k, (ax, column) in enumerate(zip(fig.subplots(1, len(shown), squeeze=False)[0], shown, strict=True)):
            values = read.floats(top, column)
            ax.barh(np.arange(len(names)), np.nan_to_num(values), color=COLOURS[k % len(COLOURS)], height=0.72)
            ax.set_yticks(np.arange(len(names)), names if k == 0 else [""] * len(names), fontsize=7.5)
            ax.set_ylim(len(names) - 0.4, -0.6)
            ax.set_xlabel(label_of(column))
            if column in shares:
                ax.set_xlim(0, 1)
            ax.locator_params(axis="x", nbins=4)
            ax.xaxis.set_major_formatter(plain_numbers())
            grid(ax, "x")
    return Picture(fig, title, about, f"{title}: {rows.num_rows:,} rows, {names[0]} first.", rows)


def changes(rows: pa.Table, about: str = "") -> Picture:
    """Synapses of each connection before and after; on the line nothing changed.

    Columns: synapses_a, synapses_b, what (new, gone, stronger, weaker). Raises QueryError without them.
    """
    a, b, what = (read.need(rows, "picture of changes", c) for c in ("synapses_a", "synapses_b", "what"))
    read.refuse_empty(rows, "connections that differ")
    before, after, kind = read.floats(rows, a), read.floats(rows, b), np.asarray(read.texts(rows, what))
    title = f"{rows.num_rows:,} connections that differ"
    top = max(2.0, float(max(before.max(), after.max())) * 1.15)
    said = []
    with style():
        fig = new_figure(title, about, 5.6, 5.6)
        ax = fig.subplots()
        ax.plot([0, top], [0, top], color="#bbbbbb", lw=1)
        for name, colour in CHANGED:
            mine = kind == name
            points, times = np.unique(np.stack([before[mine], after[mine]], axis=1), axis=0, return_counts=True)
            label = f"{name} ({mine.sum():,})"
            ax.scatter(points[:, 0], points[:, 1], s=12 + 12 * np.log2(times), c=colour, alpha=0.7, lw=0, label=label)
            said.append(f"{mine.sum():,} {name}")
        ax.set_aspect("equal")
        for axis, scale, limit in ((ax.xaxis, ax.set_xscale, ax.set_xlim), (ax.yaxis, ax.set_yscale, ax.set_ylim)):
            scale("symlog", linthresh=1)
            limit(-0.3, top)
            axis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=1))
            axis.set_major_formatter(plain_numbers())
        grid(ax)
        ax.set_xlabel("synapses of a connection in a")
        ax.set_ylabel("in b")
        ax.legend(loc="upper left")
    return Picture(fig, title, about, ", ".join(said) + ".", rows if rows.num_rows <= 500 else None)

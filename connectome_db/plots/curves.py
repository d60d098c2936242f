"""Curves over a threshold, and counts in bins that grow."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from connectome_db.errors import QueryError
from connectome_db.plots import about as read
from connectome_db.plots.axes import grid, logarithmic, plain_numbers
from connectome_db.plots.distribution import label_of
from connectome_db.plots.picture import Picture, new_figure, style
from connectome_db.versions.compare.picture import COLOURS


def stability(rows: pa.Table, about: str = "") -> Picture:
    """What is left as a threshold rises: every column that ends in _share, over the first that begins with min_.

    Raises QueryError without them.
    """
    read.refuse_empty(rows, "thresholds")
    x_name = next((c for c in rows.column_names if c.startswith("min_")), None)
    shares = [c for c in rows.column_names if c.endswith("_share")]
    if x_name is None or not shares:
        raise QueryError(
            "a curve over a threshold needs a column min_… and one …_share; "
            f"these rows have {', '.join(rows.column_names)}"
        )
    x = read.floats(rows, x_name)
    title = f"What stays as {label_of(x_name).removeprefix('min ')} must be higher"
    with style():
        fig = new_figure(title, about, 6.4, 4.2)
        ax = fig.subplots()
        for k, column in enumerate(shares):
            y = 100 * read.floats(rows, column)
            ax.plot(x, y, "os^D"[k % 4] + "-", color=COLOURS[k], ms=4, lw=1.6, label=column.removesuffix("_share"))
        grid(ax)
        ax.set_ylim(0, 104)
        ax.set_xlabel(f"{label_of(x_name).removeprefix('min ')}, at least")
        ax.set_ylabel("share kept (%)")
        ax.xaxis.set_major_formatter(plain_numbers())
        ax.legend(loc="upper right")
    last = ", ".join(f"{100 * read.floats(rows, c)[-1]:.0f} % of the {c.removesuffix('_share')}" for c in shares)
    return Picture(fig, title, about, f"At {x[-1]:g}, {last} stay.", rows)


def binned(rows: pa.Table, about: str = "") -> Picture:
    """Counts in bins at_least to below, a line of steps per value of `what`; logarithmic.

    Raises QueryError without them.
    """
    low, high, count = (read.need(rows, "histogram in bins", c) for c in ("at_least", "below", "count"))
    read.refuse_empty(rows, "bins")
    kinds = read.texts(rows, "what") if "what" in rows.column_names else ["rows"] * rows.num_rows
    starts, ends, counts = (read.floats(rows, c) for c in (low, high, count))
    names = list(dict.fromkeys(kinds))
    title = "Strengths in bins that grow"
    with style():
        fig = new_figure(title, about, 3.4 * len(names) + 0.6, 3.7)
        for k, (ax, name) in enumerate(zip(fig.subplots(1, len(names), squeeze=False)[0], names, strict=True)):
            mine = np.asarray([n == name for n in kinds]) & (starts > 0)
            order = np.argsort(starts[mine], kind="stable")
            left, right, n = (v[mine][order] for v in (starts, ends, counts))
            ax.bar(left, n, width=right - left, align="edge", color=COLOURS[k % 7], edgecolor="white", lw=0.5)
            none = counts[np.asarray([n == name for n in kinds]) & (starts <= 0)].sum()
            ax.set_title(name.replace("_", " ") + (f" ({none:,.0f} with none)" if none else ""))
            logarithmic(ax, "both", ticks=6)
            grid(ax)
            ax.set_xlabel("synapses")
            ax.set_ylabel("number")
    return Picture(fig, title, about, f"{len(names)} distributions: {', '.join(names)}.", rows)

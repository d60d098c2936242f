"""What any rows can be drawn as: how the values of their numbers are distributed."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes

from connectome_db.errors import QueryError, nearest
from connectome_db.plots import about as read
from connectome_db.plots.axes import grid, logarithmic, plain_numbers
from connectome_db.plots.picture import OUT_COLOUR, Picture, new_figure, style

MOST_COLUMNS = 4
UNITS = (
    ("_per_um3", "µm⁻³"), ("_nm2", "nm²"), ("_nm3", "nm³"), ("_um2", "µm²"), ("_um3", "µm³"), ("_nm", "nm"),
    ("_um", "µm"), ("_vx", "voxels"), ("_px", "px"), ("_s", "s"), ("_deg", "°"),
)  # fmt: skip
"""Units by the end of a column's name."""


def label_of(column: str) -> str:
    """A column as the label of an axis: "size_vx" is "size (voxels)". A density is told per its unit."""
    if column.startswith("density") and column.endswith("_um3"):
        return "density (µm⁻³)"
    for end, unit in UNITS:
        if column.endswith(end) and len(column) > len(end):
            return f"{column.removesuffix(end).replace('_', ' ')} ({unit})"
    return column.replace("_", " ")


def numbers_in(rows: pa.Table) -> list[str]:
    """Columns of numbers that are not ids: uint64 names neurons, synapses and units."""
    return [
        f.name
        for f in rows.schema
        if (pa.types.is_integer(f.type) or pa.types.is_floating(f.type) or pa.types.is_decimal(f.type))
        and f.type != pa.uint64()
    ]


def distribution(rows: pa.Table, about: str = "", column: str | None = None, *, title: str = "Distribution") -> Picture:
    """Histograms of the columns of numbers, or of one `column`; logarithmic where values span decades.

    Raises QueryError when no column holds numbers that are not ids, or `column` is none of them.
    """
    read.refuse_empty(rows, "rows")
    there = numbers_in(rows)
    if column is not None and column not in there:
        raise QueryError(f"{column!r} is not a column of numbers{nearest(column, there)} Ids are not drawn")
    columns = [column] if column else [c for c in there if np.isfinite(read.floats(rows, c)).any()][:MOST_COLUMNS]
    if not columns:
        raise QueryError(
            f"nothing to draw: none of {', '.join(rows.column_names)} holds numbers (ids are names, not numbers)"
        )
    wide = 2 if len(columns) > 1 else 1
    tall = -(-len(columns) // wide)
    with style():
        fig = new_figure(title, about, 4.4 * wide + 0.4, 0.8 + 3.0 * tall)
        axes = fig.subplots(tall, wide, squeeze=False).ravel()
        said = [_histogram(ax, c, read.floats(rows, c)) for ax, c in zip(axes, columns, strict=False)]
        for ax in axes[len(columns) :]:
            ax.set_axis_off()
    return Picture(fig, title, about, "; ".join(said) + ".", rows)


def _histogram(ax: Axes, column: str, values: read.F64) -> str:
    good = values[np.isfinite(values)]
    left_out = len(values) - len(good)
    median = float(np.median(good))
    log = bool((good > 0).all()) and good.max() / good.min() > 100
    whole = bool((good == np.round(good)).all())
    if log:
        bins = np.geomspace(good.min(), good.max() * 1.0001, 31)
        # bins of whole numbers begin between two of them, or some would hold none and others two
        bins = np.unique(np.append(np.floor(bins), good.max() + 1)) - 0.5 if whole else bins
    elif whole and good.max() - good.min() < 40:
        bins = np.arange(good.min() - 0.5, good.max() + 1)
    else:
        bins = np.linspace(good.min(), good.max() if good.max() > good.min() else good.min() + 1, 31)
    ax.hist(good, bins=bins.tolist(), color=OUT_COLOUR, edgecolor="white", lw=0.4)
    ax.axvline(median, color="#1b222c", lw=1, ls="--")
    ax.set_title(f"median {median:.4g}" + (f", {left_out:,} unknown" if left_out else ""), fontsize=8.5)
    if log:
        logarithmic(ax, "x")
    else:
        ax.xaxis.set_major_formatter(plain_numbers())
    ax.yaxis.set_major_formatter(plain_numbers())
    grid(ax, "y")
    ax.set_xlabel(label_of(column))
    ax.set_ylabel("rows")
    return f"{label_of(column)}: {len(good):,} values from {good.min():.4g} to {good.max():.4g}, median {median:.4g}"

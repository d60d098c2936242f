"""Degrees and strengths: how many neurons have at least so many partners, or synapses."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes

from connectome_db.errors import QueryError
from connectome_db.plots import about as read
from connectome_db.plots.axes import grid, logarithmic
from connectome_db.plots.picture import IN_COLOUR, OUT_COLOUR, Picture, new_figure, style
from connectome_db.query.database import Database

Curve = tuple[read.F64, read.F64]
"""Values float64[K] ascending, and the share of neurons that have at least each, float64[K]."""
MARKS = {"out": ("outputs", OUT_COLOUR, "-", "o"), "in": ("inputs", IN_COLOUR, "--", "s")}
WHAT = {"partners": "degree: partners of a neuron", "synapses": "strength: synapses of a neuron"}


def degrees(source: Database | pa.Table, about: str = "") -> Picture:
    """Complementary cumulative distributions, log-log, of outputs and inputs: partners (degree), synapses (strength).

    `source` is a project, rows of `neuron`, or rows of direction, partners, neurons (and none of strength). Raises
    QueryError when there are no neurons, or not these columns.
    """
    if isinstance(source, Database):
        rows = source.rows(
            "SELECT neuron, partners_out, partners_in, synapses_out, synapses_in FROM neuron ORDER BY neuron"
        )
        about = about or read.about_of(source)
    else:
        rows = source
    read.refuse_empty(rows, "neurons")
    panels = _counted(rows) if "direction" in rows.column_names else _of_neurons(rows)
    title = "Degrees and strengths" if len(panels) > 1 else "Degrees"
    with style():
        fig = new_figure(title, about, 4.2 + 4.0 * (len(panels) - 1), 4.2)
        said = []
        for ax, (what, curves) in zip(fig.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
            said += _draw(ax, what, curves)
    return Picture(fig, title, about, "; ".join(said) + ".", rows if rows.num_rows <= 500 else None)


def _of_neurons(rows: pa.Table) -> Mapping[str, Mapping[str, read.F64]]:
    found = {
        what: {way: read.floats(rows, f"{what}_{way}") for way in MARKS if f"{what}_{way}" in rows.column_names}
        for what in WHAT
    }
    found = {what: ways for what, ways in found.items() if ways}
    if not found:
        raise QueryError(
            "a picture of degrees needs partners_out, partners_in, synapses_out or synapses_in, or rows of direction, "
            f"partners, neurons; these rows have {', '.join(rows.column_names)}"
        )
    return found


def _counted(rows: pa.Table) -> Mapping[str, Mapping[str, read.F64]]:
    """Rows of direction, value, neurons: each value as often as there are neurons with it."""
    value = read.need(rows, "picture of degrees", "partners", "degree", "synapses", "strength")
    neurons = read.need(rows, "picture of degrees", "neurons", "count")
    direction = np.asarray(read.texts(rows, "direction"))
    values, counts = read.floats(rows, value), read.floats(rows, neurons).astype(np.int64)
    ways = {way: np.repeat(values[direction == way], counts[direction == way]) for way in MARKS}
    what = "synapses" if value in {"synapses", "strength"} else "partners"
    return {what: {way: v for way, v in ways.items() if len(v)}}


def ccdf(values: read.F64) -> Curve:
    """Each value above 0, and the share of all that are at least as large."""
    x, counts = np.unique(values[np.isfinite(values)], return_counts=True)
    share = np.cumsum(counts[::-1])[::-1] / max(1, counts.sum())
    return x[x > 0], share[x > 0]


def _draw(ax: Axes, what: str, curves: Mapping[str, read.F64]) -> list[str]:
    said = []
    for way, values in curves.items():
        name, colour, line, mark = MARKS[way]
        x, share = ccdf(values)
        median = float(np.nanmedian(values))
        ax.plot(
            x, share, line, color=colour, lw=1.6, label=f"{name}: median {median:g}, largest {np.nanmax(values):,g}"
        )
        ax.plot(x[-1:], share[-1:], mark, color=colour, ms=4)
        said.append(f"{name}: a neuron has {median:g} {what} in the median, {np.nanmax(values):,g} at most")
    logarithmic(ax, "both")
    grid(ax)
    ax.set_ylim(top=1.3)
    ax.set_title(WHAT[what])
    ax.set_xlabel(f"{what}, at least")
    ax.set_ylabel("share of neurons")
    ax.legend(loc="lower left")
    return said

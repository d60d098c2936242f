"""Where the synapses are: their number per area, seen along each axis."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from connectome_db.plots import about as read
from connectome_db.plots.axes import plain_numbers
from connectome_db.plots.picture import Picture, style
from connectome_db.plots.projections import VIEWS, views

MOST_BINS = 100


def density(rows: pa.Table, about: str = "") -> Picture:
    """Three maps of synapses per µm², each through the whole depth.

    `rows`: z_nm, y_nm, x_nm of each synapse; or of the middle (as z0_nm …: the start) of each cell, with `synapses`.
    Raises QueryError without them or when none has a place.
    """
    read.refuse_empty(rows, "synapses with a place")
    columns = [read.need(rows, "density map", f"{a}_nm", f"{a}0_nm", f"{a}_um") for a in "zyx"]
    to_um = np.array([1.0 if c.endswith("_um") else 1e-3 for c in columns])
    places = np.stack([read.floats(rows, c) for c in columns], axis=1) * to_um
    weight_name = read.pick(rows, "synapses", "count")
    weight = read.floats(rows, weight_name) if weight_name else np.ones(len(places))
    good = np.isfinite(places).all(axis=1) & np.isfinite(weight)
    if not good.any():
        read.refuse_empty(rows.slice(0, 0), "synapses with a place")
    places, weight = places[good], weight[good]
    for k, column in enumerate(columns):
        if column.endswith("0_nm"):  # the start of a cell: its middle is half a cell further on
            places[:, k] += _step(places[:, k]) / 2
    edges = [_edges(places[:, k], float(weight.sum()), binned=weight_name is not None) for k in range(3)]
    low, high = (np.array([e[k] for e in edges]) for k in (0, -1))
    title = f"Density of {weight.sum():,.0f} synapses"
    maps = {}
    for name, (down, right) in VIEWS.items():
        counts, _, _ = np.histogram2d(
            places[:, down], places[:, right], bins=[edges[down], edges[right]], weights=weight
        )
        maps[name] = counts / np.outer(np.diff(edges[down]), np.diff(edges[right]))
    top = max(float(np.quantile(m[m > 0], 0.995)) for m in maps.values())
    with style():
        v = views(title, about, low, high)
        for name, (down, right) in VIEWS.items():
            ax = v.axes[name]
            image = ax.pcolormesh(
                edges[right], edges[down], np.ma.masked_less_equal(maps[name], 0), cmap="viridis", vmin=0, vmax=top,
                rasterized=True,
            )  # fmt: skip
            ax.set_facecolor("#f1f3f6")
        v.below.set_axis_on()
        bar = v.figure.colorbar(image, cax=v.below, orientation="horizontal", format=plain_numbers(), extend="max")
        bar.set_label("synapses per µm²", fontsize=8)
        bar.ax.locator_params(nbins=3)
    size = " × ".join(f"{a:.3g}" for a in high - low)
    says = f"{title} in {size} µm (z × y × x); up to {max(m.max() for m in maps.values()):.3g} per µm² in projection."
    return Picture(v.figure, title, about, says)


def _step(values: read.F64) -> float:
    """Side of the cells that `values` are places of."""
    steps = np.diff(np.unique(np.round(values, 6)))
    return float(steps.min()) if len(steps) else max(1e-3, 0.1 * float(np.abs(values).max()))


def _edges(values: read.F64, total: float, *, binned: bool) -> read.F64:
    """Edges of bins along an axis: the cells as they came, or as many as the number of synapses can fill."""
    low, high = float(values.min()), float(values.max())
    if binned:
        step = _step(values)
        factor = max(1.0, np.ceil((high - low) / step / MOST_BINS))
        step *= factor
        edges: read.F64 = low - step / 2 / factor + step * np.arange(round((high - low) / step) + 2)
        return edges
    if high <= low:
        return np.array([low - 0.5, low + 0.5])
    # about four synapses to a cell of a map, were they spread evenly
    return np.linspace(low, high, int(np.clip(np.sqrt(total / 4), 8, MOST_BINS)) + 1)

"""Three views of a volume side by side, at one scale, in µm: along z, along y and along x."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from connectome_db.plots import about as read
from connectome_db.plots.axes import plain_numbers
from connectome_db.plots.picture import new_figure

VIEWS = {"xy": (1, 2), "zy": (1, 0), "xz": (0, 2)}
"""Name -> (axis that runs down, axis that runs right) of (z, y, x)."""


LONGEST_IN = 5.0
"""Inches of the longest side."""
_LEFT_IN, _BELOW_IN, _BETWEEN_IN, _HEAD_IN, _BESIDE_IN = 0.65, 0.5, 0.75, 0.85, 1.9


@dataclass(frozen=True)
class Views:
    """A figure with its three axes, a place for a legend beside them, and one for a colour bar below."""

    figure: Figure
    axes: Mapping[str, Axes]
    beside: Axes
    below: Axes


def views(title: str, about: str, low_um: read.F64, high_um: read.F64) -> Views:
    """Empty axes for what lies between `low_um` and `high_um`, (z, y, x): a µm is as long in all three."""
    longest = max(1e-6, float((high_um - low_um).max()))
    room = 0.04 * longest
    # What is thin is given some room, or its numbers would stand on each other.
    spare = np.maximum(0.12 * longest - (high_um - low_um) - 2 * room, 0) / 2
    low, high = low_um - room - spare, high_um + room + spare
    deep, tall, wide = ((high - low) * LONGEST_IN / float((high - low).max())).tolist()
    width = _LEFT_IN + wide + _BETWEEN_IN + deep + 0.15 + _BESIDE_IN
    height = _HEAD_IN + tall + _BETWEEN_IN + deep + _BELOW_IN
    fig = new_figure(title, about, width, height, placed=True)

    def axes(left: float, bottom: float, across: float, up: float) -> Axes:
        return fig.add_axes((left / width, bottom / height, across / width, up / height))

    right = _LEFT_IN + wide + _BETWEEN_IN
    upper = _BELOW_IN + deep + _BETWEEN_IN
    placed = {
        "xy": axes(_LEFT_IN, upper, wide, tall),
        "zy": axes(right, upper, deep, tall),
        "xz": axes(_LEFT_IN, _BELOW_IN, wide, deep),
    }
    inches = {"z": deep, "y": tall, "x": wide}
    for name, (down, across) in VIEWS.items():
        ax = placed[name]
        ax.set_xlim(low[across], high[across])
        ax.set_ylim(high[down], low[down])
        ax.set_xlabel(f"{'zyx'[across]} (µm)")
        ax.set_ylabel(f"{'zyx'[down]} (µm)")
        ax.set_title(f"seen along {'zyx'[3 - down - across]}", fontsize=8.5)
        for axis, which in ((ax.xaxis, across), (ax.yaxis, down)):
            axis.set_major_locator(MaxNLocator(max(2, min(7, round(2 * inches["zyx"[which]])))))
            axis.set_major_formatter(plain_numbers())
    beside = axes(right + deep + 0.15, upper, _BESIDE_IN - 0.1, tall)
    below = axes(right, _BELOW_IN, max(deep, 1.4), 0.14)
    for ax in (beside, below):
        ax.set_axis_off()
    return Views(fig, placed, beside, below)

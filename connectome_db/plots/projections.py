"""Three views of a volume side by side, at one scale, in µm: along z, along y and along x."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from connectome_db.plots import about as read
from connectome_db.plots.axes import plain_numbers
from connectome_db.plots.picture import new_figure

VIEWS = {"xy": (1, 2), "zy": (1, 0), "xz": (0, 2)}
"""Name -> (axis that runs down, axis that runs right) of (z, y, x)."""


@dataclass(frozen=True)
class Views:
    """A figure with its three axes; the fourth place is for a legend or a colour bar."""

    figure: Figure
    axes: Mapping[str, Axes]
    spare: Axes


def views(title: str, about: str, low_um: read.F64, high_um: read.F64) -> Views:
    """Empty axes for what lies between `low_um` and `high_um`, (z, y, x): all three show a µm at the same length."""
    span = np.maximum(high_um - low_um, 1e-3 * max(1e-6, float((high_um - low_um).max())))
    room = 0.04 * float(span.max())
    low, span = low_um - room, span + 2 * room
    # A side of less than a quarter of the other would leave no room for its numbers.
    wide = np.array([span[2], max(span[0], 0.3 * span[2])])
    tall = np.array([span[1], max(span[0], 0.3 * span[1])])
    inches = 5.0 / max(wide[0], tall[0])
    fig = new_figure(title, about, float(wide.sum() * inches) + 1.9, float(tall.sum() * inches) + 1.7)
    axes = fig.subplots(2, 2, width_ratios=wide.tolist(), height_ratios=tall.tolist())
    placed = {"xy": axes[0, 0], "zy": axes[0, 1], "xz": axes[1, 0]}
    for name, (down, right) in VIEWS.items():
        ax = placed[name]
        ax.set_xlim(low[right], low[right] + span[right])
        ax.set_ylim(low[down] + span[down], low[down])
        ax.set_aspect("equal")
        ax.set_xlabel(f"{'zyx'[right]} (µm)")
        ax.set_ylabel(f"{'zyx'[down]} (µm)")
        ax.set_title(f"seen along {'zyx'[3 - down - right]}", fontsize=8.5)
        ax.locator_params(nbins=6)
        ax.xaxis.set_major_formatter(plain_numbers())
        ax.yaxis.set_major_formatter(plain_numbers())
    axes[1, 1].set_axis_off()
    return Views(fig, placed, axes[1, 1])

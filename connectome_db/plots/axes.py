"""Axes as all pictures have them: numbers written out, logarithms where counts span decades, lengths in µm."""

from __future__ import annotations

from typing import Literal

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator


def plain(value: float) -> str:
    """A number on an axis: 1,000 and 0.01, not powers of ten, as far as that is short."""
    if value == 0:
        return "0"
    if 1000 <= abs(value) < 1e12:
        return f"{value:,.0f}".replace("-", "−")
    if 1e-4 <= abs(value) < 1000:
        return f"{value:.6g}".replace("-", "−")
    return f"{value:.3g}".replace("-", "−")


def plain_numbers() -> FuncFormatter:
    """`plain` for ticks."""
    return FuncFormatter(lambda value, _: plain(value))


def logarithmic(ax: Axes, which: Literal["x", "y", "both"], ticks: int = 8) -> None:
    """Make axes logarithmic, with numbers written out at the decades, or at every second where there are many."""
    for name in "xy" if which == "both" else which:
        (ax.set_xscale if name == "x" else ax.set_yscale)("log")
        axis = ax.xaxis if name == "x" else ax.yaxis
        axis.set_major_locator(LogLocator(10, numticks=ticks))
        axis.set_major_formatter(plain_numbers())
        axis.set_minor_formatter(NullFormatter())


def colour_bar(image: ScalarMappable, ax: Axes, label: str, shrink: float = 0.6) -> None:
    """A colour bar beside `ax`, numbers written out; of a logarithmic one that spans little, also 2 and 5."""
    figure = ax.figure
    bar = figure.colorbar(image, ax=ax, shrink=shrink, aspect=26, pad=0.02, label=label, format=plain_numbers())
    if isinstance(image.norm, LogNorm) and image.norm.vmin and image.norm.vmax:
        short = image.norm.vmax / image.norm.vmin < 100
        bar.locator = LogLocator(10, subs=(1.0, 2.0, 5.0) if short else (1.0,))
        bar.minorlocator = NullLocator()
        bar.update_ticks()


def grid(ax: Axes, which: Literal["x", "y", "both"] = "both") -> None:
    """A faint grid behind what is drawn."""
    ax.grid(visible=True, axis=which, color="#e3e6eb", lw=0.7)

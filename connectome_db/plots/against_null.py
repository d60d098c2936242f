"""Statistics of a graph beside those of null models: the rich club as a curve, single numbers as rows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from connectome_db.plots import about as read
from connectome_db.plots.axes import grid, logarithmic, plain_numbers
from connectome_db.plots.motifs import null_note, null_of
from connectome_db.plots.picture import NULL_COLOUR, OUT_COLOUR, Picture, new_figure, style


def rich_club(rows: pa.Table, about: str = "") -> Picture:
    """Density among neurons of more than k partners, with the band of the null models, and their ratio below.

    Columns: degree (or k), observed; null_mean, null_sd where there are nulls; neurons (of that degree and above).
    Raises QueryError without them. Colizza et al. 2006, doi:10.1038/nphys209.
    """
    k_name = read.need(rows, "rich-club curve", "degree", "k")
    value = read.need(rows, "rich-club curve", "observed", "rich_club", "coefficient", "phi", "density")
    read.refuse_empty(rows, "degrees")
    k, phi = read.floats(rows, k_name), read.floats(rows, value)
    order = np.argsort(k, kind="stable")
    k, phi = k[order], phi[order]
    mean, sd = (v[order] for v in null_of(rows))
    has_null = bool(np.isfinite(mean).any())
    title = "Rich club"
    about = " · ".join(t for t in (about, null_note(rows)) if t)
    ratio = np.divide(phi, mean, out=np.full(len(k), np.nan), where=mean > 0)
    with style():
        fig = new_figure(title, about, 6.6, 5.6 if has_null else 4.0)
        axes = fig.subplots(1 + has_null, 1, sharex=True, squeeze=False, height_ratios=[1.5, 1][: 1 + has_null]).ravel()
        _curve(axes[0], k, phi, mean, sd, has_null)
        if has_null:
            _ratio(axes[1], k, ratio, np.divide(sd, mean, out=np.full(len(k), np.nan), where=mean > 0))
        axes[-1].set_xlabel("k: partners of a neuron")
        if k.max() > 30 * max(1.0, k[k > 0].min(initial=np.inf)):
            logarithmic(axes[-1], "x")
    says = f"Rich club from k = {k.min():g} to {k.max():g}."
    if np.isfinite(ratio).any():
        top = int(np.nanargmax(ratio))
        says = f"The density among neurons of more than {k[top]:g} partners is {ratio[top]:.3g} times the null models'."
    return Picture(fig, title, about, says, rows)


def _curve(ax: Axes, k: read.F64, phi: read.F64, mean: read.F64, sd: read.F64, has_null: bool) -> None:
    if has_null:
        wide = 2 * np.nan_to_num(sd)
        ax.fill_between(
            k, mean - wide, mean + wide, color=NULL_COLOUR, alpha=0.35, lw=0, label="null models, mean ± 2 sd"
        )
        ax.plot(k, mean, color=NULL_COLOUR, lw=1.2)
    ax.plot(k, phi, color=OUT_COLOUR, lw=1.8, label="observed")
    ax.set_ylabel("density among neurons\nof more than k partners")
    ax.set_ylim(bottom=0)
    grid(ax)
    ax.legend(loc="upper left")


def _ratio(ax: Axes, k: read.F64, ratio: read.F64, spread: read.F64) -> None:
    wide = 2 * np.nan_to_num(spread)
    ax.fill_between(k, 1 - wide, 1 + wide, color=NULL_COLOUR, alpha=0.35, lw=0)
    ax.axhline(1, color="#777777", lw=0.8)
    ax.plot(k, ratio, color=OUT_COLOUR, lw=1.8)
    ax.set_ylabel("observed / null mean")
    top = float(np.nanmax(np.where(np.isfinite(ratio), ratio, 1)))
    ax.set_ylim(0, min(max(1.5, top * 1.1), 20))
    grid(ax)


def statistics(rows: pa.Table, about: str = "") -> Picture:
    """A row per statistic: the observed value and the null models' mean ± 2 sd, each on its own axis, with z and p.

    Columns: statistic (or measure, name), observed (or value); null_mean, null_sd, z, p where there are nulls. Raises
    QueryError without them.
    """
    name = read.need(rows, "picture of statistics", "statistic", "measure", "name", "metric")
    value = read.need(rows, "picture of statistics", "observed", "value")
    read.refuse_empty(rows, "statistics")
    names, seen = read.texts(rows, name), read.floats(rows, value)
    mean, sd = null_of(rows)
    z = read.floats(rows, "z") if "z" in rows.column_names else (seen - mean) / np.where(sd > 0, sd, np.nan)
    title = "The graph" + (" and its null models" if np.isfinite(mean).any() else "")
    about = " · ".join(t for t in (about, null_note(rows)) if t)
    with style():
        fig = new_figure(title, about, 7.4, 1.25 + 0.62 * len(names))
        axes = fig.subplots(len(names), 1, squeeze=False).ravel()
        for ax, label, v, m, s, score in zip(axes, names, seen, mean, sd, z, strict=True):
            _line(ax, label, v, m, s, score)
        marks = [Line2D([], [], marker="o", color=OUT_COLOUR, lw=0, label="observed")]
        if np.isfinite(mean).any():
            marks.append(Line2D([], [], marker="d", color=NULL_COLOUR, lw=1.6, label="null models, mean ± 2 sd"))
        fig.legend(handles=marks, loc="outside lower right", ncols=2)
    said = [
        f"{n} {v:.4g}" + (f" (null {m:.4g}, z {s:.1f})" if np.isfinite(m) else "")
        for n, v, m, s in zip(names, seen, mean, z, strict=True)
    ]
    return Picture(fig, title, about, "; ".join(said) + ".", rows)


def _line(ax: Axes, label: str, value: float, mean: float, sd: float, z: float) -> None:
    told = f"{value:,.4g}"
    if np.isfinite(mean):
        ax.errorbar([mean], [0], xerr=[2 * np.nan_to_num(sd)], fmt="d", color=NULL_COLOUR, ms=5, lw=1.6, capsize=3)
        told += f"   null {mean:,.4g}" + (f"   z {z:+,.1f}".replace("-", "−") if np.isfinite(z) else "")
    ax.plot([value], [0], "o", color=OUT_COLOUR, ms=6.5)
    ends = [v for v in (value, mean - 2 * sd, mean + 2 * sd, mean) if np.isfinite(v)]
    room = 0.15 * ((max(ends) - min(ends)) or abs(value) or 1.0)
    ax.set_xlim(min(ends) - room, max(ends) + room)
    ax.set_ylim(-1, 1)
    ax.set_yticks([0], [label.replace("_", " ")], fontsize=9)
    ax.set_title(told, fontsize=8, loc="right", pad=2)
    ax.tick_params(axis="y", length=0)
    ax.tick_params(axis="x", labelsize=7)
    ax.spines["left"].set_visible(False)
    ax.locator_params(axis="x", nbins=6)
    ax.xaxis.set_major_formatter(plain_numbers())

"""Motifs with what a null model expects of them: an icon, the count, and by how much it differs."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch
from matplotlib.ticker import NullLocator, SymmetricalLogLocator

from connectome_db.plots import about as read
from connectome_db.plots.axes import grid, logarithmic, plain, plain_numbers
from connectome_db.plots.picture import NULL_COLOUR, OUT_COLOUR, Picture, new_figure, style

TRIADS = {
    "003": "", "012": "A>B", "102": "A>B,B>A", "021D": "B>A,B>C", "021U": "A>B,C>B", "021C": "A>B,B>C",
    "111D": "A>C,C>A,B>C", "111U": "A>C,C>A,C>B", "030T": "A>B,C>B,A>C", "030C": "B>A,C>B,A>C",
    "201": "A>B,B>A,A>C,C>A", "120D": "B>C,B>A,A>C,C>A", "120U": "A>B,C>B,A>C,C>A", "120C": "A>B,B>C,A>C,C>A",
    "210": "A>B,B>C,C>B,A>C,C>A", "300": "A>B,B>A,B>C,C>B,A>C,C>A",
}  # fmt: skip
"""Edges of each class of three nodes (Davis and Leinhardt 1972, names as networkx has them)."""
KNOWN = {
    "reciprocal": "A>B,B>A", "reciprocal pair": "A>B,B>A", "feed-forward loop": TRIADS["030T"],
    "feedforward loop": TRIADS["030T"], "feed_forward_loop": TRIADS["030T"], "cycle": TRIADS["030C"],
    "3-cycle": TRIADS["030C"], "three-cycle": TRIADS["030C"], "three_cycle": TRIADS["030C"], "chain": TRIADS["021C"],
    "convergence": TRIADS["021U"], "divergence": TRIADS["021D"], "reciprocal_pair": "A>B,B>A",
}  # fmt: skip
MOST = 24
_EDGE = re.compile(r"(?=\b(\w+)\s*(<?)-?>\s*(\w+))")


def motif_table(rows: pa.Table, about: str = "") -> Picture:
    """A row per motif: its drawing, how often it occurs beside what a null model gives (mean ± 2 sd), and z.

    Columns: motif (a triad's name such as 030T, or any text), observed or count; null_mean, null_sd, z where there is a
    null model; edges or pattern ("A->B, B->C") for motifs of other names. Raises QueryError when there is none.
    """
    name = read.need(rows, "motif table", "motif", "name", "triad", "pattern")
    observed = read.need(rows, "motif table", "observed", "count", "occurrences", "found", "triads", "n")
    read.refuse_empty(rows, "motifs")
    rows = rows.slice(0, MOST)
    names, counts = read.texts(rows, name), read.floats(rows, observed)
    labels = _labels(rows, names)
    told = read.pick(rows, "edges", "pattern")
    edges = read.texts(rows, told) if told else [""] * len(names)
    mean, sd = null_of(rows)
    z = read.floats(rows, "z") if "z" in rows.column_names else (counts - mean) / np.where(sd > 0, sd, np.nan)
    has_null = bool(np.isfinite(mean).any())
    title = "Motifs" + (" and what a null model expects" if has_null else "")
    note = null_note(rows)
    about = " · ".join(t for t in (about, note) if t)
    with style():
        height = 1.35 + 0.44 * len(names)
        fig = new_figure(title, about, 8.4 if has_null else 6.4, height)
        widths = [0.55, 2.6, 2.0] if has_null else [0.55, 2.6]
        axes = fig.subplots(1, len(widths), sharey=True, width_ratios=widths)
        _icons(axes[0], names, edges)
        _counts(axes[1], labels, counts, mean, sd)
        if has_null:
            _scores(axes[2], z)
    says = "; ".join(
        f"{n}: {c:,.0f}" + (f", expected {m:,.0f}, z {s:.1f}" if np.isfinite(m) else "")
        for n, c, m, s in zip(names, counts, mean, z, strict=True)
    )
    return Picture(fig, title, about, says, rows)


def null_of(rows: pa.Table) -> tuple[read.F64, read.F64]:
    """Mean and standard deviation of the null models, float64[N] each; NaN where the rows say none."""
    none = np.full(rows.num_rows, np.nan)
    mean = read.pick(rows, "null_mean", "expected")
    sd = read.pick(rows, "null_sd", "null_std")
    return read.floats(rows, mean) if mean else none, read.floats(rows, sd) if sd else none


def null_note(rows: pa.Table) -> str:
    """Which null model, how many graphs and which seed, where the rows say so."""
    told = []
    for column, words in (("null_model", "null model: {}"), ("nulls", "{} random graphs"), ("seed", "seed {}")):
        if column in rows.column_names and len(values := set(rows[column].to_pylist()) - {None}) == 1:
            told.append(words.format(values.pop()))
    return ", ".join(told)


def edges_of_motif(name: str, edges: str = "") -> list[tuple[str, str]]:
    """The edges of a motif as pairs of letters; [] when neither its name nor `edges` says them."""
    text = edges if edges != read.UNTYPED and edges else TRIADS.get(name, KNOWN.get(name.lower(), name))
    # a look-ahead, so that A -> B -> C gives both; <-> is two edges
    found = [(a, b) for a, _, b in _EDGE.findall(text)] + [(b, a) for a, both, b in _EDGE.findall(text) if both]
    return list(dict.fromkeys(found))


def _icons(ax: Axes, names: Sequence[str], edges: Sequence[str]) -> None:
    """One drawing a row: nodes on a circle, arrows from pre to post."""
    ax.set_xlim(-0.75, 0.75)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_axis_off()
    for row, (name, told) in enumerate(zip(names, edges, strict=True)):
        pairs = edges_of_motif(name, told)
        nodes = sorted({n for pair in pairs for n in pair})
        if name in TRIADS:
            nodes = ["A", "B", "C"]
        turn = np.pi / 2 + 2 * np.pi * np.arange(len(nodes)) / max(1, len(nodes))
        if len(nodes) == 2:
            turn = np.array([np.pi, 0.0])
        # y runs down the rows; a drawing is 0.68 of a row high
        at = {n: (0.55 * np.cos(t), row - 0.31 * np.sin(t)) for n, t in zip(nodes, turn, strict=True)}
        for a, b in pairs:
            ax.add_patch(
                FancyArrowPatch(
                    at[a], at[b], arrowstyle="-|>,head_width=1.6,head_length=2.6", color="#1b222c", lw=0.9,
                    shrinkA=3.5, shrinkB=3.5, connectionstyle="arc3,rad=0.18" if (b, a) in pairs else "arc3",
                )
            )  # fmt: skip
        ax.plot([x for x, _ in at.values()], [y for _, y in at.values()], "o", color=OUT_COLOUR, ms=4.5)


def _labels(rows: pa.Table, names: Sequence[str]) -> list[str]:
    """Names with what the field calls the motif, where the rows say it: "030T feed-forward loop"."""
    if "meaning" not in rows.column_names:
        return list(names)
    called = [m.split(":")[0] if ":" in m else "" for m in read.texts(rows, "meaning")]
    return [f"{n} {c}".strip() for n, c in zip(names, called, strict=True)]


def _counts(ax: Axes, labels: Sequence[str], counts: read.F64, mean: read.F64, sd: read.F64) -> None:
    at = np.arange(len(labels))
    ax.plot(counts, at, "o", color=OUT_COLOUR, ms=5.5, label="observed", zorder=3)
    if np.isfinite(mean).any():
        ax.errorbar(
            mean, at + 0.22, xerr=np.minimum(2 * np.nan_to_num(sd), np.nan_to_num(mean) * 0.999), fmt="d",
            color=NULL_COLOUR, ms=4.5, lw=1.4, capsize=2, label="null model, mean ± 2 sd",
        )  # fmt: skip
        ax.legend(loc="lower right", bbox_to_anchor=(1, 1.0), ncols=2, borderaxespad=0.2)
    if (counts > 0).all():
        logarithmic(ax, "x", ticks=5)
    else:
        ax.set_xscale("symlog", linthresh=1)
        ax.xaxis.set_major_locator(SymmetricalLogLocator(base=100, linthresh=1))
        ax.xaxis.set_major_formatter(plain_numbers())
    grid(ax, "x")
    for k, v in enumerate(counts):
        ax.annotate(f"{v:,.0f}", (v, k), (6, 3), textcoords="offset points", fontsize=7)
    ax.set_yticks(at, read.shortened(labels, 26))
    ax.tick_params(axis="y", labelleft=True, length=0)
    ax.set_xlabel("occurrences")
    low, high = ax.get_xlim()
    low = max(low, 0.3) if (counts > 0).all() else low  # a null mean near 0 would stretch the axis over decades
    ax.set_xlim(low, high * (high / max(low, 1.0)) ** 0.3)  # room for the last number


def _scores(ax: Axes, z: read.F64) -> None:
    """Standard deviations from the null mean; the axis is linear within ±2 and logarithmic beyond."""
    at = np.arange(len(z))
    ax.axvspan(-2, 2, color="#e3e6eb", lw=0)
    ax.axvline(0, color="#777777", lw=0.8)
    good = np.isfinite(z)
    colour = np.where(np.nan_to_num(z) > 2, "#228833", np.where(np.nan_to_num(z) < -2, "#aa3377", "#777777"))
    ax.hlines(at[good], 0, z[good], color=colour[good].tolist(), lw=2)
    ax.scatter(z[good], at[good], c=colour[good].tolist(), s=26, zorder=3)
    ax.set_xscale("symlog", linthresh=2)
    for k, v in zip(at[good], z[good], strict=True):
        side, align = (5, "left") if v >= 0 else (-5, "right")
        told = f"{v:+,.1f}".replace("-", "−")
        ax.annotate(told, (v, k), (side, 3.5), textcoords="offset points", fontsize=7, ha=align)
    furthest = float(np.nanmax(np.abs(z))) if good.any() else 2.0
    edge = max(6.0, furthest * max(4.0, (furthest / 2) ** 0.45))  # room for the number beside the last mark
    ax.set_xlim(-edge, edge)
    decades = (2, 10, 100) if furthest < 300 else (0, 100, 10_000) if furthest < 3e5 else (0, 1000, 1_000_000)
    ticks = sorted({s * t for t in decades if t <= edge for s in (-1, 1)})
    ax.set_xticks(ticks, [plain(t) if abs(t) < 1000 else f"{plain(t // 1000)}k" for t in ticks])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.tick_params(axis="y", length=0, labelleft=False)
    ax.set_xlabel("z: sd from the null mean")

"""What `benchmarks/segmentation.py` says of one segmentation: its row of the table, and its place on the plot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from connectome_db.kernels.metrics import adapted_rand, overlap, variation_of_information


@dataclass(frozen=True)
class Score:
    rand_all: float
    rand_covered: float
    split: float
    merge: float
    split_covered: float
    merge_covered: float
    coverage: float


@dataclass(frozen=True)
class Row:
    dataset: str
    name: str
    setting: str
    mflop: float
    network_vps: float
    total_vps: float
    score: Score


def scored(labels: np.ndarray, truth: np.ndarray) -> Score:
    everything, covered = overlap(labels, truth), overlap(labels, truth, ignore_seg=0)
    both = [variation_of_information(shared) for shared in (everything, covered)]
    return Score(
        adapted_rand(everything).error,
        adapted_rand(covered).error,
        both[0].split,
        both[0].merge,
        both[1].split,
        both[1].merge,
        float((labels[truth != 0] != 0).mean()),
    )


def tell(row: Row) -> None:
    s = row.score
    print(
        f"| {row.dataset} | {row.name} | {row.setting} | {row.mflop:.3g} | {row.network_vps / 1e3:.0f} | "
        f"{row.total_vps / 1e3:.0f} | {s.rand_all:.3f} | {s.rand_covered:.3f} | {s.split:.2f} + {s.merge:.2f} | "
        f"{s.split_covered:.2f} + {s.merge_covered:.2f} | {s.coverage:.3f} |",
        flush=True,
    )


def draw(rows: list[Row], path: Path) -> None:
    """Adapted Rand error and variation of information (all voxels) against operations per voxel and speed."""
    datasets = list(dict.fromkeys(row.dataset for row in rows))
    names = list(dict.fromkeys(row.name for row in rows))
    colours = [colormaps["tab20"](k) for k in (*range(0, 20, 2), *range(1, 20, 2))]
    figure = Figure(figsize=(16, 3.8 * len(datasets) + 0.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(datasets), 4, squeeze=False)
    for line, dataset in zip(axes, datasets, strict=True):
        for i, panel in enumerate(line):
            for row in (r for r in rows if r.dataset == dataset):
                x = row.mflop if i < 2 else row.total_vps / 1e3
                y = row.score.rand_all if i % 2 == 0 else row.score.split + row.score.merge
                colour = colours[names.index(row.name) % len(colours)]
                default, chosen = row.setting == "default", "chosen" in row.setting
                panel.plot(
                    x, y, "o", color=colour, markerfacecolor="white" if default else colour, markersize=8,
                    label=row.name + (", default" if default else ", chosen on training part" if chosen else ""),
                )  # fmt: skip
            panel.set(
                xscale="log",
                ylim=(0, None),
                title=dataset,
                xlabel="MFLOP per voxel" if i < 2 else "10³ voxels per CPU second, all stages",
                ylabel="adapted Rand error" if i % 2 == 0 else "variation of information (bits)",
            )
            panel.xaxis.set_minor_formatter(NullFormatter())  # numbers between the powers of ten run into each other
            panel.grid(alpha=0.3)
    handles = {}
    for panel in axes[:, 0]:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, fontsize=8)
    figure.savefig(path, dpi=110, metadata={"Software": None})

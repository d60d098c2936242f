"""What a training of a flood-filling network leaves beside its weights: scores as a table, and a picture."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from connectome_db.networks.training import CURVE

VALIDATIONS = "validation.csv"
Validation = dict[str, float]
"""Scores by name; `step` is added where they are kept."""


def read_validations(folder: Path, steps: int) -> list[Validation]:
    """Scores of the first `steps` steps, of a training that was interrupted."""
    path = folder / VALIDATIONS
    if steps == 0 or not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as handle:
        rows = [{name: _number(text) for name, text in row.items()} for row in csv.DictReader(handle)]
    return [row for row in rows if row["step"] <= steps]


def _number(text: str) -> float:
    return int(text) if text.isdecimal() else float(text)


def write_validations(folder: Path, scores: Sequence[Validation]) -> None:
    """Write validation.csv: a row per validation."""
    with (folder / VALIDATIONS).open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, list(scores[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(scores)


def write_pictures(folder: Path, history: Sequence[float], scores: Sequence[Validation]) -> None:
    """Write loss.png: the loss over the steps and, where there are scores, adapted Rand error and coverage."""
    figure = Figure(figsize=(6, 5.5 if scores else 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2 if scores else 1, 1, sharex=True, squeeze=False)[:, 0]
    span = max(1, len(history) // 400)
    steps = list(range(span, len(history) + 1, span))
    losses = [float(np.mean(history[step - span : step])) for step in steps]
    panels[0].plot(steps, losses, linewidth=0.8, color="#9ab")
    window = max(1, len(losses) // 20)
    smooth = np.convolve(losses, np.ones(window) / window, mode="valid")
    panels[0].plot(steps[window - 1 :], smooth, linewidth=1.6, color="#124")
    panels[0].set(ylabel="loss", title=folder.name, yscale="log")
    if scores:
        at = [score["step"] for score in scores]
        for name in (name for name in scores[0] if name.startswith(("adapted_rand", "coverage"))):
            panels[1].plot(at, [score[name] for score in scores], "o-", markersize=3, label=name.replace("_", " "))
        panels[1].set(ylim=(0, 1), ylabel="held-out data")
        panels[1].legend(fontsize="small")
    panels[-1].set(xlabel="step")
    figure.savefig(folder / CURVE, dpi=90, metadata={"Software": None})

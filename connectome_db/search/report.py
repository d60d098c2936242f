"""What came of a search: a table of its trials, and a picture of the score against every parameter."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from connectome_db.plots.picture import NULL_COLOUR, OUT_COLOUR, Picture, new_figure, style
from connectome_db.search.folder import Search
from connectome_db.search.loop import Trial, best
from connectome_db.search.spec import Choices, is_whole

BEST_COLOUR = "#cc3311"
PANELS_PER_ROW = 3


def table(search: Search, trials: Sequence[Trial]) -> pa.Table:
    """One row per trial: number, varied parameters, score, model ID, experiment, seconds, and what is to be noted."""
    top = best(search.task, list(trials))
    columns: dict[str, list[object]] = {"trial": [t.number for t in trials]}
    for name in search.spec.vary:
        columns[name] = [(t.parameters or {}).get(name) for t in trials]
        if len({type(v) for v in columns[name]}) > 1:
            columns[name] = [str(v) for v in columns[name]]
    columns[search.task.metric] = [t.score for t in trials]
    columns["model"] = [t.model_id for t in trials]
    columns["experiment"] = [t.experiment for t in trials]
    columns["seconds"] = [round(t.seconds, 1) for t in trials]
    columns["note"] = [_note(t, top) for t in trials]
    return pa.table(columns)


def _note(trial: Trial, top: Trial | None) -> str:
    notes = ["best"] if top is not None and trial.number == top.number else []
    notes += [] if trial.same_as is None else [f"equals trial {trial.same_as}, not trained again"]
    notes += [] if trial.failed is None else [f"failed: {trial.failed.splitlines()[0]}"]
    return "; ".join(notes)


def picture(search: Search, trials: Sequence[Trial]) -> Picture:
    """Score against each parameter, and the best score so far over the trials; failed trials are marks at the edge."""
    task, names = search.task, list(search.spec.vary)
    top = best(task, list(trials))
    panels = len(names) + 1
    columns = min(PANELS_PER_ROW, panels)
    rows = -(-panels // columns)
    about = f"{task.name} on {_short(search.spec.data)} · {len(trials)} trials · seed {search.spec.seed}"
    says = f"{task.metric} of {len(trials)} trials against {', '.join(names)}"
    if top is not None:
        says += f"; best {top.score:.4g}, trial {top.number}"
    with style():
        figure = new_figure(f"Search {search.name}", about, 3.1 * columns, 2.5 * rows + 0.5)
        grid = figure.subplots(rows, columns, squeeze=False)
        axes = list(grid.ravel())
        _progress(axes[0], search, trials, top)
        for name, panel in zip(names, axes[1:panels], strict=True):
            _against(panel, search, trials, name, top)
        for row in grid:
            row[0].set_ylabel(f"{task.metric.replace('_', ' ')} ({'less' if task.minimise else 'more'} is better)")
        for unused in axes[panels:]:
            unused.set_axis_off()
    return Picture(figure, f"Search {search.name}", about, says, table(search, trials))


def _short(data: str) -> str:
    kind, _, folders = data.partition("=")
    names = ", ".join(dict.fromkeys(f.rstrip("/").rpartition("/")[2] for f in folders.split(",") if f))
    return kind if names in ("", kind) else f"{kind} {names}"


def _progress(axes: Axes, search: Search, trials: Sequence[Trial], top: Trial | None) -> None:
    scores = np.array([np.nan if t.score is None else t.score for t in trials], np.float64)
    at = np.array([t.number for t in trials])
    better = np.fmin if search.task.minimise else np.fmax
    axes.plot(at, scores, "o", color=OUT_COLOUR, markersize=4, label="trial")
    axes.step(at, better.accumulate(scores), where="post", color=BEST_COLOUR, linewidth=1.2, label="best so far")
    _failures(axes, at[np.isnan(scores)].tolist())
    _mark(axes, None if top is None else (top.number, top.score))
    axes.set(xlabel="trial", title="over the trials")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()


def _against(axes: Axes, search: Search, trials: Sequence[Trial], name: str, top: Trial | None) -> None:
    given = search.spec.vary[name]
    levels = [str(c) for c in given.choices] if isinstance(given, Choices) else []

    def place(trial: Trial) -> float:
        value = (trial.parameters or {})[name]
        return float(levels.index(str(value))) if levels else float(value)

    scored = [t for t in trials if t.score is not None]
    axes.plot(
        [place(t) for t in scored], [t.score or 0.0 for t in scored], "o", color=OUT_COLOUR, markersize=4, alpha=0.8
    )
    _failures(axes, [place(t) for t in trials if t.score is None])
    _mark(axes, None if top is None else (place(top), top.score))
    if levels:
        axes.set_xticks(range(len(levels)), levels)
        axes.set_xlim(-0.5, len(levels) - 0.5)
    elif not isinstance(given, Choices) and given.log:
        axes.set_xscale("log")
        numbers = FuncFormatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_major_formatter(numbers)
        if given.high / given.low < 30:  # hardly a decade in it
            axes.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))
            axes.xaxis.set_minor_formatter(numbers)
        else:
            axes.xaxis.set_minor_formatter(NullFormatter())
    elif is_whole(search.task, name):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel=name, title=f"against {name}")


def _failures(axes: Axes, places: Sequence[float]) -> None:
    if places:
        axes.plot(places, np.full(len(places), 0.97), "x", color=NULL_COLOUR, transform=axes.get_xaxis_transform(),
                  label="failed")  # fmt: skip


def _mark(axes: Axes, at: tuple[float, float | None] | None) -> None:
    if at is not None:
        axes.plot([at[0]], [at[1] or 0.0], "o", markerfacecolor="none", color=BEST_COLOUR, markersize=9)

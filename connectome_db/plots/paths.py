"""Paths in layers: who is reached in one step, in two, in three, and over which connections."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch
from matplotlib.patheffects import withStroke

from connectome_db.errors import QueryError
from connectome_db.plots import about as read
from connectome_db.plots.picture import IN_COLOUR, OUT_COLOUR, Picture, new_figure, style
from connectome_db.query.database import Database

MOST_IN_LAYER = 14
NO_SYNAPSES = -1


def paths(
    rows: pa.Table,
    about: str = "",
    *,
    names: Mapping[int, str] | None = None,
    title: str = "Paths",
    start: int | None = None,
    end: int | None = None,
) -> Picture:
    """Neurons in columns by the number of steps, arrows as wide as the logarithm of their synapses.

    `rows`: a row per connection (pre, post; synapses), a row per neuron of a path (step, neuron; path where there are
    several; synapses of the connection that leads to it), or a path each as text ("1 > 2 > 3"). In a layer the neurons
    with the most synapses are kept, and `start` and `end` always; `end` stands in a column of its own. Raises
    QueryError for other columns, or no rows.
    """
    read.refuse_empty(rows, "paths")
    edges = _edges(rows)
    layer = _layers(edges, start)
    if end in layer:
        layer[end] = max([layer[end], *(k + 1 for n, k in layer.items() if n != end)])
    kept = _kept(edges, layer, {start, end})
    if end is not None:
        kept = _leading(edges, kept, {start, end})
    left_out = len(layer) - len(kept)
    edges = {pair: v for pair, v in edges.items() if pair[0] in kept and pair[1] in kept}
    columns: dict[int, list[int]] = {}
    for n in kept:
        columns.setdefault(layer[n], []).append(n)
    place = _places(columns, edges)
    told = f"{left_out} weaker neurons left out" if left_out else ""
    about = " · ".join(t for t in (about, told) if t)
    tallest = max(len(c) for c in columns.values())
    with style():
        fig = new_figure(title, about, 1.8 + 2.1 * len(columns), max(3.2, 1.5 + 0.42 * tallest))
        _draw(fig.subplots(), place, edges, names or {})
    says = f"{len(kept)} neurons in {len(columns)} layers, {len(edges)} connections."
    return Picture(fig, title, about, says, rows if rows.num_rows <= 500 else None)


def _edges(rows: pa.Table) -> dict[tuple[int, int], int]:
    """(pre, post) -> synapses; NO_SYNAPSES where the rows do not say."""
    weight = read.pick(rows, "synapses", "weight")
    if {"pre", "post"} <= set(rows.column_names):
        synapses = rows[weight].to_pylist() if weight else [NO_SYNAPSES] * rows.num_rows
        return {
            (a, b): NO_SYNAPSES if s is None else int(s)
            for a, b, s in zip(rows["pre"].to_pylist(), rows["post"].to_pylist(), synapses, strict=True)
            if a is not None and b is not None
        }
    if "path" in rows.column_names and pa.types.is_string(rows.schema.field("path").type):
        return _written_out(rows)
    step = read.need(rows, "diagram of paths", "step", "steps", "hop", "position")
    neuron = read.need(rows, "diagram of paths", "neuron")
    path = read.pick(rows, "path", "rank", "path_number")
    ordered = sorted(
        zip(
            rows[path].to_pylist() if path else [0] * rows.num_rows,
            rows[step].to_pylist(),
            rows[neuron].to_pylist(),
            rows[weight].to_pylist() if weight else [NO_SYNAPSES] * rows.num_rows,
            strict=True,
        ),
        key=lambda r: r[:2],
    )
    found = {}
    for (p, _, a, _), (q, _, b, synapses) in itertools.pairwise(ordered):
        if p == q:
            found[(a, b)] = NO_SYNAPSES if synapses is None else int(synapses)
    if not found:
        raise QueryError("nothing to draw: no path has two neurons")
    return found


def _written_out(rows: pa.Table) -> dict[tuple[int, int], int]:
    """Connections of paths as texts, "1 > 2 > 3"."""
    chains = [text.split(">") for text in read.texts(rows, "path")]
    try:
        return {(int(a), int(b)): NO_SYNAPSES for chain in chains for a, b in itertools.pairwise(chain)}
    except ValueError:
        raise QueryError(f"wanted paths as ids with > between, got {rows['path'][0]}") from None


def _layers(edges: Mapping[tuple[int, int], int], first: int | None) -> dict[int, int]:
    """Fewest steps to each neuron from `first`; without it from those that nothing leads to, or the first row's."""
    into = {b for _, b in edges}
    start = {first} if first is not None else {a for a, _ in edges} - into or {next(iter(edges))[0]}
    out: dict[int, list[int]] = {}
    for a, b in edges:
        out.setdefault(a, []).append(b)
    layer = dict.fromkeys(start, 0)
    front = sorted(start)
    while front:
        ahead = sorted({b for a in front for b in out.get(a, []) if b not in layer})
        step = layer[front[0]] + 1
        layer |= dict.fromkeys(ahead, step)
        front = ahead
    return layer


def _kept(edges: Mapping[tuple[int, int], int], layer: Mapping[int, int], ends: set[int | None]) -> list[int]:
    """The strongest neurons of each layer, and `ends`."""
    strength = dict.fromkeys(layer, 0)
    for (a, b), synapses in edges.items():
        for n in (a, b):
            if n in strength:
                strength[n] += max(1, synapses)
    by_layer: dict[int, list[int]] = {}
    for n in sorted(layer, key=lambda n: (n not in ends, -strength[n], n)):
        by_layer.setdefault(layer[n], []).append(n)
    return [n for members in by_layer.values() for n in members[:MOST_IN_LAYER]]


def _leading(edges: Mapping[tuple[int, int], int], kept: list[int], ends: set[int | None]) -> list[int]:
    """Without neurons that no longer lie between the ends, since those before or after them were left out."""
    while True:
        inside = [(a, b) for a, b in edges if a in kept and b in kept]
        out, into = {a for a, _ in inside}, {b for _, b in inside}
        good = [n for n in kept if n in ends or (n in out and n in into)]
        if len(good) == len(kept):
            return kept
        kept = good


def _places(columns: Mapping[int, list[int]], edges: Mapping[tuple[int, int], int]) -> dict[int, tuple[float, float]]:
    """(step, row) of each neuron; in a column near those that lead to it, so that arrows cross less."""
    place: dict[int, tuple[float, float]] = {}
    for step in sorted(columns):
        before: dict[int, list[float]] = {}
        for a, b in edges:
            if a in place:
                before.setdefault(b, []).append(place[a][1])
        middle = {n: float(np.mean(before.get(n, [0.0]))) for n in columns[step]}
        members = [n for _, n in sorted((at, n) for n, at in middle.items())]
        for k, n in enumerate(members):
            place[n] = (float(step), k - (len(members) - 1) / 2)
    return place


_HALO = [withStroke(linewidth=2.2, foreground="white")]


def _draw(
    ax: Axes, place: Mapping[int, tuple[float, float]], edges: Mapping[tuple[int, int], int], names: Mapping[int, str]
) -> None:
    ax.set_axis_off()
    xs, ys = zip(*place.values(), strict=True)
    ax.set_xlim(min(xs) - 0.35, max(xs) + 0.75)
    ax.set_ylim(max(ys) + 0.6, min(ys) - 1.0)
    for (a, b), synapses in sorted(edges.items(), key=lambda e: e[1]):
        ahead = place[b][0] > place[a][0]
        bent = "arc3" if ahead else "arc3,rad=0.3"
        width = 0.7 if synapses < 1 else 0.5 + 0.8 * np.log10(synapses + 1)
        ax.add_patch(
            FancyArrowPatch(
                place[a], place[b], arrowstyle="-|>,head_width=2,head_length=3.5", lw=width, shrinkA=6, shrinkB=6,
                color=OUT_COLOUR if ahead else IN_COLOUR, alpha=0.75, connectionstyle=bent,
            )
        )  # fmt: skip
        if synapses >= 1 and len(edges) <= 24:
            x, y = (np.asarray(place[a]) * 0.55 + np.asarray(place[b]) * 0.45).tolist()
            box = {"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.8}
            ax.text(x, y, f"{synapses:,}", fontsize=6.5, ha="center", va="center", bbox=box)
    ax.plot(xs, ys, "o", color="#173f7a", ms=7, zorder=3)
    for n, (x, y) in place.items():
        label = read.shortened([names.get(n) or str(n)], 20)[0]
        ax.annotate(label, (x, y), (0, 6), textcoords="offset points", fontsize=7, ha="center", path_effects=_HALO)
    for step in sorted({int(x) for x in xs}):
        word = "start" if step == 0 else f"{step} step{'s' if step > 1 else ''}"
        ax.text(step, min(ys) - 0.95, word, ha="center", va="top", fontsize=8.5, color="#525d6d")


def between(db: Database, source: int, target: int | None, steps: int, min_synapses: int = 1) -> pa.Table:
    """Connections that lead from `source` in at most `steps`: to `target`, or (None) to anybody, each by fewest steps.

    Columns pre, post, synapses. To anybody, from each layer the neurons that get the most synapses go on. Raises
    QueryError when there is none.
    """
    ahead = _reached(db, source, steps, min_synapses, forward=True, most=None if target is not None else MOST_IN_LAYER)
    if target is None:
        found = pa.concat_tables(ahead.values()) if ahead else None
    else:
        back = _reached(db, target, steps, min_synapses, forward=False, most=None)
        found = _through(ahead, back, source, target, steps)
    if found is None or found.num_rows == 0:
        to = f"from {source} to {target}" if target is not None else f"from {source}"
        raise QueryError(f"no path {to} in {steps} steps over connections of at least {min_synapses} synapses")
    return found


def _reached(
    db: Database, start: int, steps: int, min_synapses: int, *, forward: bool, most: int | None
) -> dict[int, pa.Table]:
    """Step -> connections from neurons first reached a step before; walked against the arrows when not `forward`."""
    near, far = ("pre", "post") if forward else ("post", "pre")
    seen, front, found = {start}, [start], {}
    for step in range(1, steps + 1):
        rows = db.rows(
            f"SELECT pre, post, synapses FROM connection WHERE list_contains($front::UBIGINT[], {near}) "
            "AND synapses >= $least ORDER BY synapses DESC, pre, post",
            {"front": front, "least": min_synapses},
        )
        if most is not None:
            rows = _strongest(rows, far, seen, most)
        if rows.num_rows == 0:
            break
        found[step] = rows
        front = [n for n in dict.fromkeys(rows[far].to_pylist()) if n not in seen]
        seen.update(front)
        if not front:
            break
    return found


def _strongest(rows: pa.Table, far: str, seen: set[int], most: int) -> pa.Table:
    """Rows that lead to the `most` new neurons which get the most synapses."""
    total: dict[int, int] = {}
    for n, synapses in zip(rows[far].to_pylist(), rows["synapses"].to_pylist(), strict=True):
        if n not in seen:
            total[n] = total.get(n, 0) + synapses
    chosen = set(sorted(total, key=lambda n: (-total[n], n))[:most])
    return rows.filter(pa.array([n in chosen for n in rows[far].to_pylist()], pa.bool_()))


def _through(
    ahead: Mapping[int, pa.Table], back: Mapping[int, pa.Table], source: int, target: int, steps: int
) -> pa.Table | None:
    """Connections on a path of at most `steps` from `source` to `target`."""
    distance = [_distances(source, ahead, "post"), _distances(target, back, "pre")]
    rows = [r for table in ahead.values() for r in table.to_pylist()]
    good = [
        r
        for r in rows
        if distance[0].get(r["pre"], steps + 1) + 1 + distance[1].get(r["post"], steps + 1) <= steps
        and r["pre"] != target
        and r["post"] != source
    ]
    schema = next(iter(ahead.values())).schema if ahead else None
    return pa.Table.from_pylist(good, schema=schema) if good else None


def _distances(start: int, found: Mapping[int, pa.Table], far: str) -> dict[int, int]:
    out = {start: 0}
    for step, rows in sorted(found.items()):
        for n in rows[far].to_pylist():
            out.setdefault(n, step)
    return out


def names_in(db: Database, rows: pa.Table, columns: Sequence[str] = ("pre", "post", "neuron")) -> Mapping[int, str]:
    """What to call the neurons that `rows` name."""
    found = {n for c in columns if c in rows.column_names for n in rows[c].to_pylist() if n is not None}
    return read.names_of(db, sorted(found))

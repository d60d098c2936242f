"""Numbers about the whole graph: degrees, reciprocity, clustering, path lengths, small-worldness."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from connectome_db.errors import QueryError
from connectome_db.kernels.hops import hop_counts
from connectome_db.kernels.triads import neighbours
from connectome_db.query.graph import nulls
from connectome_db.query.graph.nulls import Nulls
from connectome_db.query.graph.wiring import I64, Wiring

SOURCES = 256
"""Neurons from which path lengths are measured; all of them in a smaller graph."""


def degrees(wiring: Wiring) -> pa.Table:
    """Per neuron: neuron, partners_out, partners_in, synapses_out, synapses_in of the connections that are kept."""

    def count(ends: np.typing.NDArray[np.int32], weight: I64 | None) -> I64:
        return np.rint(np.bincount(ends, weight, wiring.size)).astype(np.int64)

    return pa.table(
        {
            "neuron": wiring.neurons,
            "partners_out": count(wiring.pre, None),
            "partners_in": count(wiring.post, None),
            "synapses_out": count(wiring.pre, wiring.synapses),
            "synapses_in": count(wiring.post, wiring.synapses),
        }
    )


def distribution(wiring: Wiring, column: str) -> pa.Table:
    """How many neurons have each value of a column of `degrees`: value, neurons. Raises QueryError."""
    table = degrees(wiring)
    if column not in table.column_names[1:]:
        raise QueryError(f"no {column!r} among {', '.join(table.column_names[1:])}")
    values, counts = np.unique(table[column].to_numpy(), return_counts=True)
    return pa.table({"value": values.astype(np.int64), "neurons": counts.astype(np.int64)})


def reciprocity(wiring: Wiring) -> float:
    """Share of connections whose reverse is there too; NaN without connections."""
    apart = wiring.simple()
    forth = apart.pre.astype(np.int64) * wiring.size + apart.post
    back = apart.post.astype(np.int64) * wiring.size + apart.pre
    return float(np.isin(forth, back).mean()) if len(forth) else float("nan")


def clustering(wiring: Wiring) -> float:
    """Mean over neurons with two partners or more of the share of pairs of partners that are joined, undirected.

    Watts & Strogatz 1998, 10.1038/30918.
    """
    both = _undirected(wiring)
    closed = np.asarray((both @ both).multiply(both).sum(axis=1)).ravel()
    k = np.diff(both.indptr).astype(np.int64)
    many = k > 1
    return float((closed[many] / (k[many] * (k[many] - 1))).mean()) if many.any() else float("nan")


def _undirected(wiring: Wiring) -> csr_array:
    apart = wiring.simple()
    ones = apart.csr(weighted=False)
    both = csr_array(ones + ones.T)
    both.data[:] = 1
    return both


def path_length(wiring: Wiring, *, seed: int = 0, sources: int = SOURCES) -> float:
    """Mean number of steps between two neurons that a path joins, whatever its directions; NaN without connections.

    Measured from `sources` neurons drawn with `seed`, to all others.
    """
    start, neighbour, _ = neighbours(wiring.pre, wiring.post, wiring.size)
    joined = np.flatnonzero(np.diff(start))
    if len(joined) == 0:
        return float("nan")
    if len(joined) > sources:
        joined = np.sort(np.random.default_rng(seed).choice(joined, sources, replace=False))
    counts = hop_counts(start, neighbour, joined)
    steps = np.arange(len(counts))
    return float((counts * steps).sum() / counts[1:].sum())


def summary(wiring: Wiring, *, seed: int = 0) -> pa.Table:
    """What the graph is, in numbers: measure, value, unit, meaning."""
    apart = wiring.simple()
    out, into = np.bincount(apart.pre, minlength=wiring.size), np.bincount(apart.post, minlength=wiring.size)
    n, edges = wiring.size, len(wiring.pre)
    pairs = n * (n - 1)
    weak, strong = _components(wiring)
    rows: list[tuple[str, float, str, str]] = [
        ("neurons", n, "", "neurons, those without a connection among them"),
        ("connections", edges, "", f"ordered pairs with at least {wiring.min_synapses} synapses"),
        ("synapses", float(wiring.synapses.sum()), "", "synapses of these connections"),
        ("self_connections", edges - len(apart.pre), "", "connections of a neuron to itself"),
        ("unconnected", float(np.count_nonzero((out + into) == 0)), "", "neurons without a connection to another"),
        ("density", len(apart.pre) / pairs if pairs else float("nan"), "", "share of ordered pairs that are connected"),
        ("partners_out_median", float(np.median(out)) if n else float("nan"), "", "median number of targets"),
        ("partners_out_max", float(out.max(initial=0)), "", "largest number of targets"),
        ("partners_in_median", float(np.median(into)) if n else float("nan"), "", "median number of sources"),
        ("partners_in_max", float(into.max(initial=0)), "", "largest number of sources"),
        ("reciprocity", reciprocity(wiring), "", "share of connections whose reverse is there too"),
        ("clustering", clustering(wiring), "", "mean clustering, undirected"),
        (
            "path_length",
            path_length(wiring, seed=seed),
            "steps",
            f"mean path, undirected, from up to {SOURCES} neurons",
        ),
        ("weak_component", weak, "", "neurons of the largest part that hangs together"),
        ("strong_component", strong, "", "neurons of the largest part in which each reaches each"),
    ]
    names = ("measure", "value", "unit", "meaning")
    return pa.table({name: [r[k] for r in rows] for k, name in enumerate(names)})


def _components(wiring: Wiring) -> tuple[int, int]:
    if wiring.size == 0:
        return 0, 0
    graph = wiring.csr(weighted=False)
    kinds = (connected_components(graph, connection=c)[1] for c in ("weak", "strong"))
    weak, strong = (int(np.bincount(labels).max()) for labels in kinds)
    return weak, strong


def small_world(wiring: Wiring, chance: Nulls) -> pa.Table:
    """Clustering, path length, reciprocity and sigma against random graphs: measure and the columns of `nulls.table`.

    sigma = (C / mean C of the random graphs) / (L / mean L): above 1 when it is clustered like a lattice and short like
    a random graph (Humphries & Gurney 2008, 10.1371/journal.pone.0002051). Connections count without direction.
    """
    names = ("clustering", "path_length", "reciprocity")

    def measure(graph: Wiring) -> dict[str, float]:
        found = (clustering(graph), path_length(graph, seed=chance.seed), reciprocity(graph))
        return dict(zip(names, found, strict=True))

    observed, drawn = nulls.compare(wiring.simple(), measure, chance)
    middle = {n: float(v.mean()) if len(v) else float("nan") for n, v in drawn.items()}

    def sigma(c: float, steps: float) -> float:
        return (c / middle["clustering"]) / (steps / middle["path_length"]) if middle["clustering"] else float("nan")

    chances = np.array([sigma(c, s) for c, s in zip(drawn["clustering"], drawn["path_length"], strict=True)])
    values = [*(observed[n] for n in names), sigma(observed["clustering"], observed["path_length"])]
    return nulls.table("measure", [*names, "sigma"], values, [*(drawn[n] for n in names), chances], chance)

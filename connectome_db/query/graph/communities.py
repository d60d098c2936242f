"""Communities: groups of neurons that are wired to each other more than their numbers of synapses let expect."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pyarrow as pa
from scipy.sparse import csr_array, triu

from connectome_db.errors import QueryError, nearest
from connectome_db.query.graph import nulls
from connectome_db.query.graph.igraphs import leiden
from connectome_db.query.graph.nulls import Nulls
from connectome_db.query.graph.wiring import I64, Wiring

METHODS = ("louvain", "leiden")


def communities(wiring: Wiring, *, method: str = "louvain", resolution: float = 1.0, seed: int = 0) -> pa.Table:
    """Per neuron: neuron, community (0 is the largest), members, method, resolution, seed.

    Synapses in both directions count together. `louvain` is networkx's (Blondel et al. 2008,
    10.1088/1742-5468/2008/10/P10008); `leiden` is igraph's, optional and much faster. Neurons without connections are
    communities of their own. Raises QueryError for another method.
    """
    label = _find(wiring, method, resolution, seed)
    sizes = np.bincount(label)
    return pa.table(
        {
            "neuron": wiring.neurons,
            "community": label,
            "members": sizes[label].astype(np.int64),
            "method": [method] * wiring.size,
            "resolution": [float(resolution)] * wiring.size,
            "seed": pa.array([seed] * wiring.size, pa.int64()),
        }
    )


def describe(wiring: Wiring, found: pa.Table) -> pa.Table:
    """Per community: neurons, connections and synapses inside, synapses out of it and into it, share inside."""
    label = found["community"].to_numpy()
    n = int(label.max()) + 1 if len(label) else 0
    a, b = label[wiring.pre], label[wiring.post]
    inside = a == b

    def total(at: I64, weight: I64 | None) -> I64:
        return np.rint(np.bincount(at, weight, n)).astype(np.int64)

    within = total(a[inside], wiring.synapses[inside])
    out, into = (total(side[~inside], wiring.synapses[~inside]) for side in (a, b))
    everything = within + out + into
    return pa.table(
        {
            "community": np.arange(n, dtype=np.int64),
            "neurons": np.bincount(label, minlength=n).astype(np.int64),
            "connections_inside": total(a[inside], None),
            "synapses_inside": within,
            "synapses_out": out,
            "synapses_in": into,
            "share_inside": within / np.maximum(everything, 1),
        }
    )


def modularity_against_chance(
    wiring: Wiring, chance: Nulls, *, method: str = "louvain", resolution: float = 1.0
) -> pa.Table:
    """The modularity that `communities` reaches, in the graph and in random ones, which are cut anew each."""

    def measure(graph: Wiring) -> dict[str, float]:
        label = _find(graph, method, resolution, chance.seed)
        return {"modularity": modularity(graph, label, resolution), "communities": float(label.max(initial=-1) + 1)}

    observed, drawn = nulls.compare(wiring.simple(), measure, chance)
    return nulls.table("measure", list(observed), list(observed.values()), list(drawn.values()), chance)


def modularity(wiring: Wiring, label: I64, resolution: float = 1.0) -> float:
    """Share of synapses inside communities less what is expected (Newman 2004); NaN without synapses."""
    total = float(wiring.synapses.sum())
    if total == 0:
        return float("nan")
    inside = float(wiring.synapses[label[wiring.pre] == label[wiring.post]].sum())
    strength = sum(
        np.bincount(label[side], wiring.synapses, int(label.max()) + 1) for side in (wiring.pre, wiring.post)
    )
    return inside / total - resolution * float(((np.asarray(strength) / (2 * total)) ** 2).sum())


def _find(wiring: Wiring, method: str, resolution: float, seed: int) -> I64:
    """Community of each neuron, 0 the largest; of equal ones, that of the lowest id comes first."""
    if method not in METHODS:
        raise QueryError(f"unknown method {method!r}{nearest(method, METHODS)}")
    weights = wiring.csr()
    upper = triu(csr_array(weights + weights.T), format="coo")
    a, b, weight = upper.row.astype(np.int64), upper.col.astype(np.int64), upper.data
    if method == "leiden":
        label = leiden(a, b, weight, wiring.size, resolution=resolution, seed=seed)
    else:
        graph = nx.Graph()
        graph.add_nodes_from(range(wiring.size))
        graph.add_weighted_edges_from(zip(a.tolist(), b.tolist(), weight.tolist(), strict=True))
        label = np.zeros(wiring.size, np.int64)
        parts = nx.community.louvain_communities(graph, weight="weight", resolution=resolution, seed=seed)
        for k, members in enumerate(parts):
            label[list(members)] = k
    return _by_size(label)


def _by_size(label: I64) -> I64:
    if len(label) == 0:
        return label
    _, first, again, sizes = np.unique(label, return_index=True, return_inverse=True, return_counts=True)
    place = np.empty(len(first), np.int64)
    place[np.lexsort((first, -sizes))] = np.arange(len(first))
    return np.asarray(place[again.ravel()], dtype=np.int64)

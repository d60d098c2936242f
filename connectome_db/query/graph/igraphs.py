"""The one door to igraph, which is GPL and optional: `pip install connectome-db[igraph]`."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from connectome_db.errors import QueryError
from connectome_db.query.graph.wiring import I64, Wiring


def _igraph() -> Any:
    try:
        return importlib.import_module("igraph")
    except ImportError:
        raise QueryError("igraph is not installed: pip install 'connectome-db[igraph]'") from None


def as_igraph(wiring: Wiring) -> Any:
    """A directed igraph.Graph: vertex attribute `neuron` (the id as text), edge attribute `synapses`.

    igraph keeps numbers as float64, which would round ids: hence text. Vertex k is `wiring.neurons[k]`.
    """
    graph = _igraph().Graph(n=wiring.size, edges=np.stack([wiring.pre, wiring.post], axis=1), directed=True)
    graph.vs["neuron"] = [str(n) for n in wiring.neurons.tolist()]
    graph.es["synapses"] = wiring.synapses.tolist()
    return graph


def leiden(pre: I64, post: I64, weight: I64, nodes: int, *, resolution: float, seed: int) -> I64:
    """Community of each node, by the Leiden method for modularity (Traag et al. 2019, 10.1038/s41598-019-41695-z).

    pre[k] - post[k] with weight[k] are undirected connections.
    """
    random = importlib.import_module("random")
    module = _igraph()
    module.set_random_number_generator(random.Random(seed))
    try:
        graph = module.Graph(n=nodes, edges=np.stack([pre, post], axis=1), directed=False)
        found = graph.community_leiden("modularity", weights=weight.tolist(), resolution=resolution, n_iterations=-1)
    finally:
        module.set_random_number_generator(random)
    return np.asarray(found.membership, dtype=np.int64)

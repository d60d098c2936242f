"""dotmotif finds in the real larva what a count without any of our code finds; and our triads agree with both."""

from __future__ import annotations

from pathlib import Path

import networkx as nx
import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.sparse import csr_array

from connectome_db.query.graph.motifs import count_triads, find_motif
from connectome_db.query.graph.wiring import Wiring

STRONG = 10
"""Synapses: dotmotif lists every occurrence in Python, which takes minutes for cycles in the whole larva."""

Edges = list[tuple[int, int, int]]


@pytest.fixture(scope="module")
def edges(shared_data: Path) -> Edges:
    rows = pq.read_table(shared_data / "graph" / "larva_winding_edges.parquet")
    columns = (rows[c].to_pylist() for c in ("pre", "post", "weight"))
    return [(a, b, n) for a, b, n in zip(*columns, strict=True) if n >= STRONG and a != b]


@pytest.fixture(scope="module")
def graph(edges: Edges) -> nx.DiGraph:
    found = nx.DiGraph()
    found.add_weighted_edges_from(edges, weight="synapses")
    return found


@pytest.fixture(scope="module")
def targets(edges: Edges) -> dict[int, set[int]]:
    """Plain Python: neuron -> those it connects to."""
    found: dict[int, set[int]] = {}
    for a, b, _ in edges:
        found.setdefault(a, set()).add(b)
        found.setdefault(b, set())
    return found


@pytest.mark.shared
def test_reciprocal_pairs(graph: nx.DiGraph, targets: dict[int, set[int]]) -> None:
    truth = {(a, b) for a in targets for b in targets[a] if a < b and a in targets[b]}
    found = find_motif(graph, "A -> B\nB -> A").to_pylist()
    assert {(min(r["A"], r["B"]), max(r["A"], r["B"])) for r in found} == truth
    assert len(found) == len(truth) > 100


@pytest.mark.shared
def test_feed_forward_loops(graph: nx.DiGraph, targets: dict[int, set[int]], edges: Edges) -> None:
    truth = {(a, b, c) for a in targets for b in targets[a] for c in targets[a] & targets[b] if c not in (a, b)}
    found = find_motif(graph, "A -> B\nB -> C\nA -> C").to_pylist()
    assert {(r["A"], r["B"], r["C"]) for r in found} == truth
    assert len(found) == len(truth) > 1000
    names = sorted(targets)
    at = {n: k for k, n in enumerate(names)}
    ends = [[at[e[k]] for e in edges] for k in (0, 1)]
    matrix = csr_array((np.ones(len(edges), np.int64), (ends[0], ends[1])), shape=(len(names), len(names)))
    assert int((matrix @ matrix).multiply(matrix).sum()) == len(truth)


@pytest.mark.shared
def test_cycles_and_a_condition_on_synapses(graph: nx.DiGraph, targets: dict[int, set[int]]) -> None:
    truth = {frozenset((a, b, c)): 0 for a in targets for b in targets[a] for c in targets[b] if a in targets[c]}
    cycles = {(a, b, c) for a in targets for b in targets[a] for c in targets[b] if a in targets[c] and a < min(b, c)}
    found = find_motif(graph, "A -> B\nB -> C\nC -> A").to_pylist()
    turned = {min((r["A"], r["B"], r["C"]), (r["B"], r["C"], r["A"]), (r["C"], r["A"], r["B"])) for r in found}
    assert turned == cycles
    assert len(found) == len(cycles) > 100
    assert {frozenset(c) for c in turned} == set(truth)
    strong = {(a, b) for a, b, d in graph.edges(data=True) if d["synapses"] >= 30 and (b, a) in graph.edges}
    asked = find_motif(graph, "A -> B [synapses >= 30]\nB -> A").to_pylist()
    assert {(r["A"], r["B"]) for r in asked} == strong


@pytest.mark.shared
def test_our_triads_are_the_same(edges: Edges, targets: dict[int, set[int]]) -> None:
    names = np.array(sorted(targets), np.uint64)
    ends = [np.searchsorted(names, np.array([e[k] for e in edges], np.uint64)).astype(np.int32) for k in (0, 1)]
    counts = count_triads(Wiring(names, ends[0], ends[1], np.array([e[2] for e in edges], np.int64)))
    loops = sum(len(targets[a] & targets[b]) for a in targets for b in targets[a])
    # how many feed-forward loops lie in a triad of each kind
    held = {"030T": 1, "120D": 2, "120U": 2, "120C": 1, "210": 3, "300": 6}
    assert sum(counts[kind] * n for kind, n in held.items()) == loops

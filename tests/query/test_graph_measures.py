"""Measures of the graph, against networkx and counts by hand; null models keep what they promise."""

from __future__ import annotations

import re

import networkx as nx
import numpy as np
import pytest

from connectome_db.errors import QueryError
from connectome_db.kernels.rewire import swap_edges
from connectome_db.kernels.triads import TRIADS, triad_census
from connectome_db.query.graph import communities, measures, motifs
from connectome_db.query.graph.nulls import Nulls, table
from connectome_db.query.graph.richclub import rich_club
from connectome_db.query.graph.wiring import Wiring


def _wiring(edges: list[tuple[int, int]], nodes: int, synapses: list[int] | None = None) -> Wiring:
    pairs = np.array(sorted(edges), np.int32).reshape(-1, 2)
    weight = np.array(synapses or [1] * len(pairs), np.int64)
    ids = np.arange(nodes, dtype=np.uint64) + np.uint64((1 << 60) + 1)
    return Wiring(ids, pairs[:, 0].copy(), pairs[:, 1].copy(), weight)


@pytest.fixture(scope="module")
def graph() -> nx.DiGraph:
    found = nx.gnp_random_graph(40, 0.12, seed=3, directed=True)
    found.add_edges_from((b, a) for a, b in list(found.edges)[:60])
    found.add_edges_from([(0, 0), (7, 7)])
    return found


@pytest.fixture(scope="module")
def wiring(graph: nx.DiGraph) -> Wiring:
    return _wiring(list(graph.edges), graph.number_of_nodes())


def test_triads_are_counted_as_networkx_counts(graph: nx.DiGraph, wiring: Wiring) -> None:
    bare = nx.DiGraph((a, b) for a, b in graph.edges if a != b)
    bare.add_nodes_from(graph)
    assert motifs.count_triads(wiring) == {k: float(v) for k, v in nx.triadic_census(bare).items()}


@pytest.mark.parametrize("name", TRIADS[3:])
def test_a_triad_is_what_its_meaning_says(name: str) -> None:
    says = motifs.MEANING[name].split(": ")[-1]
    edges = set()
    for chain in says.split(", ") if "->" in says or "<-" in says else ["A <-> B <-> C", "A <-> C"]:
        words = re.findall(r"[ABC]|<->|->|<-", chain)
        for a, arrow, b in zip(words[::2], words[1::2], words[2::2], strict=False):
            one, two = "ABC".index(a), "ABC".index(b)
            edges |= {(one, two)} if "->" in arrow else set()
            edges |= {(two, one)} if "<-" in arrow else set()
    counts = triad_census(*(np.array(side, np.int32) for side in zip(*sorted(edges), strict=True)), 3)
    assert counts[TRIADS.index(name)] == 1


def test_clustering_paths_and_reciprocity_are_those_of_networkx(graph: nx.DiGraph, wiring: Wiring) -> None:
    both = nx.Graph((a, b) for a, b in graph.edges if a != b)
    many = [n for n in both if both.degree(n) > 1]
    assert measures.clustering(wiring) == pytest.approx(np.mean([nx.clustering(both, n) for n in many]))
    assert nx.is_connected(both)
    assert measures.path_length(wiring) == pytest.approx(nx.average_shortest_path_length(both))
    bare = nx.DiGraph((a, b) for a, b in graph.edges if a != b)
    assert measures.reciprocity(wiring) == pytest.approx(nx.reciprocity(bare))


def test_the_summary_counts(graph: nx.DiGraph, wiring: Wiring) -> None:
    found = dict(zip(*(measures.summary(wiring)[c].to_pylist() for c in ("measure", "value")), strict=True))
    assert (found["neurons"], found["connections"], found["self_connections"]) == (40, graph.number_of_edges(), 2)
    assert found["strong_component"] == len(max(nx.strongly_connected_components(graph), key=len))
    degree = measures.degrees(wiring)
    assert degree["partners_in"].to_pylist() == [graph.in_degree(n) for n in range(40)]
    spread = measures.distribution(wiring, "partners_out")
    assert sum(spread["neurons"].to_pylist()) == 40


def _degrees(pre: np.ndarray, post: np.ndarray) -> list[list[int]]:
    return [np.bincount(side, minlength=40).tolist() for side in (pre, post)]


def test_swaps_keep_degrees_and_make_no_doubles_nor_loops(wiring: Wiring) -> None:
    w = wiring.simple()
    post, made = swap_edges(w.pre, w.post, attempts=5000, seed=1)
    assert made > len(w.pre)
    assert _degrees(w.pre, post) == _degrees(w.pre, w.post)
    pairs = set(zip(w.pre.tolist(), post.tolist(), strict=True))
    assert len(pairs) == len(w.pre)
    assert all(a != b for a, b in pairs)
    assert len(pairs & set(zip(w.pre.tolist(), w.post.tolist(), strict=True))) < len(pairs) / 2
    again, _ = swap_edges(w.pre, w.post, attempts=5000, seed=1)
    other, _ = swap_edges(w.pre, w.post, attempts=5000, seed=2)
    assert (again == post).all()
    assert (other != post).any()


def test_spatial_swaps_keep_the_number_of_connections_of_each_length(wiring: Wiring) -> None:
    w = wiring.simple()
    place = np.random.default_rng(0).random((w.size, 3)) * 1e4
    ends = np.linspace(2000, 12000, 4)

    def lengths(post: np.ndarray) -> list[int]:
        far = np.linalg.norm(place[w.pre] - place[post], axis=1)
        return np.bincount(np.searchsorted(ends, far), minlength=5).tolist()

    post, made = swap_edges(w.pre, w.post, attempts=50000, seed=1, place_nm=place, length_edges_nm=ends)
    assert made > 200
    assert lengths(post) == lengths(w.post)
    assert _degrees(w.pre, post) == _degrees(w.pre, w.post)
    free, _ = swap_edges(w.pre, w.post, attempts=50000, seed=1)
    assert lengths(free) != lengths(w.post)


def test_the_rich_club_is_that_of_the_definition(graph: nx.DiGraph, wiring: Wiring) -> None:
    rows = rich_club(wiring, Nulls(3, seed=4)).to_pylist()
    bare = nx.DiGraph((a, b) for a, b in graph.edges if a != b)
    for row in rows:
        club = [n for n in bare if bare.degree(n) > row["degree"]]
        inside = bare.subgraph(club).number_of_edges()
        assert (row["neurons"], row["connections"]) == (len(club), inside)
        assert row["observed"] == pytest.approx(inside / (len(club) * (len(club) - 1)))
    assert rows[-1]["nulls"] == 3
    assert rows[0]["seed"] == 4


def test_communities_of_two_cliques_are_the_cliques() -> None:
    clique = [(a, b) for a in range(5) for b in range(5) if a != b]
    edges = [*clique, *((a + 5, b + 5) for a, b in clique if a < 4 and b < 4), (0, 5)]
    w = _wiring(edges, 10)
    for method in ("louvain", "leiden"):
        found = communities.communities(w, method=method, seed=1)
        assert found["community"].to_pylist() == [0] * 5 + [1] * 4 + [2]
    parts = communities.describe(w, found).to_pylist()
    assert [p["synapses_inside"] for p in parts] == [20, 12, 0]
    halves = [set(range(5)), set(range(5, 9)), {9}]
    undirected = nx.MultiGraph(edges)
    undirected.add_node(9)
    label = found["community"].to_numpy()
    assert communities.modularity(w, label) == pytest.approx(nx.community.modularity(undirected, halves))
    rows = communities.modularity_against_chance(w, Nulls(2), method="leiden").to_pylist()
    assert rows[0]["observed"] > rows[0]["null_mean"]


def test_small_world_and_triads_record_what_they_were_compared_with(wiring: Wiring) -> None:
    rows = measures.small_world(wiring, Nulls(4, seed=9)).to_pylist()
    named = {r["measure"]: r for r in rows}
    assert named["sigma"]["null_mean"] == pytest.approx(1, abs=0.2)
    assert {(r["nulls"], r["null_model"], r["seed"]) for r in rows} == {(4, "degree", 9)}
    census = motifs.triads(wiring, Nulls(4, seed=9))
    assert census.equals(motifs.triads(wiring, Nulls(4, seed=9)))
    assert not census.equals(motifs.triads(wiring, Nulls(4, seed=8)))


def test_z_and_p_are_as_defined() -> None:
    row = table("x", ["a"], [5.0], [np.array([1.0, 2.0, 3.0, 6.0])], Nulls(4)).to_pylist()[0]
    assert row["z"] == pytest.approx((5 - 3) / np.std([1, 2, 3, 6], ddof=1))
    assert row["p"] == pytest.approx(3 / 5)  # 1 and 6 are as far from 3, and the observed one counts too
    equal = table("x", ["a"], [5.0], [np.array([2.0, 2.0])], Nulls(2)).to_pylist()[0]
    assert (equal["z"], equal["p"]) == (None, pytest.approx(1 / 3))


def test_what_cannot_be_asked_is_said() -> None:
    with pytest.raises(QueryError, match="unknown null model 'degre'; did you mean 'degree'"):
        Nulls(3, model="degre")
    with pytest.raises(QueryError, match="needs the places"):
        Nulls(3, model="spatial")
    with pytest.raises(QueryError, match="unknown method 'luvain'"):
        communities.communities(_wiring([(0, 1)], 2), method="luvain")
    with pytest.raises(QueryError, match="dotmotif cannot search"):
        motifs.find_motif(nx.DiGraph([(1, 2)]), "A -> ")


def test_an_empty_graph_is_no_error() -> None:
    w = _wiring([], 0)
    assert measures.summary(w).num_rows > 10
    assert rich_club(w, Nulls(1)).num_rows == 0
    assert communities.communities(w).num_rows == 0
    assert motifs.triads(w, Nulls(1))["observed"].to_pylist() == [0.0] * 13

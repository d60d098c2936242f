"""The named queries of the package against the same asked of networkx or counted by hand, in an imported connectome."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import networkx as nx
import pytest

from connectome_db.errors import QueryError
from connectome_db.query.database import Database, Other, open_database
from connectome_db.query.named import list_queries, run_query, usage
from tests.query import tiny_imported
from tests.query.tiny_imported import A, B, C, D


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_imported.write(tmp_path_factory.mktemp("imported"))


@pytest.fixture(scope="module")
def db(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    other = tiny_imported.write(tmp_path_factory.mktemp("later"), [*tiny_imported.ROWS[1:], {"pre": D, "post": A}])
    with open_database(folder, also={"a": Other(folder, "v1"), "b": Other(other, "v2")}) as opened:
        yield opened


@pytest.fixture(scope="module")
def graph() -> nx.DiGraph:
    """A random graph whose ids do not fit a float64, as (pre, post) with synapses."""
    rng = random.Random(3)
    nodes = [2**63 + 2 * k + 1 for k in range(14)]
    pairs = rng.sample(list(itertools.permutations(nodes, 2)), 45)
    g = nx.DiGraph()
    g.add_nodes_from(nodes)
    g.add_weighted_edges_from([(a, b, rng.randint(1, 9)) for a, b in pairs], weight="synapses")
    return g


@pytest.fixture(scope="module")
def web(graph: nx.DiGraph, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    rows = [{"pre": a, "post": b, "synapses": n} for a, b, n in graph.edges(data="synapses")]
    with open_database(tiny_imported.write(tmp_path_factory.mktemp("web"), rows, {})) as opened:
        yield opened


def ask(db: Database, name: str, **args: Any) -> list[dict[str, Any]]:
    return list(run_query(db, name, args).to_pylist())


def test_every_query_answers_in_an_imported_project_or_says_why_not(db: Database, folder: Path) -> None:
    answered = 0
    for name, query in list_queries(folder).items():
        if query.works == "reconstructed":
            with pytest.raises(QueryError, match=f"'{name}' works in reconstructed projects alone.*has no images"):
                run_query(db, name, query.example)
            continue
        rows = run_query(db, name, query.example)
        assert rows.column_names == list(query.columns), name
        assert usage(query).startswith(f"connectome query {name}")
        answered += rows.num_rows > 0
    assert answered >= 25


def test_quality_is_not_to_be_had_of_a_list(db: Database) -> None:
    with pytest.raises(QueryError, match="imported as a list has no images"):
        run_query(db, "partners", {"neuron": A, "min_quality": "0.5"})


def test_partners_and_rows_of_an_edge(db: Database) -> None:
    got = [(r["direction"], r["partner"], r["synapses"]) for r in ask(db, "partners", neuron=A)]
    assert got == [("in", B, 3), ("out", B, 2), ("out", C, 1)]
    assert [r["source_id"] for r in ask(db, "edge_synapses", pre=A, post=B)] == ["s1", None]
    assert [r["synapse"] for r in ask(db, "edge_lineage", pre=A, post=B)] == [1, 2]
    assert ask(db, "strongest_connections", limit=1)[0]["synapses"] == 3


def test_matrix_by_type_and_region(db: Database) -> None:
    got = {(r["pre_group"], r["post_group"]): r["synapses"] for r in ask(db, "connection_matrix")}
    assert got == {("PN", "PN"): 5, ("PN", "KC"): 2, ("KC", "(none)"): 1}
    in_eb = ask(db, "connection_matrix", roi="EB")
    assert [(r["pre_group"], r["post_group"], r["synapses"], r["share_of_input"]) for r in in_eb] == [
        ("PN", "PN", 2, 1)
    ]
    regions = {r["roi"]: (r["rows"], r["synapses"], r["connections"]) for r in ask(db, "synapses_by_region")}
    assert regions == {"(none)": (3, 5, 3), "EB": (2, 2, 1), "FB": (1, 1, 1)}


def test_completeness(db: Database) -> None:
    whole = {r["measure"]: (r["value"], r["of"]) for r in ask(db, "completeness", min_synapses=2)}
    assert whole["neurons that are fragments (orphans)"] == (1, 4)
    assert whole["synapses between two neurons that are no fragments"] == (7, 8)
    assert whole["neurons with synapses both in and out"] == (3, 4)
    types = {r["group"]: (r["neurons"], r["known_out"]) for r in ask(db, "completeness_by_type")}
    assert types == {"PN": (2, 1.0), "KC": (1, 0.0), "(none)": (1, None)}
    regions = {r["roi"]: r["known_both"] for r in ask(db, "completeness_by_region")}
    assert regions == {"(none)": 4 / 5, "EB": 1.0, "FB": 1.0}


def test_places(db: Database) -> None:
    cells = ask(db, "synapse_density", cell=400)
    assert sum(r["synapses"] for r in cells) == 5
    assert cells[0] == {"z0_nm": 0, "y0_nm": 0, "x0_nm": 0, "synapses": 2, "density_um3": pytest.approx(2 / 0.064)}
    for box in ("0:2,0:30,0:20 vx", "0:80,0:240,0:160 nm"):
        assert [r["synapse"] for r in ask(db, "synapses_in_box", box=box)] == [1, 2]
    assert [r["synapse"] for r in ask(db, "synapses_in_box", box="0:2,0:30,0:20 vx", min_confidence=0.6)] == [1]


def test_stability(db: Database) -> None:
    rows = ask(db, "stability_by_synapses", max_threshold=3)
    assert [(r["connections"], r["synapses"], r["neurons"]) for r in rows] == [(5, 8, 4), (2, 5, 2), (1, 3, 2)]
    rows = ask(db, "stability_by_confidence", steps=1)
    assert [(r["synapses"], r["connections"]) for r in rows] == [(4, 3), (1, 1)]


def test_two_revisions(db: Database, folder: Path) -> None:
    rows = [(r["pre"], r["post"], r["change"], r["what"]) for r in ask(db, "version_comparison")]
    assert rows == [(A, B, -1, "weaker"), (D, A, 1, "new")]
    assert ask(db, "version_summary")[1] == {
        "measure": "connections", "in_a": 5, "in_b": 6, "in_both": 5, "jaccard": pytest.approx(5 / 6)
    }  # fmt: skip
    with open_database(folder) as alone, pytest.raises(QueryError, match="--rev a=REVISION --rev b=REVISION"):
        run_query(alone, "version_comparison")


def test_paths_are_those_of_networkx(web: Database, graph: nx.DiGraph) -> None:
    for u, v, n in graph.edges(data="synapses"):
        graph[u][v]["share"] = -math.log(n / graph.in_degree(v, weight="synapses"))
        graph[u][v]["count"] = 1 / n
    nodes = list(graph)
    for a, b in itertools.islice(itertools.permutations(nodes, 2), 0, None, 23):
        path = [r["neuron"] for r in ask(web, "shortest_path", pre=a, post=b)]
        try:
            length = nx.shortest_path_length(graph, a, b)
        except nx.NetworkXNoPath:
            assert path == []
            continue
        assert (len(path) - 1, path[0], path[-1]) == (length, a, b)
        assert all(graph.has_edge(*e) for e in itertools.pairwise(path))
        for cost in ("share", "count"):
            rows = ask(web, "weighted_path", pre=a, post=b, cost=cost, max_steps=14)
            assert rows[-1]["cost"] == pytest.approx(nx.dijkstra_path_length(graph, a, b, weight=cost))
        found = {r["path"] for r in ask(web, "all_paths", pre=a, post=b, max_steps=4, min_synapses=1, limit=100_000)}
        assert found == {" > ".join(map(str, p)) for p in nx.all_simple_paths(graph, a, b, cutoff=4)}


def test_reach_and_two_hops(web: Database, graph: nx.DiGraph) -> None:
    start = list(graph)[2]
    near = nx.single_source_shortest_path_length(graph, start, cutoff=3)
    assert {r["neuron"]: r["steps"] for r in ask(web, "reach", neuron=start, steps=3)} == {
        n: s for n, s in near.items() if n != start
    }
    for direction, g in (("out", graph), ("in", graph.reverse())):
        strength: dict[int, int] = {}
        for _, via, first in g.out_edges(start, data="synapses"):
            for _, end, second in g.out_edges(via, data="synapses"):
                strength[end] = strength.get(end, 0) + min(first, second)
        strength.pop(start, None)
        rows = ask(web, "two_hop", neuron=start, direction=direction, limit=1000)
        assert {r["neuron"]: r["strength"] for r in rows} == strength


@pytest.mark.parametrize("least", [1, 4])
def test_motifs_are_counted_as_by_brute_force(web: Database, graph: nx.DiGraph, least: int) -> None:
    g = nx.DiGraph([(u, v) for u, v, n in graph.edges(data="synapses") if n >= least])
    got = {r["motif"]: r["count"] for r in ask(web, "motif_counts", min_synapses=least)}
    triples = list(itertools.permutations(g, 3))
    assert got == {
        "connection": g.number_of_edges(),
        "reciprocal pair": sum(g.has_edge(v, u) for u, v in g.edges) // 2,
        "divergence": sum(g.has_edge(a, b) and g.has_edge(a, c) for a, b, c in triples) // 2,
        "convergence": sum(g.has_edge(a, c) and g.has_edge(b, c) for a, b, c in triples) // 2,
        "chain": sum(g.has_edge(a, b) and g.has_edge(b, c) for a, b, c in triples),
        "feed-forward triangle": sum(g.has_edge(a, b) and g.has_edge(b, c) and g.has_edge(a, c) for a, b, c in triples),
        "feedback triangle": sum(g.has_edge(a, b) and g.has_edge(b, c) and g.has_edge(c, a) for a, b, c in triples)
        // 3,
    }
    loops = sum(len(ask(web, "feed_forward_loops", neuron=n, min_synapses=least, limit=999)) for n in g)
    assert loops == got["feed-forward triangle"]
    reciprocity = ask(web, "reciprocity", max_threshold=least)[-1]
    assert reciprocity["reciprocity"] == pytest.approx(nx.reciprocity(g))


def test_distributions_add_up(web: Database, graph: nx.DiGraph) -> None:
    total = graph.size(weight="synapses")
    rows = ask(web, "strength_distribution")
    for what in ("connection", "neuron_in", "neuron_out"):
        assert sum(r["synapses"] for r in rows if r["what"] == what) == total
    degrees = ask(web, "degree_distribution")
    assert sum(r["neurons"] for r in degrees if r["direction"] == "in") == graph.number_of_nodes()

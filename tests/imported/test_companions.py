"""The imported pipeline in blocks: equal bytes however it runs; other orders and arrays of the graph, by hand."""

from __future__ import annotations

import json
from collections import Counter, deque
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectome_db import config, importing, rawlists
from connectome_db.config import Project
from connectome_db.errors import QueryError, RunError, SourceError
from connectome_db.finish import finish, is_current
from connectome_db.query.adjacency import Adjacency
from connectome_db.query.database import open_database
from connectome_db.rawparts import open_list
from connectome_db.runner import run_units
from connectome_db.spec import LISTED
from connectome_db.stages.imported import STAGES
from connectome_db.versions.trust.repair import repair
from connectome_db.versions.trust.verify import Options, verify
from tests.framework.conftest import run_all, tree
from tests.versioned import edit_params
from tests.versions.damage import flip

ROWS, NEURONS, BLOCK = 700, 40, 256
FIRST = 720_575_940_600_000_000
NAMED = 7
"""Of the neurons, the first are called by names."""


def write_list(file: Path, *, rows: int = ROWS) -> None:
    """Synapses between a few neurons, some of which have names; ids beyond 2**53; a tenth without a place."""
    rng = np.random.default_rng(3)
    names = [f"cell {k}" if k < NAMED else str(FIRST + k) for k in range(NEURONS)]
    pre, post = rng.integers(0, NEURONS, (2, rows)) ** 2 // NEURONS
    place = rng.integers(0, 90_000, (3, rows)).astype(float)
    place[:, rng.random(rows) < 0.1] = np.nan
    columns = {"pre": [names[k] for k in pre], "post": [names[k] for k in post]}
    columns |= {f"{a}_nm": pa.array(v, from_pandas=True) for a, v in zip("zyx", place, strict=True)}
    pq.write_table(pa.table({**columns, "size": rng.random(rows)}), file)


def make(root: Path) -> Project:
    """An imported project that reads blocks of BLOCK rows; its list lies beside it."""
    root.mkdir(parents=True)
    write_list(root.parent / f"{root.name}.parquet")
    (root.parent / f"{root.name}.parquet").rename(root / "list.parquet")
    mapped = importing.choose_columns(root / "list.parquet", root)
    spec = mapped.synapses.model_copy(update={"mixed_names": True})
    importing.bring(root, spec, name="toy")
    edit_params(root, lambda p: p.setdefault("listing", {}).update(block_rows=BLOCK))
    return config.load(root, STAGES)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = make(tmp_path_factory.mktemp("imported") / "p")
    run_all(project)
    return project


def edges(project: Project) -> dict[tuple[int, int], int]:
    rows = pq.read_table(project.data("graph") / "connection.parquet").to_pylist()
    return {(r["pre"], r["post"]): r["synapses"] for r in rows}


def test_blocks_hold_their_rows_and_sum_to_the_connections(made: Project) -> None:
    listed = pq.read_table(made.data("listing") / "listed_synapse.parquet")
    assert listed["synapse"].to_pylist() == list(range(1, ROWS + 1))
    units = pq.read_table(made.data("listing") / "units.parquet")
    assert units["core_z0"].to_pylist() == [0, BLOCK, 2 * BLOCK]
    assert Counter(listed["unit"].to_pylist()) == dict(zip(units["unit"].to_pylist(), (BLOCK, BLOCK, 188), strict=True))
    truth = Counter(zip(listed["pre"].to_pylist(), listed["post"].to_pylist(), strict=True))
    assert edges(made) == truth
    source = pq.read_table(made.root / "list.parquet")
    told = [n or str(i) for i, n in zip(listed["pre"].to_pylist(), listed["pre_name"].to_pylist(), strict=True)]
    assert told == source["pre"].to_pylist()
    names = pq.read_table(made.data("graph") / "neuron_name.parquet")["name"].to_pylist()
    assert sorted(names) == sorted({*source["pre"].to_pylist(), *source["post"].to_pylist()})


def test_every_way_to_run_gives_the_same_bytes(made: Project, tmp_path: Path) -> None:
    """Two ranks; and parts of a job array, in another order, after a run that another block size had decoded."""
    ranks = make(tmp_path / "p")
    run_all(ranks, ranks=2, executor="mpi")
    assert tree(ranks.root / "data") == tree(made.root / "data")
    parts = make(tmp_path / "q" / "p")
    run_units(parts, "listing", part=(1, 2))
    with pytest.raises(RunError, match="not complete: 2 of 3 units"):
        finish(*run_units(parts, "listing", part=(1, 2)))
    assert [o.computed for o in run_all(parts).values()] == [2, 1, 1, 1]
    assert tree(parts.root / "data") == tree(made.root / "data")


def test_rows_that_are_added_redo_one_block(made: Project, tmp_path: Path) -> None:
    project = make(tmp_path / "p")
    run_all(project)
    write_list(project.root / "list.parquet", rows=ROWS)
    assert [o.computed for o in run_all(project).values()] == [0, 0, 0, 0]
    table = pq.read_table(project.root / "list.parquet")
    pq.write_table(pa.concat_tables([table, table.slice(0, 1)]), project.root / "list.parquet")
    assert [o.computed for o in run_all(project).values()] == [1, 0, 0, 1]
    assert sum(edges(project).values()) == ROWS + 1


def test_a_decoded_block_that_was_altered_is_refused(tmp_path: Path) -> None:
    project = make(tmp_path / "p")
    found = open_list(project, LISTED)
    assert found.decoded.rows(LISTED) == (BLOCK, BLOCK, 188)
    flip(found.decoded.folder / f"000001.{LISTED}.parquet")
    with pytest.raises(SourceError, match="was altered after it was decoded"):
        open_list(project, LISTED).read(found.parts.codes)


def test_old_decoded_lists_are_forgotten(tmp_path: Path) -> None:
    kinds = {"a": rawlists.Kind(STAGES[1].outputs[0].table)}  # type: ignore[union-attr]
    empty = {"a": kinds["a"].table.arrow().empty_table()}
    for key in "uvwxyz":
        rawlists.decoded(tmp_path, key, kinds, lambda: [empty], None)
    assert sorted(p.name for p in (tmp_path / "lists").iterdir()) == sorted("uvwxyz"[-rawlists.KEPT :])


def test_other_orders_hold_the_same_rows(made: Project) -> None:
    listing, graph = made.data("listing"), made.data("graph")
    for table, folder, orders in (
        ("listed_synapse", listing, {"by_pre": ("pre", "post", "synapse"), "by_post": ("post", "pre", "synapse")}),
        ("connection", graph, {"by_post": ("post", "pre")}),
    ):
        rows = pq.read_table(folder / f"{table}.parquet").to_pylist()
        for name, by in orders.items():
            found = pq.read_table(folder / f"{table}.{name}.parquet").to_pylist()
            assert found == sorted(rows, key=lambda r, by=by: [r[c] for c in by])
    placed = pq.read_table(listing / "listed_synapse.by_place.parquet")
    assert sorted(placed["synapse"].to_pylist()) == list(range(1, ROWS + 1))
    z, y, x = (placed[f"{a}_vx"].to_numpy(zero_copy_only=False) for a in "zyx")
    known = ~np.isnan(z)
    assert not known[known.sum() :].any()  # rows without a place come last
    place = np.stack([z, y, x], axis=1)[known]
    octant = (place - place.min(axis=0)) // (1 << 16)  # cells are 2 nm: the longest side has at most 2**16 of them
    assert (np.diff(octant, axis=0) != 0).any(axis=1).sum() == 7  # each of the eight in one piece


def test_views_show_what_a_reconstruction_has(made: Project) -> None:
    with open_database(made.root) as db:
        assert db.missing == {}
        ask = "SELECT count(*) AS n, count(*) FILTER (counted) AS c, count(DISTINCT reason) AS r FROM {}"
        for name in ("link", "link_by_pre", "link_by_post"):
            assert db.sql(ask.format(name)).to_pylist() == [{"n": ROWS, "c": ROWS, "r": 1}]
        (row,) = db.sql("SELECT count(z_vx) AS z, count(pre_supervoxel) AS s FROM synapse").to_pylist()
        assert 0 < row["z"] < ROWS
        assert row["s"] == 0
        kinds = {r["column"]: r["type"] for r in db.describe("link").to_pylist()}
        shown = db.sql("DESCRIBE link").to_pylist()
        assert [r["column_name"] for r in shown] == list(kinds)


def test_weak_pairs_are_links_that_do_not_count(made: Project, tmp_path: Path) -> None:
    project = make(tmp_path / "p")
    edit_params(project.root, lambda p: p.setdefault("graph", {}).update(min_synapses=2))
    run_all(config.load(project.root, STAGES))
    strong = {e: n for e, n in edges(made).items() if n > 1}
    assert edges(project) == strong
    with open_database(project.root) as db:
        (row,) = db.sql("SELECT count(*) FILTER (counted) AS c, count(*) AS n FROM link_by_post").to_pylist()
    assert row == {"c": sum(strong.values()), "n": ROWS}


def test_a_damaged_companion_is_named_and_made_again(made: Project) -> None:
    before = tree(made.root / "data")
    graph = made.data("graph")
    flip(graph / "adjacency" / "in_partner.npy")
    (graph / "connection.by_post.parquet").unlink()
    (made.data("listing") / "listed_synapse.by_place.parquet").write_bytes(b"")
    wanted = {
        "data/graph/adjacency/in_partner.npy": "damaged companion",
        "data/graph/connection.by_post.parquet": "missing companion",
        "data/listing/listed_synapse.by_place.parquet": "damaged companion",
    }
    assert not is_current(run_units(made, "graph")[0])
    for options in (Options(), Options(quick=True)):
        report = verify(made, (), options)
        assert {p.path: p.what for p in report.problems} == wanted
    done = repair(made, report)
    assert [m.failed for m in done.mended] == [False] * 3
    assert verify(made).problems == []
    assert tree(made.root / "data") == before


def test_the_record_names_companions(made: Project) -> None:
    record = json.loads((made.data("graph") / "record.json").read_text())
    arrays = {f"adjacency/{s}_{n}.npy" for s in ("in", "out") for n in ("start", "partner", "synapses")}
    assert set(record["companions"]) == {"connection.by_post.parquet", "adjacency/neuron.npy", *arrays}


class Plain:
    """The graph as Python dicts: what the arrays are compared with."""

    def __init__(self, found: dict[tuple[int, int], int]) -> None:
        self.edges = found
        self.out: dict[int, list[int]] = {}
        for a, b in found:
            self.out.setdefault(a, []).append(b)

    def hops(self, source: int) -> dict[int, int]:
        seen, queue = {source: 0}, deque([source])
        while queue:
            u = queue.popleft()
            for v in self.out.get(u, ()):
                if v not in seen:
                    seen[v] = seen[u] + 1
                    queue.append(v)
        return seen

    def two(self, source: int) -> Counter[int]:
        score: Counter[int] = Counter()
        for m in self.out.get(source, ()):
            for v in self.out.get(m, ()):
                if v != source:
                    score[v] += self.edges[source, m] * self.edges[m, v]
        return score

    def least(self, source: int, share: bool) -> dict[int, float]:
        into: Counter[int] = Counter()
        for (_, b), n in self.edges.items():
            into[b] += n
        far = {source: 0.0}
        for _ in range(NEURONS):  # Bellman-Ford
            for (a, b), n in self.edges.items():
                step = -np.log(n / into[b]) if share else 1 / n
                if a in far and far[a] + step < far.get(b, np.inf):
                    far[b] = far[a] + step
        return far


def test_arrays_answer_as_plain_python_does(made: Project) -> None:
    found = edges(made)
    plain, index = Plain(found), Adjacency.open(made.root)
    everyone = index.neurons.tolist()
    assert everyone == pq.read_table(made.data("graph") / "neuron.parquet")["neuron"].to_pylist()
    reverse = Plain({(b, a): n for (a, b), n in found.items()})
    for way, graph in (("out", plain), ("in", reverse)):
        for n in everyone:
            ids, synapses = index.partners(n, way)  # type: ignore[arg-type]
            assert dict(zip(ids.tolist(), synapses.tolist(), strict=True)) == {
                b: graph.edges[n, b] for b in graph.out.get(n, ())
            }
            ids, hops = index.k_hop([n], 2, way)  # type: ignore[arg-type]
            truth = {k: v for k, v in graph.hops(n).items() if v <= 2}
            assert dict(zip(ids.tolist(), hops.tolist(), strict=True)) == truth
            ids, score = index.two_hop(n, top=5, direction=way)  # type: ignore[arg-type]
            best = sorted(graph.two(n).items(), key=lambda kv: (-kv[1], kv[0]))[:5]
            assert list(zip(ids.tolist(), score.tolist(), strict=True)) == best
    some = np.asarray(everyone[::3], np.uint64)
    pre, post, synapses = index.adjacency(some, everyone[::2])
    truth = {e: n for e, n in found.items() if e[0] in set(everyone[::3]) and e[1] in set(everyone[::2])}
    assert dict(zip(zip(pre.tolist(), post.tolist(), strict=True), synapses.tolist(), strict=True)) == truth
    assert index.csr("in").T.toarray().tolist() == index.csr().toarray().tolist()
    assert {(a, b): index.synapses(a, b) for a, b in found} == found


def test_shortest_paths_are_shortest(made: Project) -> None:
    found = edges(made)
    plain, index = Plain(found), Adjacency.open(made.root)
    everyone = index.neurons.tolist()
    into = dict(zip(everyone, index.input_synapses.tolist(), strict=True))
    for a in everyone[::4]:
        steps, near, share = plain.hops(a), plain.least(a, share=False), plain.least(a, share=True)
        for b in everyone[::3]:
            for weight, truth in (("steps", steps), ("synapses", near), ("share", share)):
                path = index.shortest_path(a, b, weight=weight).tolist()  # type: ignore[arg-type]
                if b not in truth:
                    assert path == []
                    continue
                assert (path[0], path[-1]) == (a, b)
                used = [found[e] for e in pairwise(path)]
                ends = [into[v] for v in path[1:]]
                length = {"steps": len(used), "synapses": sum(1 / n for n in used),
                          "share": -sum(np.log(n / t) for n, t in zip(used, ends, strict=True))}[weight]  # fmt: skip
                assert length == pytest.approx(truth[b])


def test_what_is_not_there_is_said(made: Project, tmp_path: Path) -> None:
    index = Adjacency.open(made.root)
    with pytest.raises(QueryError, match=rf"no neuron {FIRST + 39}1"):
        index.partners((FIRST + 39) * 10 + 1)
    with pytest.raises(QueryError, match="wanted a whole number"):
        index.index(-1)
    with pytest.raises(QueryError, match=r"did you mean 'in'|wanted 'out' or 'in'"):
        index.partners(int(index.neurons[0]), "inn")  # type: ignore[arg-type]
    with pytest.raises(QueryError, match="run `connectome finish graph`"):
        Adjacency.open(tmp_path)

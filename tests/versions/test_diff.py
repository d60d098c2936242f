"""A diff of versions whose differences were planted, against truth that is counted in plain Python."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from connectome_db import volumes
from connectome_db.cli.main import app
from connectome_db.errors import QueryError, RevisionError
from connectome_db.revisions import Revision, open_revision
from connectome_db.versions.compare.diff import Diff, compare
from connectome_db.versions.compare.picture import draw
from connectome_db.versions.identity.history import COUNTS_FRACTION, COUNTS_VX
from tests.imported.test_import import _bring, _list
from tests.versions.ledgers import code, walk
from tests.versions.planted import HALF, PLANTS, SECTION, SHAFT, TILE, copy_of, leave_out, plant

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def project(history: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = copy_of(history, tmp_path_factory.mktemp("planted") / "p")
    plant(root)
    return root


@pytest.fixture(scope="module")
def left_out(history: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Revision]:
    """By plant, the version that has all the others."""
    root = copy_of(history, tmp_path_factory.mktemp("left-out") / "p")
    leave_out(root)
    return {letter: open_revision(root, f"without-{letter}") for letter in PLANTS}


@pytest.fixture(scope="module")
def found(project: Path) -> Diff:
    return compare(open_revision(project, "v3"), open_revision(project, "planted"))


def rows(revision: Revision, stage: str, table: str) -> Rows:
    found: Rows = pq.read_table(revision.root / "data" / stage / f"{table}.parquet").to_pylist()
    return found


def letters(diff: Diff) -> list[str]:
    """Which plant each cause is."""
    kinds = {"tile": "T", "model": "M"}
    return [kinds.get(c.kind, "R" if c.region else "G") for c in diff.why.sets.causes]


# Causes --------------------------------------------------------------------------------------------------------------


def test_every_planted_cause_is_found_and_none_is_invented(found: Diff) -> None:
    causes = dict(zip(letters(found), found.why.sets.causes, strict=True))
    assert len(found.why.sets.causes) == len(PLANTS)
    assert causes["R"].text == "region shaft: segment.seed_window_nm: 40.0 → 400 (added)"
    assert causes["G"].text == "agglomerate.threshold: 0.6 → 0.75"
    assert (causes["T"].section, causes["T"].name, causes["T"].note) == (SECTION, TILE, "replaced")
    model = causes["M"]
    assert (model.stage, model.region, model.boxes[0].flat()) == ("synapses", "half", HALF)
    assert model.old.startswith("phantom-cleft@")
    assert model.new.startswith("retrained-cleft@")


def test_units_have_the_causes_that_a_plain_walk_gives_them(found: Diff) -> None:
    own: dict[tuple[str, int], set[str]] = {("agglomerate", code(0)): {"G"}}
    for stage, box, letter in (("segment", SHAFT, "R"), ("synapses", HALF, "M")):
        for u in rows(found.b, stage, "units"):
            core = [u[f"core_{a}{end}"] for end in (0, 1) for a in "zyx"]
            if all(core[k] < box[3 + k] and box[k] < core[3 + k] for k in range(3)):
                own.setdefault((stage, u["unit"]), set()).add(letter)
    for stage in ("ingest", "montage", "match", "render"):
        for r in rows(found.b, stage, "reads"):
            if r["input"] == "raw.tiles" and r["z0"] <= SECTION < r["z1"]:
                own.setdefault((stage, r["unit"]), set()).add("T")
    truth = walk(found.a.root, found.b.root, own)
    name = letters(found)
    told = found.tables["unit_change"].to_pylist()
    assert {(r["stage"], r["unit"]): {name[c] for c in r["causes"]} for r in told} == truth
    for row in found.tables["cause"].to_pylist():
        assert row["units_reached"] == sum(name[row["cause"]] in causes for causes in truth.values())
        assert row["units_own"] == sum(name[row["cause"]] in causes for key, causes in own.items() if key[0] not in RAW)


RAW = ("ingest", "montage", "match", "render")
"""A tile is no unit's own: those who read it inherit it."""


def test_what_is_the_same_has_no_rows(project: Path) -> None:
    v3 = open_revision(project, "v3")
    nothing = compare(v3, v3)
    assert {name: t.num_rows for name, t in nothing.tables.items()} == dict.fromkeys(nothing.tables, 0)
    assert compare(open_revision(project, "planted"), open_revision(project)).tables["cause"].num_rows == 0


# Counts, by brute force ----------------------------------------------------------------------------------------------


@dataclass
class Truth:
    """Objects of both versions voxel by voxel, and what became of them."""

    shared: Counter[tuple[int, int]]
    size_a: Counter[int]
    size_b: Counter[int]

    @property
    def kinds(self) -> Counter[str]:
        groups = nx.Graph()
        groups.add_nodes_from(("a", o) for o in self.size_a)
        groups.add_nodes_from(("b", o) for o in self.size_b)
        strong = {p: n for p, n in self.shared.items() if n >= COUNTS_VX
                  and n >= COUNTS_FRACTION * min(self.size_a[p[0]], self.size_b[p[1]])}  # fmt: skip
        links = set(strong)
        for side, sizes in enumerate((self.size_a, self.size_b)):
            for o in set(sizes) - {p[side] for p in strong}:  # dust goes where half of it or more is
                half = [p for p, n in self.shared.items() if p[side] == o and 2 * n >= sizes[o]]
                links |= set(half[:1])
        groups.add_edges_from((("a", x), ("b", y)) for x, y in links)
        kinds: Counter[str] = Counter()
        for group in nx.connected_components(groups):
            a, b = ([o for side, o in group if side == s] for s in "ab")
            equal = len(a) == len(b) == 1 and self.shared[a[0], b[0]] == self.size_a[a[0]] == self.size_b[b[0]]
            if not equal:
                several = {(0, 1): "appeared", (1, 0): "vanished", (1, 1): "changed", (1, 2): "split", (2, 1): "merged"}
                kinds[several.get((min(len(a), 2), min(len(b), 2)), "mixed")] += 1
            elif a != b:
                kinds["renamed"] += 1
        return kinds

    @property
    def heirs(self) -> dict[int, int]:
        """Objects that share the most voxels with each other."""
        to, back = {}, {}
        for (x, y), _ in sorted(self.shared.items(), key=lambda item: item[1]):
            to[x], back[y] = y, x
        return {x: y for x, y in to.items() if back[y] == x}


def truth_of(diff: Diff) -> Truth:
    labels = []
    for r in (diff.a, diff.b):
        folder = r.volume("segment", "supervoxels")
        supervoxels = volumes.read(folder, volumes.open_info(folder).bounds)
        member = {m["supervoxel"]: m["object"] for m in rows(r, "agglomerate", "member")}
        labels.append([member.get(v, 0) for v in supervoxels.ravel().tolist()])
    shared = Counter(p for p in zip(*labels, strict=True) if p[0] and p[1])
    sizes = [Counter(v for v in side if v) for side in labels]
    return Truth(shared, *sizes)


@pytest.fixture(scope="module")
def truth(found: Diff) -> Truth:
    return truth_of(found)


def test_objects_are_those_of_the_voxels(found: Diff, truth: Truth) -> None:
    table = found.tables["object_change"].to_pylist()
    assert Counter(r["kind"] for r in table) == truth.kinds
    assert truth.kinds["split"] >= 3
    for r in table:
        assert r["size_a_vx"] == sum(truth.size_a[o] for o in r["objects_a"])
        assert r["size_b_vx"] == sum(truth.size_b[o] for o in r["objects_b"])
        assert r["shared_vx"] == sum(truth.shared[x, y] for x in r["objects_a"] for y in r["objects_b"])


def by_hand(diff: Diff, heirs: Mapping[int, int]) -> Counter[str]:
    """What became of the synapses, matched by taking the nearest pair again and again."""
    sides: list[dict[int, dict[str, Any]]] = []
    for r in (diff.a, diff.b):
        links = {link["synapse"]: link for link in rows(r, "graph", "link")}
        sides.append({s["synapse"]: s | links[s["synapse"]] for s in rows(r, "synapses", "synapse")})
    a, b = sides
    place = lambda s: (s["z_vx"] * 30, s["y_vx"] * 8, s["x_vx"] * 8)  # noqa: E731
    pairs = [(i, i) for i in a if i in b and place(a[i]) == place(b[i])]
    near = sorted((float(np.linalg.norm(np.subtract(place(a[i]), place(b[k])))), i, k) for i in a for k in b)
    for distance, i, k in near:
        if distance <= 150 and i not in {p[0] for p in pairs} and k not in {p[1] for p in pairs}:
            pairs.append((i, k))
    kinds = Counter({"lost": len(a) - len(pairs), "gained": len(b) - len(pairs)})
    for i, k in pairs:
        x, y = a[i], b[k]
        if any(heirs.get(x[end]) != y[end] for end in ("pre", "post")):
            kinds["repartnered"] += 1
        elif x["counted"] != y["counted"]:
            kinds["recounted"] += 1
        elif np.linalg.norm(np.subtract(place(x), place(y))) > 8:
            kinds["moved"] += 1
        elif (place(x), x["size_vx"], x["confidence"]) != (place(y), y["size_vx"], y["confidence"]):
            kinds["altered"] += 1
        elif (i, x["pre"], x["post"]) != (k, y["pre"], y["post"]):
            kinds["renamed"] += 1
    return +kinds


def test_synapses_and_connections_are_those_of_the_tables(found: Diff, truth: Truth) -> None:
    assert Counter(found.tables["synapse_change"]["kind"].to_pylist()) == by_hand(found, truth.heirs)
    before: Counter[tuple[int, int]] = Counter()
    alone = lambda o: truth.heirs.get(o, -o)  # noqa: E731  # an object that no other carries on
    for link in rows(found.a, "graph", "link"):
        before[alone(link["pre"]), alone(link["post"])] += link["counted"]
    after = Counter((link["pre"], link["post"]) for link in rows(found.b, "graph", "link") if link["counted"])
    changed = {e: (before[e], after[e]) for e in before | after if before[e] != after[e]}
    table = found.tables["edge_change"].to_pylist()
    told = {
        tuple(r[end] or -r[f"{end}_a"] for end in ("pre", "post")): (r["synapses_a"], r["synapses_b"]) for r in table
    }
    assert told == changed
    assert len(changed) >= 2


def test_the_other_way_round_everything_is_mirrored(project: Path, found: Diff) -> None:
    back = compare(open_revision(project, "planted"), open_revision(project, "v3"))
    mirror = {"split": "merged", "merged": "split", "appeared": "vanished", "vanished": "appeared",
              "gained": "lost", "lost": "gained", "stronger": "weaker", "weaker": "stronger"}  # fmt: skip
    for name in ("object_change", "synapse_change", "edge_change"):
        kinds, others = (Counter(d.tables[name]["kind"].to_pylist()) for d in (found, back))
        assert {mirror.get(k, k): n for k, n in kinds.items()} == others
    assert sorted(letters(back)) == sorted(letters(found))


# Causes of rows, by leaving each plant out ---------------------------------------------------------------------------


@pytest.mark.slow
def test_objects_name_exactly_the_plants_without_which_they_would_be_others(
    left_out: dict[str, Revision], found: Diff
) -> None:
    name, planted = letters(found), objects(found.b)
    needed = {letter: planted - objects(revision) for letter, revision in left_out.items()}
    decided = 0
    for r in found.tables["object_change"].to_pylist():
        said = {name[c] for c in r["causes"]}
        bodies = {body for body in planted if body[0] in r["objects_b"]}
        truth = {letter for letter in PLANTS if bodies & needed[letter]}
        assert truth <= said
        if r["certain"]:
            assert said == truth
            decided += 1
    assert decided >= found.tables["object_change"].num_rows - 3
    assert {name[c] for r in found.tables["object_change"].to_pylist() for c in r["causes"]} >= {"R", "G", "T"}


def objects(revision: Revision) -> set[tuple[int, bytes]]:
    """Each object by its name and its voxels."""
    folder = revision.volume("segment", "supervoxels")
    supervoxels = volumes.read(folder, volumes.open_info(folder).bounds)
    member = {m["supervoxel"]: m["object"] for m in rows(revision, "agglomerate", "member")}
    known = np.asarray(sorted(member), np.uint64)
    names = np.asarray([0, *(member[int(k)] for k in known)], np.uint64)
    at = np.searchsorted(known, supervoxels) + 1
    label = names[np.where(supervoxels == 0, 0, at)].ravel()
    order = np.argsort(label, kind="stable")
    ids, first = np.unique(label[order], return_index=True)
    pieces = np.split(order, first[1:])
    return {(int(i), piece.tobytes()) for i, piece in zip(ids, pieces, strict=True) if i}


@pytest.mark.slow
def test_synapses_name_at_least_the_plants_that_they_need(left_out: dict[str, Revision], found: Diff) -> None:
    name = letters(found)
    here = outcomes(found)
    others = {p: outcomes(compare(found.a, revision)) for p, revision in left_out.items()}
    seen = set()
    for r in found.tables["synapse_change"].to_pylist():
        needed = {p for p in PLANTS if others[p].get(r["synapse_a"]) != here.get(r["synapse_a"])}
        assert r["synapse_a"] is None or needed <= {name[c] for c in r["causes"]}
        seen |= needed
    assert "M" in seen


def outcomes(diff: Diff) -> dict[int, tuple[object, ...]]:
    columns = ("kind", "z_vx", "y_vx", "x_vx", "counted_b")
    table = diff.tables["synapse_change"].to_pylist()
    return {r["synapse_a"]: tuple(r[c] for c in columns) for r in table if r["synapse_a"] is not None}


# Parts of a diff, other projects, the command ------------------------------------------------------------------------


def test_only_one_table(project: Path) -> None:
    v3, planted = open_revision(project, "v3"), open_revision(project, "planted")
    assert compare(v3, planted, only="units").tables.keys() == {"unit_change", "cause"}
    assert compare(v3, planted, only="edges").tables.keys() == {"edge_change", "cause"}
    with pytest.raises(QueryError, match="did you mean 'edges'"):
        compare(v3, planted, only="edge")


def test_versions_of_an_imported_connectome(tmp_path: Path) -> None:
    text = "pre,post,synapses,stage\nA,B,3,old\nB,A,1,old\nA,C,2,old\nA,B,5,new\nB,A,1,new\nD,B,2,new\n"
    file = _list(tmp_path / "in", text)
    roots = [_bring(tmp_path / stage, file, stage=stage).root for stage in ("old", "new")]
    diff = compare(*(Revision(root, root.name, None, root) for root in roots))
    edges = {(r["pre_name"], r["post_name"]): (r["kind"], r["synapses_a"], r["synapses_b"])
             for r in diff.tables["edge_change"].to_pylist()}  # fmt: skip
    assert edges == {("A", "B"): ("stronger", 3, 5), ("A", "C"): ("lost", 2, 0), ("D", "B"): ("gained", 0, 2)}
    neurons = {(r["name"], r["kind"]) for r in diff.tables["neuron_change"].to_pylist()}
    assert neurons == {("C", "vanished"), ("D", "appeared")}
    (cause,) = diff.tables["cause"].to_pylist()
    assert cause["kind"] == "source"
    assert cause["text"].startswith("source edges.csv")
    assert (cause["edges"], cause["neurons"]) == (3, 2)
    assert draw(diff, tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_writes_all_its_forms(project: Path, tmp_path: Path) -> None:
    arguments = ["diff", "v3", "planted", "-C", str(project)]
    places = {name: tmp_path / name for name in ("d.json", "tables", "d.png")}
    options = zip(("--json", "--parquet", "--picture"), map(str, places.values()), strict=True)
    done = CliRunner().invoke(app, [*arguments, *(word for pair in options for word in pair)])
    assert done.exit_code == 0, done.output
    assert all(word in done.output for word in ("agglomerate.threshold", "region shaft", "synapses  ", "edges  "))
    found = json.loads(places["d.json"].read_text())
    assert {p.stem for p in places["tables"].iterdir()} == set(found["tables"])
    for name, table in found["tables"].items():
        assert len(table) == pq.read_metadata(places["tables"] / f"{name}.parquet").num_rows
    ids = [i for r in found["tables"]["object_change"] for i in r["objects_b"]]
    assert ids
    assert all(isinstance(i, str) and int(i) > 1 << 53 for i in ids)
    assert places["d.png"].stat().st_size > 20_000
    printed = CliRunner().invoke(app, [*arguments, "--only", "units", "--json", "-"])
    assert json.loads(printed.stdout)["tables"].keys() == {"unit_change", "cause"}


def test_a_version_that_is_not_there_is_an_error(project: Path) -> None:
    done = CliRunner().invoke(app, ["diff", "v3", "plante", "-C", str(project)])
    assert isinstance(done.exception, RevisionError)
    assert "did you mean 'planted'" in str(done.exception)

"""Impact against a walk in plain Python, unit by unit, over the Parquet files of a real project."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from connectome_db import ids
from connectome_db.cli.main import app
from connectome_db.errors import ConnectomeError, QueryError
from connectome_db.geometry import Box
from connectome_db.provenance import touching
from connectome_db.query import impact
from connectome_db.query.database import Database, open_database
from connectome_db.query.named import run_query
from connectome_db.query.reach import touches
from connectome_db.query.units import downstream_units, upstream_units
from connectome_db.revisions import open_revision
from connectome_db.stages.pipeline import STAGES
from connectome_db.versions import impact_of

Key = tuple[str, int]
SOLVES = {"align", "reconcile", "agglomerate", "graph", "measure_graph", "flag"}
BOX = ("z0", "y0", "x0", "z1", "y1", "x1")


def read(root: Path, stage: str, name: str) -> list[dict[str, Any]]:
    return list(pq.read_table(root / "data" / stage / f"{name}.parquet").to_pylist())


def meet(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return all(a[f"{k}0"] < b[f"{k}1"] and b[f"{k}0"] < a[f"{k}1"] for k in "zyx") and all(
        a[f"{k}0"] < a[f"{k}1"] for k in "zyx"
    )


@dataclass
class Ledger:
    """Who reads whom, found by comparing every read box with every part of its input."""

    root: Path
    readers: dict[Key, set[Key]] = field(default_factory=lambda: defaultdict(set))
    makers: dict[Key, set[Key]] = field(default_factory=lambda: defaultdict(set))
    raw: list[tuple[Key, dict[str, Any]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        parts: dict[str, list[tuple[Key, dict[str, Any]]]] = defaultdict(list)
        self.units = {s.name: read(self.root, s.name, "units") for s in STAGES}
        for stage, units in self.units.items():
            for p in read(self.root, stage, "parts"):
                maker = units[0]["unit"] if units[0]["kind"] == "once" else p["unit"]
                parts[f"{stage}.{p['output']}"].append(((stage, maker), p))
        for stage in self.units:
            for r in read(self.root, stage, "reads"):
                reader = (stage, r["unit"])
                if r["input"] == "raw.tiles":
                    self.raw.append((reader, r))
                for maker, p in parts[r["input"]]:
                    if meet(r, p):
                        self.readers[maker].add(reader)
                        self.makers[reader].add(maker)

    def walk(self, start: set[Key], *, through_solves: bool) -> set[Key]:
        """Units reachable from `start`; without `through_solves`, no step begins or ends at a solve."""
        found, todo = set(start), list(start)
        while todo:
            at = todo.pop()
            for reader in self.readers[at]:
                local = at[0] not in SOLVES and reader[0] not in SOLVES
                if (local or through_solves) and reader not in found:
                    found.add(reader)
                    todo.append(reader)
        return found

    def results(self, units: set[Key], *, whole: set[Key]) -> dict[str, int]:
        """Supervoxels, objects, synapses and edges of direct `units`; all of those that solves in `whole` made."""
        supervoxels = {
            r["supervoxel"] for r in read(self.root, "segment", "supervoxel") if ("segment", r["unit"]) in units
        }
        member = {r["supervoxel"]: r["object"] for r in read(self.root, "agglomerate", "member")}
        objects = {member[s] for s in supervoxels}
        objects |= {
            r["object"] for r in read(self.root, "agglomerate", "object") if ("agglomerate", r["unit"]) in whole
        }
        synapses = {
            r["synapse"]
            for r in read(self.root, "synapses", "synapse")
            if ("synapses", r["unit"]) in units or {r["pre_supervoxel"], r["post_supervoxel"]} & supervoxels
        }
        edges = {
            (r["pre"], r["post"])
            for r in read(self.root, "graph", "link")
            if r["counted"] and (r["synapse"] in synapses or ("graph", r["unit"]) in whole)
        }
        named = {"supervoxels": supervoxels, "objects": objects, "synapses": synapses, "edges": edges}
        return {name: len(found) for name, found in named.items()}

    def of_pixels(self, section: int, tile: str | None) -> tuple[set[Key], set[Key]]:
        """(direct, possible) of a section, or of one tile of it."""
        readers = {key for key, r in self.raw if r["z0"] <= section < r["z1"]}
        blocks = {
            ("render", r["unit"])
            for r in read(self.root, "render", "image_source")
            if r["section"] == section and tile in {None, r["tile"]}
        }
        whole = {(s, u) for s, u in readers if s != "render"}
        direct = self.walk(blocks, through_solves=False) | whole
        return direct, self.walk(readers if blocks else whole, through_solves=True)


@pytest.fixture(scope="module")
def ledger(history: Path) -> Ledger:
    return Ledger(history)


@pytest.fixture(scope="module")
def db(history: Path) -> Database:
    return open_database(history)


def counted(db: Database, found: impact.Impact) -> dict[str, tuple[int, int]]:
    return {r["what"]: (r["direct"], r["possible"]) for r in impact.counts(db, found).to_pylist()}


def wanted(ledger: Ledger, direct: set[Key], possible: set[Key]) -> dict[str, tuple[int, int]]:
    told = {}
    for stage in ledger.units:
        told[f"{stage} units"] = tuple(sum(s == stage for s, _ in units) for units in (direct, possible))
    told["units"] = (len(direct), len(possible))
    near = ledger.results(direct, whole=direct)
    far = ledger.results(possible, whole=possible)
    return told | {name: (near[name], far[name]) for name in near}


def units_of(found: impact.Impact) -> set[Key]:
    return {(s, int(u)) for s, codes in found.direct.items() for u in codes}


def start_of(ledger: Ledger, stage: str, *keep: str) -> set[Key]:
    return {(stage, u["unit"]) for u in ledger.units[stage] if not keep or u["model_id"] in keep}


def check(ledger: Ledger, db: Database, found: impact.Impact, start: set[Key]) -> None:
    direct = ledger.walk(start, through_solves=False)
    possible = ledger.walk(start, through_solves=True)
    assert units_of(found) == direct
    assert counted(db, found) == wanted(ledger, direct, possible)


@pytest.mark.parametrize("number", [0, 17, 39])
def test_a_tile(ledger: Ledger, db: Database, number: int) -> None:
    tile = read(ledger.root, "ingest", "tile")[number]
    direct, possible = ledger.of_pixels(tile["section"], tile["tile"])
    found = impact.of_tile(db, tile["tile"])
    assert units_of(found) == direct
    assert counted(db, found) == wanted(ledger, direct, possible)
    shown = sum(s == "render" for s, _ in direct)
    assert 0 < shown < sum(s == "render" for s, _ in ledger.of_pixels(tile["section"], None)[0])


def test_a_section(ledger: Ledger, db: Database) -> None:
    direct, possible = ledger.of_pixels(9, None)
    found = impact.of_section(db, 9)
    assert counted(db, found) == wanted(ledger, direct, possible)
    assert found.solves == ("align", "reconcile", "agglomerate", "graph", "measure_graph", "flag")


@pytest.mark.parametrize(
    ("stage", "position"),
    [("render", (1, 3, 3)), ("segment", (0, 0, 0)), ("overlap", (0, 1, 1)), ("montage", (4, 0, 0)),
     ("match", (4, 1, 0)), ("synapses", (1, 2, 3)), ("align", (0, 0, 0)), ("agglomerate", (0, 0, 0)),
     ("graph", (0, 0, 0))],
)  # fmt: skip
def test_a_block(ledger: Ledger, db: Database, stage: str, position: tuple[int, int, int]) -> None:
    codes = {int(c) for axis in range(3) for c in ids.pack([position], axis)}
    start = {k for k in start_of(ledger, stage) if k[1] in codes}
    assert start
    check(ledger, db, impact.of_block(db, stage, position), start)


def test_a_region(ledger: Ledger, db: Database) -> None:
    box = dict(zip(BOX, (0, 0, 0, 8, 64, 65), strict=True))
    start = {
        (stage, u["unit"])
        for stage, units in ledger.units.items()
        for u in units
        if u["kind"] in {"blocks", "faces"} and meet({n: u[f"core_{n}"] for n in BOX}, box)
    }
    assert sum(s == "segment" for s, _ in start) == 2
    check(ledger, db, impact.of_box(db, "two blocks", Box((0, 0, 0), (8, 64, 65))), start)


def test_a_model_by_name_and_by_id(ledger: Ledger, db: Database) -> None:
    (model,) = {u["model_id"] for u in ledger.units["synapses"]}
    for name in ("phantom-cleft", model):
        found = impact.of_model(db, name)
        check(ledger, db, found, start_of(ledger, "synapses", model))
    assert counted(db, found)["supervoxels"] == (0, 0)


def test_a_parameter_everywhere_and_in_a_region(ledger: Ledger, db: Database) -> None:
    check(ledger, db, impact.of_parameter(db, "mask.resin_grey"), start_of(ledger, "mask"))
    corner = impact_of.region_box(db, open_revision(ledger.root), "corner")
    found = impact.of_parameter(db, "segment.boundary", ("corner", corner))
    check(ledger, db, found, {("segment", min(u["unit"] for u in ledger.units["segment"]))})


def test_code(ledger: Ledger, db: Database) -> None:
    start = start_of(ledger, "segment") | start_of(ledger, "synapses")
    for name in ("kernels.bridge", "connectome_db.kernels.bridge"):
        check(ledger, db, impact_of.of_code(db, STAGES, name), start)


def test_a_tile_that_no_block_shows(own_history: Path) -> None:
    path = own_history / "data" / "ingest" / "tile.parquet"
    tiles = pq.read_table(path)
    lost = tiles.slice(0, 1).set_column(tiles.column_names.index("tile"), tiles.schema.field("tile"), [["far.png"]])
    path.unlink()
    pq.write_table(tiles.slice(0, 0), path)
    with open_database(own_history) as db, pytest.raises(QueryError, match="no section 0"):
        impact.of_section(db, 0)
    pq.write_table(lost, path)
    with open_database(own_history) as db:
        told = counted(db, impact.of_tile(db, "far.png"))
        assert [told[f"{s} units"][0] for s in ("ingest", "montage", "match", "render", "segment")] == [1, 1, 2, 0, 0]
        assert told["supervoxels"][0] == told["edges"][0] == 0
        assert (
            run_query(db, "impact_of_tile", {"tile": "far.png"})["direct"].to_pylist().count(True) == 5
        )  # ingest, montage, match twice, measure_raw


def test_sql_says_the_same(ledger: Ledger, db: Database) -> None:
    tile = read(ledger.root, "ingest", "tile")[17]["tile"]
    code = int(ids.pack([(1, 2, 1)])[0])
    asked = [
        (impact.of_tile(db, tile), "impact_of_tile", {"tile": tile}),
        (impact.of_block(db, "mask", (1, 2, 1)), "impact_of_unit", {"stage": "mask", "unit": code}),
        (impact.of_block(db, "align", (0, 0, 0)), "impact_of_unit",
         {"stage": "align", "unit": int(ids.pack([(0, 0, 0)])[0])}),
    ]  # fmt: skip
    for found, name, arguments in asked:
        rows = run_query(db, name, arguments).to_pylist()
        told = counted(db, found)
        assert {(r["stage"], r["unit"]) for r in rows if r["direct"]} == units_of(found)
        assert len(rows) == told["units"][1]
        for stage in ledger.units:
            assert sum(r["stage"] == stage for r in rows) == told[f"{stage} units"][1]


def test_lists_have_what_is_counted(db: Database) -> None:
    found = impact.of_block(db, "segment", (0, 3, 3))
    told = counted(db, found)
    for what in impact.THINGS:
        direct = impact.listing(db, found, what)
        both = impact.listing(db, found, what, possible=True)
        assert (direct.num_rows, both.num_rows) == told[what]
        assert direct["direct"].to_pylist() == [True] * direct.num_rows
        assert both["direct"].to_pylist().count(True) == direct.num_rows
    assert 0 < told["objects"][0] < told["objects"][1]


def test_walks_are_those_of_the_ledger(ledger: Ledger, db: Database) -> None:
    for stage, code in [("score", 5), ("match", 3), ("align", 0), ("graph", 0)]:
        key = (stage, ledger.units[stage][code]["unit"])
        down = {(r["stage"], r["unit"]) for r in downstream_units(db, *key).to_pylist()}
        assert down | {key} == ledger.walk({key}, through_solves=True)
        up, todo = {key}, [key]
        while todo:
            new = ledger.makers[todo.pop()] - up
            up |= new
            todo += new
        assert {(r["stage"], r["unit"]) for r in upstream_units(db, *key).to_pylist()} | {key} == up


@pytest.mark.parametrize("cells", [1 << 25, 0])
def test_touches_is_the_join(monkeypatch: pytest.MonkeyPatch, cells: int) -> None:
    monkeypatch.setattr("connectome_db.query.reach._MAX_CELLS", cells)
    rng = np.random.default_rng(4)
    for size in (0, 1, 3):
        lo = rng.integers(-12, 12, (300, 3))
        boxes = np.concatenate([lo, lo + rng.integers(0, 5, (300, 3))], axis=1)
        lo = rng.integers(-9, 9, (40, 3))
        others = np.concatenate([lo, lo + rng.integers(1, 2 + size, (40, 3))], axis=1)[: 10 * size]
        indptr, _ = touching(boxes, others)
        assert (touches(boxes, others) == (np.diff(indptr) > 0)).all()


def test_unknown_names_name_the_nearest(ledger: Ledger, db: Database) -> None:
    tile = read(ledger.root, "ingest", "tile")[0]["tile"]
    corner = ("corner", Box((0, 0, 0), (8, 64, 64)))
    for ask, says in [
        (lambda: impact.of_tile(db, tile.removesuffix("g")), f"did you mean '{tile}'"),
        (lambda: impact.of_section(db, 99), "sections 0 to 9"),
        (lambda: impact.of_block(db, "segmnt", (0, 0, 0)), "did you mean 'segment'"),
        (lambda: impact.of_block(db, "segment", (0, 9, 0)), "its blocks have z 0 to 1, y 0 to 3, x 0 to 3"),
        (lambda: impact.of_model(db, "phantom-clft"), "did you mean 'phantom-cleft'"),
        (lambda: impact.of_parameter(db, "segment.bondary"), "did you mean 'boundary'"),
        (lambda: impact.of_parameter(db, "align.anchor", corner), "runs once for the whole dataset"),
        (lambda: impact.of_stages(db, ["msk"], "stage msk"), "did you mean 'mask'"),
        (lambda: impact_of.of_code(db, STAGES, "kernels.brige"), "did you mean 'kernels.bridge'"),
        (lambda: impact_of.of_code(db, STAGES, "plans"), "outside the code digest"),
        (lambda: impact_of.region_box(db, open_revision(ledger.root), "cornr"), "did you mean 'corner'"),
        (lambda: impact.listing(db, impact.of_section(db, 1), "objecs"), "did you mean 'objects'"),
    ]:
        with pytest.raises(ConnectomeError) as e:
            ask()
        assert says in str(e.value)


def test_before_the_image_is_made(own_history: Path) -> None:
    made = [s.name for s in STAGES]
    for stage in made[made.index("render") :]:
        for folder in ("data", "provenance"):
            (own_history / folder / stage).rename(own_history / folder / f"was-{stage}")
    with open_database(own_history) as db:
        told = counted(db, impact.of_section(db, 3))
        assert told["units"] == (6, 7)
        assert "objects" not in told
        with pytest.raises(QueryError, match="run `dvc repro`"):
            impact.listing(db, impact.of_section(db, 3), "objects")


def run(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["impact", *words])
    return done.exit_code, done.output if done.exception is None else str(done.exception)


def test_the_command(history: Path, db: Database) -> None:
    at = ["-C", str(history)]
    code, text = run("block", "segment", "0", "3", "3", "--json", *at)
    told = counted(db, impact.of_block(db, "segment", (0, 3, 3)))
    assert code == 0
    assert {r["what"]: (r["direct"], r["possible"]) for r in json.loads(text)["counts"]} == told
    _, text = run("block", "segment", "0", "3", "3", "--list", "objects", "--format", "json", *at)
    listed = json.loads(text)
    assert len(listed) == told["objects"][0]
    assert all(isinstance(r["object"], str) for r in listed)
    _, text = run("region", "corner", *at)
    assert "reconcile, agglomerate, graph" in text
    _, then = run("stage", "segment", "--rev", "v1", "--format", "csv", *at)
    _, now = run("stage", "segment", "--format", "csv", *at)
    assert "segment units,32,32,32" in then
    assert "segment units,32,32,32" in now
    assert [line for line in then.splitlines() if line.startswith("supervoxels")] != [
        line for line in now.splitlines() if line.startswith("supervoxels")
    ]
    for words, says in [
        (("block", "segment", "1"), "impact block STAGE Z Y X"),
        (("section", "first"), "impact section N"),
        (("tile", "x", "--region", "corner"), "--region goes with"),
    ]:
        code, text = run(*words, *at)
        assert code == 1
        assert says in text

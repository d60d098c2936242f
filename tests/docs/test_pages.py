"""The reference is current, names everything, links lead somewhere, SQL runs, files on the pages can be read."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tifffile
from ruamel.yaml import YAML

from connectome_db import config, importing
from connectome_db.config import Launch
from connectome_db.errors import QueryError
from connectome_db.finish import finish
from connectome_db.manifest import COLUMNS, read_manifest
from connectome_db.query import named
from connectome_db.query.database import Database, Other, open_database
from connectome_db.runner import run_units
from connectome_db.schema.all import TABLES
from connectome_db.schema.provenance import PROVENANCE
from connectome_db.search.spec import parse as parse_search
from connectome_db.stages.pipeline import STAGES
from connectome_db.versions.plan.machine import parse_machine
from tests import tiny_project
from tests.docs.pages import PAGES, ROOT, blocks, command_lines, generate

DOCS = ROOT / "docs"
SQL = [(str(p.relative_to(ROOT)), text) for p in PAGES for text in blocks(p, "sql") if not text.startswith("-- title")]
OWN = [text for p in PAGES for text in blocks(p, "sql") if text.startswith("-- title")]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_project.write(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def db(tiny: Path) -> Database:
    return open_database(tiny, timeout_s=60)


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A connectome made elsewhere, of one connection."""
    folder = tmp_path_factory.mktemp("imported")
    (folder / "edges.csv").write_text("pre,post,weight\n1,2,3\n")
    found = importing.choose_columns(folder / "edges.csv", folder / "p")
    project = importing.bring(folder / "p", found.synapses, name="imported")
    for stage in project.stages:
        finish(*run_units(project, stage.name))
    with open_database(project.root) as opened:
        yield opened


def test_the_reference_is_current() -> None:
    assert list(generate().stale()) == [], "run: python docs/generate.py"


def test_a_page_that_is_not_current_is_noticed(tmp_path: Path) -> None:
    assert list(generate().stale(tmp_path)) == list(generate().PAGES)


def reference(page: str) -> str:
    return (DOCS / "reference" / page).read_text(encoding="utf-8")


@pytest.mark.parametrize("stage", STAGES, ids=lambda s: s.name)
def test_a_stage_is_in_the_reference_with_all_it_makes(stage) -> None:
    assert re.search(rf"^## \d+ {stage.name}$", reference("stages.md"), re.MULTILINE)
    section = reference("stages.md").split(f" {stage.name}\n", 1)[1].split("\n## ")[0]
    for name in [*stage.inputs, *(f"{stage.name}.{o.name}" for o in stage.outputs)]:
        assert f"`{name}`" in section
    mine = reference("parameters.md").split(f"## params.yaml: {stage.name}\n", 1)[1].split("\n## ")[0]
    for parameter in stage.params.model_fields:
        assert f"| `{parameter}` |" in mine


@pytest.mark.parametrize("table", [*TABLES.values(), *PROVENANCE], ids=lambda t: t.name)
def test_a_table_is_in_the_reference_with_every_column(table) -> None:
    mine = reference("tables.md").split(f"\n### {table.name}\n", 1)[1].split("\n### ")[0]
    assert table.doc in mine
    for column in table.columns:
        assert f"| `{column.name}` | {column.dtype} |" in mine


def test_units_per_kind_are_told_as_the_plans_make_them() -> None:
    text = (DOCS / "concepts.md").read_text(encoding="utf-8")
    kind_of = generate().kind_of
    for kind in {kind_of(s) for s in STAGES}:
        row = re.search(rf"^\| {kind} \|[^|]*\|([^|]*)\|$", text, re.MULTILINE)
        assert row
        assert set(re.findall(r"`(\w+)`", row[1])) == {s.name for s in STAGES if kind_of(s) == kind}


@pytest.mark.parametrize(("page", "text"), SQL, ids=[f"{p}-{i}" for i, (p, _) in enumerate(SQL)])
def test_sql_on_a_page_runs(request: pytest.FixtureRequest, page: str, text: str) -> None:
    db = request.getfixturevalue("imported" if page == "docs/imported.md" else "db")
    assert db.sql(text).column_names, page


def test_the_join_from_synapse_to_tile_finds_tiles(db: Database) -> None:
    text = next(text for _, text in SQL if "image_source" in text)
    assert db.sql(text).num_rows > 0


WITH_VALUE = {"-C", "--project", "--rev", "--format", "--limit", "--receipt"}
"""Options of `sql` and `query` that are followed by a word of their own."""


def _judged(words: list[str]) -> contextlib.AbstractContextManager[None]:
    """Lets a query of quality fail: the tiny project has no stage that measures. Those are tested in tests/query."""
    asks = any(w in text for text in words for w in ("quality", "weighted_", "connections("))
    return contextlib.suppress(*([QueryError] if asks else []))


def test_sql_and_queries_in_command_lines_run(db: Database, tiny: Path) -> None:
    run = 0
    for line in command_lines():
        words = [w for f, w in pairwise(["", *line.words]) if not (w.startswith("-") or f in WITH_VALUE)]
        if words[:1] == ["sql"] and len(words) > 1 and not line.inline:
            also = [w.partition("=") for flag, w in pairwise(line.words) if flag == "--rev" and "=" in w]
            with open_database(tiny, also={name: Other(tiny, at) for name, _, at in also}) as beside, _judged(words):
                assert beside.sql(words[1]).column_names
            run += 1
        if words[:1] == ["query"] and len(words) > 1 and "--describe" not in line.words and not line.inline:
            arguments = [w for w in words[2:] if "=" in w]
            with _judged([*words, *arguments]):
                assert named.run_query(db, words[1], named.parse_arguments(arguments)).column_names
            run += 1
    assert run >= 6


@pytest.mark.parametrize("text", OWN, ids=lambda t: t.splitlines()[0][10:40])
def test_a_named_query_on_a_page_is_one(db: Database, tiny: Path, text: str) -> None:
    (tiny / "queries").mkdir(exist_ok=True)
    (tiny / "queries" / "from_the_page.sql").write_text(text, encoding="utf-8")
    query = named.list_queries(tiny)["from_the_page"]
    assert named.run_query(db, "from_the_page", query.example).column_names == list(query.columns)


def test_the_manifests_on_the_page_can_be_read(tmp_path: Path) -> None:
    page = DOCS / "your-data.md"
    (tmp_path / "m.csv").write_text(blocks(page, "csv")[0])
    (tmp_path / "m.json").write_text(blocks(page, "json")[0])
    layout, folder = blocks(page, "text")[:2]
    (tmp_path / "m.txt").write_text(layout)
    assert len(read_manifest(tmp_path / "m.csv").entries) == 4
    json_tiles = read_manifest(tmp_path / "m.json", pixel_nm=(4.0, 4.0)).entries
    assert [(e.stage_x_px, e.value_range) for e in json_tiles] == [(0.0, (300, 2900)), (900.0, (300, 2900))]
    assert [e.tile for e in read_manifest(tmp_path / "m.txt").entries] == ["t0.png", "t1.png"]
    (tmp_path / "grid").mkdir()
    for name in folder.split():
        tifffile.imwrite((tmp_path / "grid" / name).with_suffix(".tif"), np.zeros((8, 8), np.uint8))
    grid = read_manifest(tmp_path / "grid", overlap_px=(2, 2)).entries
    assert [(e.section, e.stage_y_px, e.stage_x_px) for e in grid] == [(7, y, x) for y in (0, 6) for x in (0, 6)]


def test_every_column_of_a_manifest_is_told() -> None:
    text = (DOCS / "your-data.md").read_text(encoding="utf-8")
    assert [c for c in COLUMNS if f"`{c}`" not in text] == []


def test_yaml_on_the_pages_is_valid(tmp_path: Path) -> None:
    head = "dataset: {name: page, voxel_nm: [30, 8, 8]}\n"
    texts = [text for p in PAGES if "README" not in p.name for text in blocks(p, "yaml")]
    assert len(texts) >= 3
    for text in texts:
        keys = YAML(typ="safe").load(text).keys()
        if "speeds" in keys:
            assert parse_machine(text, "a page").flop_per_move > 0
            continue
        if "vary" in keys:
            assert parse_search(YAML(typ="safe").load(text), "a page").fixed
            continue
        launch = set(keys) <= set(Launch.model_fields)
        (tmp_path / "launch.yaml").write_text(text if launch else "")
        (tmp_path / "params.yaml").write_text(head if launch else head + text)
        config.load(tmp_path, STAGES)


def test_the_site_builds_and_every_link_leads_somewhere(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="mkdocs-material is in the extra `docs`")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stderr
    index = json.loads((tmp_path / "site" / "search" / "search_index.json").read_text())
    assert len({d["location"].split("#")[0] for d in index["docs"]}) == len(list(DOCS.rglob("*.md")))
    for page in (tmp_path / "site").rglob("*.html"):
        loaded = re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=[\"']?(https?:[^\"' >]+)", page.read_text("utf-8"))
        assert loaded == [], f"{page.name} loads something from elsewhere"


def test_pages_name_no_machine_path() -> None:
    for page in PAGES:
        assert not re.search(r"/(?:work|root|tmp|home)/", page.read_text(encoding="utf-8")), page

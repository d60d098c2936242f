"""What is kept of the results, and the gate: DVC runs both, and a gate that fails leaves all there is to read."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from rich.console import Console
from typer.testing import CliRunner

from connectome_db import config, dvcfile, importing
from connectome_db.cli.main import app
from connectome_db.errors import ConfigError, QueryError, RunError
from connectome_db.qa import pages, report, results
from connectome_db.qa.settings import QaParams
from connectome_db.stages.imported import STAGES
from tests import tiny_project
from tests.framework.conftest import tree
from tests.versioned import edit_params

LIST = "pre,post,synapses\nA,B,3\nB,A,1\nA,C,2\nA,A,5\n"
"""5 of 11 synapses are of a neuron onto itself, which is expected of 5 % at most."""
LIMITS = QaParams(largest_object_max=0.4)


def do(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [sys.executable, "-m", *words], cwd=root, capture_output=True, text=True, check=False,
        env=os.environ | {"PATH": path, "COLUMNS": "200"},
    )  # fmt: skip


def check(root: Path, *words: str) -> Any:
    """`connectome check` in this process."""
    return CliRunner().invoke(app, ["check", "-C", str(root), *words], env={"COLUMNS": "200"})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An imported list of four rows, before anything was run."""
    root, folder = tmp_path_factory.mktemp("gate") / "p", tmp_path_factory.mktemp("in")
    (folder / "edges.csv").write_text(LIST)
    listed = importing.choose_columns(
        folder / "edges.csv", root, pre=None, post=None, weight=None, synapse=None, where={}
    )
    importing.bring(root, listed.synapses, name="list")
    return root


@pytest.mark.slow
def test_dvc_repro_stops_at_the_gate_and_the_results_are_there(made: Path) -> None:
    done = do(made, "dvc", "repro")
    assert done.returncode == 0, done.stderr
    assert "qa.strict is off" in done.stdout
    written = (made / results.FILE).read_bytes()
    keys = pq.read_table(made / "data/graph/units.parquet")["unit_key"].to_pylist()

    edit_params(made, lambda p: p["qa"].__setitem__("strict", "warning"))
    done = do(made, "dvc", "repro")
    assert done.returncode != 0
    assert "warning: link: share of the synapses of a neuron onto itself: 0.05 or less: 1 of 1" in done.stderr
    assert "index.html" in done.stderr
    assert "connectome run" not in done.stdout  # no data was made anew
    assert "check --write" not in done.stdout  # nor were the results
    assert (made / results.FILE).read_bytes() == written
    assert (made / pages.DOCS / "index.html").is_file()

    edit_params(made, lambda p: p["qa"].__setitem__("autapses_max", 0.5))
    done = do(made, "dvc", "repro")
    assert done.returncode == 0, done.stderr
    assert "let pass under qa.strict: warning" in done.stdout
    assert "connectome run" not in done.stdout
    assert pq.read_table(made / "data/graph/units.parquet")["unit_key"].to_pylist() == keys


@pytest.fixture
def judged(tmp_path: Path) -> Path:
    """The tiny project with results; it has warnings, and one error: an object of half the volume."""
    root = tiny_project.write(tmp_path)
    report.write(root, "tiny <project>", LIMITS)
    return root


def test_the_gate_lets_pass_what_is_less_grave(judged: Path) -> None:
    assert "off" in report.gate(judged, "off")
    with pytest.raises(RunError, match=r"1 of \d+ expectations are not met.*\n  error: object: share of all objects"):
        report.gate(judged, "error")
    with pytest.raises(RunError, match=r"(?s)error: object: .*warning: tile: .*worst at tile s0/t00\.png"):
        report.gate(judged, "warning")
    report.write(judged, "tiny", QaParams())
    assert "let pass" in report.gate(judged, "error")


def test_results_are_rows_with_what_they_are_about(judged: Path) -> None:
    table = pq.read_table(judged / results.FILE)
    assert table.schema.names[:4] == ["table", "name", "expectation", "columns"]
    told = table.schema.metadata
    assert json.loads(told[b"tables"])["tile"] == _sha256(judged / "data/ingest/tile.parquet")
    assert told[b"connectome_db"].decode() == results.version()
    run = json.loads((judged / results.RUN).read_text())
    assert set(run) == {"commit", "connectome_db", "dirty", "tables"}
    (largest,) = [r for r in results.read(judged) if r.name == "largest_object"]
    assert (largest.severity, largest.success, largest.observed) == ("error", False, 0.5)


def _sha256(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_same_data_gives_the_same_bytes(judged: Path, tmp_path: Path) -> None:
    other = tiny_project.write(tmp_path / "other")
    report.write(other, "tiny <project>", LIMITS)
    assert tree(judged / "qa") == tree(other / "qa")


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [v or "" for k, v in attrs if k in {"href", "src", "action", "data"}]


def test_pages_ask_nothing_of_a_network_and_lead_to_each_other(judged: Path) -> None:
    folder = judged / pages.DOCS
    found = sorted(folder.iterdir())
    assert {p.suffix for p in found} == {".html"}
    for path in found:
        text = path.read_text()
        page = _Page(text)
        assert not {"script", "link", "img", "iframe"} & set(page.tags)
        assert not re.search(r"https?:|url\(|@import", text)
        assert all((folder / link).is_file() for link in page.links)
    index = (folder / "index.html").read_text()
    assert "tiny &lt;project&gt;" in index
    assert '<b class="error">1 error</b>' in index
    assert index.index("largest_object") < index.index("tile_saturation")  # the gravest first


def test_the_command(judged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connectome_db.cli.checks.OUT", Console(width=200))
    dataset = "dataset: {name: tiny, voxel_nm: [40, 8, 8]}\n"
    (judged / "params.yaml").write_text(dataset)  # as it was before there was `qa:`
    assert check(judged, "--engine", "direct").exit_code == 0
    (judged / "params.yaml").write_text(f"{dataset}qa: {{largest_object_max: 0.4}}\n")
    done = check(judged, "--engine", "direct")
    assert done.exit_code == 1
    assert re.search(r"error .*object .*share of all objects' volume", done.stdout)
    assert "1 error, 4 warning" in done.stdout
    assert check(judged, "--engine", "direct", "--strict-qa", "off").exit_code == 0
    assert check(judged, "--gate").exit_code == 0
    done = check(judged, "--gate", "--strict-qa", "error")
    assert (done.exit_code, type(done.exception)) == (1, RunError)  # which `run` prints without a traceback
    (judged / results.FILE).unlink()
    assert "connectome check --write" in str(check(judged, "--gate").exception)
    assert check(judged, "--write").exit_code == 0
    assert (judged / results.FILE).is_file()
    assert "--rev goes with neither" in str(check(judged, "--write", "--rev", "v1").exception)


def test_results_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="dvc repro qa"):
        results.read(tmp_path)
    (tmp_path / "qa").mkdir()
    (tmp_path / results.FILE).write_bytes(b"PAR1 and no more")
    with pytest.raises(QueryError, match="makes it again"):
        results.read(tmp_path)


def test_settings_are_in_no_stage_and_judge_only_what_they_should(made: Path) -> None:
    def identities(text: str) -> dict[str, str]:
        dvcfile.write_identity(config.load(made, STAGES, text))
        return {p.name: p.read_text() for p in (made / "identity").glob("*.json")}

    given = (made / "params.yaml").read_text()
    kept = {p.name: p.read_bytes() for p in (made / "identity").glob("*.json")}
    try:
        first = identities(given.replace("strict: warning", "strict: off"))
        strict = identities(re.sub(r"strict: \w+", "strict: error", given))
        limit = identities(re.sub(r"counted_min: .*", "counted_min: 0.1", given))
        absent = identities(given[: given.index("\n# qa:")])
    finally:
        for name, data in kept.items():
            (made / "identity" / name).write_bytes(data)
    assert [n for n in first if first[n] != strict[n]] == ["gate.json"]
    assert set(limit) == {f"{n}.json" for n in ("listing", "annotations", "skeletons", "graph", "qa", "gate")}
    assert limit["qa.json"] != first["qa.json"]
    assert {n: limit[n] for n in ("listing.json", "graph.json")} == {
        n: first[n] for n in ("listing.json", "graph.json")
    }
    assert json.loads(absent["qa.json"])["params"] == QaParams().model_dump(mode="json", exclude={"strict"})
    with pytest.raises(ConfigError, match=r"qa\.stric: no such parameter; did you mean 'strict'"):
        config.load(made, STAGES, re.sub(r"strict: \w+", "stric: error", given))

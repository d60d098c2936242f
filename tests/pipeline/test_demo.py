"""`connectome demo`, as a user runs it: the whole phantom, held against its targets, and what it prints."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import traceback
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

import pytest

from connectome_db import config
from connectome_db.cli.main import run
from connectome_db.errors import ConfigError
from connectome_db.stages.pipeline import STAGES
from tests.pipeline.conftest import tree


def connectome(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "connectome_db.cli.main", *words]
    env = os.environ | {"COLUMNS": "160"}
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, env=env)


def here(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The same from its entry point in this process, which has loaded the libraries already."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with chdir(cwd), redirect_stdout(out), redirect_stderr(err), mock.patch.object(sys, "argv", ["connectome", *words]):
        try:
            run()
        except SystemExit as e:
            code = e.code if isinstance(e.code, int) else int(e.code is not None)
        except Exception:
            traceback.print_exc()
            code = 1
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    root = tmp_path_factory.mktemp("demo") / "demo"
    done = connectome("demo", str(root))
    assert done.returncode == 0, done.stderr[-3000:]
    return root, done.stdout


@pytest.mark.slow
def test_the_demo_meets_its_targets(demo):
    root, _ = demo
    measures = json.loads((root / "measures.json").read_text())
    missed = [
        m
        for m in measures
        if (m["at_most"] is not None and m["value"] > m["at_most"])
        or (m["at_least"] is not None and m["value"] < m["at_least"])
    ]
    assert missed == []
    assert {m["layer"] for m in measures} == {"montage", "align", "segment", "agglomerate", "synapses", "graph"}


@pytest.mark.slow
def test_the_demo_prints_what_the_readme_says(demo):
    root, text = demo
    for wanted in (
        "adapted Rand error",
        "Where does one edge come from?",
        "sha256",
        "Which connections are strongest?",
    ):
        assert wanted in text
    for stage in STAGES:
        assert re.search(rf"\b{stage.name}\b", text)
    assert (root / "pictures" / "overview.png").stat().st_size > 50_000


@pytest.mark.slow
def test_nothing_to_do_the_second_time(demo):
    root, _ = demo
    before = tree(root / "data")
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )
    assert done.returncode == 0, done.stderr
    assert "Running stage 'ingest'" not in done.stdout
    assert tree(root / "data") == before
    status = here("status", cwd=root)
    assert "Everything is current." in status.stdout


@pytest.mark.slow
def test_questions_from_the_command_line(demo):
    root, _ = demo
    rows = json.loads(here("query", "strongest_connections", "limit=2", "--format", "json", cwd=root).stdout)
    edge = (rows[0]["pre"], rows[0]["post"])
    assert int(edge[0]) > 2**53
    assert rows[0]["pre"] == str(int(rows[0]["pre"]))
    trace = json.loads(here("trace", "edge", *edge, "--json", cwd=root).stdout)
    assert "sha256" in json.dumps(trace)
    assert here("trace", "edge", *edge, "--dot", cwd=root).stdout.startswith("digraph")
    assert here("sql", "SELECT count(*) AS n FROM synapse", "--format", "csv", cwd=root).stdout.startswith("n\n")
    assert here("check", cwd=root).returncode == 0
    z = config.load(root, STAGES).dataset.voxel_nm[0]
    assert z == 30
    assert "supervoxel" in here("trace", "voxel", "24", "200", "200", cwd=root).stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("run", "segmnt"), "no stage 'segmnt'; did you mean 'segment'"),
        (("run", "segment", "--part", "3/2"), "wanted i/n with 0 <= i < n"),
        (("sql", "SELECT * FROM synapsis"), "synapse"),
        (("sql", "SELECT pree FROM connection"), "pre"),
        (("sql", "DROP TABLE synapse"), "read"),
        (("query", "partnerz"), "partners"),
        (("trace", "edge", "1", "2"), "no"),
        (("trace", "voxel", "9999", "0", "0"), "outside"),
        (("trace", "object", "12"), "no object 12"),
        (("tables", "synapsee"), "synapse"),
        (("init", "elsewhere", "--voxel-nm", "30"), "wanted three numbers"),
    ],
    ids=lambda v: " ".join(v[:2]) if isinstance(v, tuple) else "",
)
def test_bad_input_is_told_without_a_traceback(demo, words, message):
    root, _ = demo
    done = here(*words, cwd=root)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_the_demo_replaces_only_what_it_made(tmp_path):
    from rich.console import Console

    from connectome_db.demo import run_demo

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(ConfigError, match="was not made by the demo"):
        run_demo(tmp_path / "mine", data=None, ranks=0, small=True, out=Console(quiet=True))
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"


def test_outside_a_project_it_says_so(tmp_path):
    done = connectome("status", cwd=tmp_path)
    assert done.returncode == 1
    assert "no params.yaml" in done.stderr

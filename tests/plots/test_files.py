"""Files of pictures: the same bytes each time, nothing from outside, and data that stays data; the commands."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from connectome_db.cli.main import app
from connectome_db.errors import QueryError
from connectome_db.plots.motifs import motif_table
from connectome_db.plots.neuron import neuron
from connectome_db.plots.picture import save, to_bytes
from connectome_db.plots.sankey import sankey
from connectome_db.query.database import Database
from tests.diagnosis.html_facts import Facts
from tests.diagnosis.test_page import CHROMIUM, _browse
from tests.query.tiny_imported import A, B, D

EVIL = "</script><script>alert(1)</script><img src=http://example.org/x> $x_{2}$"
FLOW = pa.table({"source": [EVIL, "b"], "target": ["x", "y"], "synapses": [3, 4]})


def test_the_same_picture_gives_the_same_bytes(db: Database) -> None:
    first, again = neuron(db, [A, B]), neuron(db, [A, B])
    for kind in (".png", ".html"):  # the page holds the SVG
        assert to_bytes(first, kind) == to_bytes(again, kind)
        assert len(to_bytes(first, kind)) > 5000


def test_a_file_is_what_its_name_says(tmp_path: Path) -> None:
    picture = sankey(FLOW)
    assert save(picture, tmp_path / "new" / "a.PNG").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in save(picture, tmp_path / "a.svg").read_text()[:400]
    assert save(picture, tmp_path / "a.html").read_text().startswith("<!DOCTYPE html>")
    for name in ("a.jpg", "a"):
        with pytest.raises(QueryError, match=r"a picture is \.png, \.svg or \.html"):
            save(picture, tmp_path / name)
    (tmp_path / "file").write_text("")
    with pytest.raises(QueryError, match="cannot be written"):
        save(picture, tmp_path / "file" / "a.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.html", "a.svg", "file", "new"]


def test_a_page_asks_for_nothing_and_runs_nothing_of_the_data(db: Database) -> None:
    page = to_bytes(sankey(FLOW), ".html").decode()
    facts = Facts(page)
    assert facts.requests() == []
    assert page.count("<script>") == 1
    assert "<script>alert" not in page
    assert "<img" not in page
    assert "alert(1)" in facts.text  # it is shown as the text that it is
    policy = facts.all("meta", http_equiv="Content-Security-Policy")[0]["content"]
    assert policy.startswith("default-src 'none'")
    assert policy.count("'sha256-") == 1
    model = to_bytes(neuron(db, [A]), ".html").decode()
    assert Facts(model).all("meta", http_equiv="Content-Security-Policy")[0]["content"].count("'sha256-") == 2
    scene = re.search(r'id="scene">(.*?)</script>', model)
    assert scene is not None
    assert json.loads(scene[1])["groups"][0]["name"] == str(A)


def test_a_notebook_is_given_an_image() -> None:
    shown = motif_table(pa.table({"motif": ["030T"], "count": [3]}))._repr_html_()
    assert shown.startswith('<img src="data:image/png;base64,')


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_browser_draws_the_model(db: Database, tmp_path: Path) -> None:
    page = save(neuron(db, [A, B]), tmp_path / "n.html")
    dom, asked = _browse(page, tmp_path, "--dump-dom")
    facts = Facts(dom)
    assert facts.all("canvas")[0]["data-drawn"] == "2"
    assert len(facts.all("input", type="checkbox")) == 2
    assert asked == set()


COMMANDS = (
    "matrix --by id", "degrees", "motifs --nulls 2", "sankey", f"neuron {A}", "density",
    f"paths {A} --to {D} --steps 3",
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_draws(command: str, listed: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.svg"
    done = CliRunner().invoke(app, ["plot", *command.split(), "--out", str(out), "-C", str(listed)])
    assert done.exit_code == 0, done.output
    assert "tiny worm · working tree" in out.read_text()
    assert str(out) in done.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("plot matrix --out p.pdf", "a picture is .png, .svg or .html, and this ends in '.pdf'"),
        ("plot neuron KC9 --out p.png", "no neuron is called 'KC9'"),
        ("plot neuron 5 --out p.png", "no neuron 5"),
        ("plot sankey --by typ --out p.png", "no annotation of kind 'typ'; did you mean 'type'?"),
        ("query degree_distribution --plot p.gif", "this ends in '.gif'"),
    ],
)
def test_what_cannot_be_drawn_is_said_and_nothing_is_written(
    words: str, message: str, listed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, [*words.split(), "-C", str(listed)])
    assert isinstance(done.exception, QueryError)
    assert message in str(done.exception)
    assert list(tmp_path.iterdir()) == []


def test_answers_are_printed_and_drawn(listed: Path, tmp_path: Path) -> None:
    flow = tmp_path / "flow.svg"
    asked = ["query", "connection_matrix", "kind=type", "--plot", str(flow), "-C", str(listed)]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert "matrix of groups, because the query is called connection_matrix" in " ".join(done.output.split())
    assert "PN" in done.output
    assert "connection_matrix kind=type" in flow.read_text()
    asked = ["sql", "SELECT synapses FROM connection", "--plot", str(tmp_path / "s.png"), "-C", str(listed)]
    assert CliRunner().invoke(app, asked).exit_code == 0
    assert (tmp_path / "s.png").stat().st_size > 5000

"""`connectome import` as it is typed: what it shows, what it asks for, what it refuses, what it adds to later."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from connectome_db import importing
from connectome_db.cli import console
from connectome_db.cli.main import app
from connectome_db.config import load
from connectome_db.errors import ConnectomeError
from connectome_db.stages.imported import STAGES

LIST = "pre,post,Type,ctr_x,ctr_y,ctr_z,note\n1,2,chemical,1,2,3,a\n2,3,electrical,4,5,6,b\n0,3,chemical,4,5,6,c\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a list, annotations and skeletons; versions are committed without running `dvc repro`."""
    (tmp_path / "list.csv").write_text(LIST)
    (tmp_path / "types.csv").write_text("neuron,type\n1,x\n9,y\n")
    (tmp_path / "swc").mkdir()
    (tmp_path / "swc" / "1.swc").write_text("1 1 0 0 0 1 -1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importing, "make_version", lambda *_: None)
    monkeypatch.setattr(console.OUT, "width", 200)
    return tmp_path


def _import(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["import", *arguments])


def _refused(*arguments: str) -> str:
    result = _import(*arguments)
    assert isinstance(result.exception, ConnectomeError), result.output
    return str(result.exception)


def test_it_asks_for_what_cannot_be_known_and_names_rows(folder: Path) -> None:
    assert "Give --unit nm, um or vx" in _refused("list.csv", "p")
    assert "give their size: --voxel-nm" in _refused("list.csv", "p", "--unit", "vx")
    assert "row 3: '0'" in _refused("list.csv", "p", "--unit", "nm", "--dry-run")
    assert "--voxel-nm is for places in voxels" in _refused("list.csv", "p", "--unit", "nm", "--voxel-nm", "40,4,4")
    assert "did you mean 'Type'" in _refused("list.csv", "p", "--position", "none", "--where", "Tipe=chemical")
    assert "import its list of synapses or connections first" in _refused("types.csv", "p")
    assert not (folder / "p").exists()


def test_a_dry_run_shows_the_mapping_counts_everything_and_writes_nothing(folder: Path) -> None:
    result = _import(
        "list.csv", "p", "--unit", "nm", "--set-aside", "--dry-run", "--annotations", "types.csv", "--skeletons", "swc",
        "--skeleton-unit", "nm",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    for text in (
        "presynaptic neuron", "ctr_x, ctr_y, ctr_z", "1, 2, 3", "Not imported: Type, note", "--where Type=chemical",
        "3 rows, 1 set aside, 2 imported", "row 3: '0'", "2 connections", "1 annotated neurons without connections",
        "1 nodes of skeletons",
    ):  # fmt: skip
        assert text in result.output
    assert not (folder / "p").exists()


def test_annotations_and_skeletons_are_added_later_and_replaced(folder: Path) -> None:
    first = _import("list.csv", "p", "--unit", "vx", "--voxel-nm", "40,4,4", "--set-aside", "--where", "Type=chemical")
    assert first.exit_code == 0, first.output
    root = folder / "p"
    comments = (root / "params.yaml").read_text().count("#")
    for arguments in (("types.csv", "p"), ("types.csv", "p", "--licence", "CC-BY"), ("swc", "p", "--unit", "um")):
        assert _import(*arguments).exit_code == 0
    dataset = load(root, STAGES).dataset
    assert dataset.voxel_nm == (40.0, 4.0, 4.0)
    assert dataset.synapses and dataset.synapses.where == {"Type": "chemical"}  # noqa: PT018
    assert [(a.neuron, a.licence, a.source) for a in dataset.annotations] == [("neuron", "CC-BY", "unknown")]
    assert dataset.skeletons and dataset.skeletons.unit == "um"  # noqa: PT018
    assert (root / "params.yaml").read_text().count("#") == comments


def test_a_series_is_shown_once_and_made_version_by_version(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr(importing, "make_version", lambda _, *said: made.append(said))
    result = _import("list.csv", "p", "--position", "none", "--set-aside", "--versions-by", "Type")
    assert result.exit_code == 0, result.output
    assert made == [
        ("Import list.csv Type=chemical", "chemical"), ("Import list.csv Type=electrical", "electrical"),
    ]  # fmt: skip
    assert result.output.count("presynaptic neuron") == 1

"""The notebooks run from top to bottom on the real data, and are committed without what they show."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_is_committed_without_outputs_and_paths(path: Path) -> None:
    book = json.loads(path.read_text(encoding="utf-8"))
    code = [c for c in book["cells"] if c["cell_type"] == "code"]
    assert len(code) >= 5
    assert [c["outputs"] for c in code if c["outputs"]] == []
    assert "/home/" not in path.read_text(encoding="utf-8")


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_runs(path: Path, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient", reason="nbclient is in the extra `dev`")
    nbformat = pytest.importorskip("nbformat")
    monkeypatch.setenv("CONNECTOME_DATA", str(shared_data))
    monkeypatch.setenv("CONNECTOME_WORK", str(tmp_path))
    monkeypatch.setenv("CONNECTOME_STAGES", "Dataset1 Dataset6")  # two versions show the same as six
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    book = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(book, timeout=900, kernel_name="python3").execute()
    shown = "\n".join(str(c.get("outputs", "")) for c in book.cells)
    assert {"larva": "3,591 neurons", "worm": "connections of birth are kept"}[path.stem] in shown

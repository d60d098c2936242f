"""What `connectome doctor` says of an environment."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from connectome_db import doctor


def test_a_python_that_keeps_no_compiled_modules_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "numpy.pyc"
    monkeypatch.setattr(importlib.util, "cache_from_source", lambda _: str(kept))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    assert doctor._compiled().found == "are kept"
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    slow = doctor._compiled()
    assert slow.ok  # everything works
    assert "unset it, or run once `python -m compileall" in slow.found
    kept.touch()
    assert doctor._compiled().found == "are kept"


def test_a_folder_without_hard_links_is_told(tmp_path: Path) -> None:
    assert doctor._links(tmp_path).ok
    (tmp_path / "file").touch()
    refused = doctor._links(tmp_path / "file")
    assert not refused.ok
    assert "file system" in refused.remedy

"""A small phantom project with history.

v1   from scratch
v2   one region, `corner`, that holds one block of `segment`, has another seed window
v3   the threshold of `agglomerate`, for the whole dataset
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.conftest import done_once
from tests.shared_build import made_once
from tests.versioned import commit_version, edit_params


def weaken_corner(document: dict[str, Any]) -> None:
    """Version 2."""
    document["regions"] = {"corner": {"box_vx": [0, 0, 0, 8, 64, 64], "note": "weak osmium"}}
    document["overrides"] = {"segment": {"corner": {"seed_window_nm": 80}}}


def merge_less(document: dict[str, Any]) -> None:
    """Version 3."""
    document["agglomerate"]["threshold"] = 0.6


@pytest.fixture(scope="session")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the tags v1, v2 and v3, checked out at v3. Not to be changed: see `own_history`."""

    def make(root: Path) -> None:
        shutil.move(done_once(tmp_path_factory), root)
        commit_version(root, "v1")
        edit_params(root, weaken_corner)
        commit_version(root, "v2")
        edit_params(root, merge_less)
        commit_version(root, "v3")

    return made_once(tmp_path_factory, "history", make)


@pytest.fixture
def own_history(history: Path, tmp_path: Path) -> Path:
    """A copy of `history` to change; its files are copies, which share no inode with the original."""
    return Path(shutil.copytree(history, tmp_path / "p", symlinks=True))

"""Reading a project as of a revision; on toy files, since the real pipeline's are tested in tests/versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from connectome_db.errors import RevisionError
from connectome_db.revisions import WORKING_TREE, cache_folder, lock_outs, open_revision, resolve


def test_a_lock_file_names_its_outputs() -> None:
    lock = "schema: '2.0'\nstages:\n  a:\n    cmd: x\n    outs:\n    - path: data/a\n      md5: 12.dir\n"
    assert lock_outs(lock, "here") == {"data/a": "12.dir"}
    assert lock_outs("", "here") == {}
    with pytest.raises(RevisionError, match="here: not a lock file"):
        lock_outs("stages: [1]", "here")


def test_the_cache_is_where_the_configuration_says(tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "sub").mkdir()
    assert cache_folder(tmp_path / "sub") == tmp_path / ".dvc" / "cache" / "files" / "md5"
    (tmp_path / ".dvc" / "config").write_text("[cache]\n    dir = ../elsewhere\n")
    assert cache_folder(tmp_path) == tmp_path / "elsewhere" / "files" / "md5"


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(RevisionError, match=r"no \.dvc folder"):
        cache_folder(tmp_path)
    with pytest.raises(RevisionError, match="knows no revision 'v1'"):
        resolve(tmp_path, "v1")
    with pytest.raises(RevisionError, match="is no revision"):
        resolve(tmp_path, "--help")
    assert open_revision(tmp_path).name == WORKING_TREE

"""Tables that are judged in pieces are judged as those that are held whole."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from connectome_db.qa import large
from connectome_db.qa.checks import check_tables
from connectome_db.qa.result import Result
from connectome_db.schema.all import STAGE_OF
from tests import tiny_project
from tests import tiny_rows as t
from tests.qa.test_checks import change


def told(results: list[Result]) -> list[tuple[object, ...]]:
    return [(r.table, r.says, r.success, r.rows, r.unexpected, r.example, r.place, r.unit) for r in results]


@pytest.mark.parametrize(
    ("table", "row", "column", "value"),
    [
        ("synapse", 3, "confidence", 1.5),
        ("supervoxel", 5, "supervoxel", t.a1),
        ("connection", 0, "post", 2**62 + 3),
        ("link", 2, "synapse", t.s4),
        ("object", 1, "object", 1),
        ("tile", 0, "sha256", None),
    ],
)
def test_pieces_tell_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str, row: int, column: str, value: object
) -> None:
    project = tiny_project.write(tmp_path)
    change(project, table, row, column, value)
    whole = check_tables(project, tables=[table])
    monkeypatch.setattr(large, "LARGE", 0)
    monkeypatch.setattr(large, "PIECE", 2)
    pieces = check_tables(project, tables=[table])
    assert told(pieces) == told(whole)
    assert not all(r.success for r in pieces)


def test_a_sound_project_passes_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tiny_project.write(tmp_path)
    whole = check_tables(project)
    monkeypatch.setattr(large, "LARGE", 0)
    monkeypatch.setattr(large, "PIECE", 1)
    assert told(check_tables(project)) == told(whole)


def test_no_more_than_a_piece_is_read_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tiny_project.write(tmp_path)
    monkeypatch.setattr(large, "PIECE", 2)
    path = project / "data" / STAGE_OF["supervoxel"] / "supervoxel.parquet"
    sizes = [piece.num_rows for piece in large.pieces(path)]
    assert max(sizes) == 2
    assert sum(sizes) == pq.read_metadata(path).num_rows

"""Manifests of raw tiles: every format, and every mistake named with its line."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import imagecodecs
import pytest

from connectome_db import sources
from connectome_db.errors import SourceError
from connectome_db.manifest import Entry, origin_of, read_manifest, to_csv
from tests.raw_tiles import HEADER, image, manifest_of, problems, put


def test_csv_and_json_give_the_same_manifest(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"x").hexdigest()
    header = f"{HEADER},height_px,width_px,sha256,row,col,range"
    rows = [f"b/t2.png,7,10.5,-20,40,50,{digest.upper()},0,1,0:4095", "./t1.png,6,1,2,,,,,,"]
    from_csv = manifest_of(tmp_path, rows, header)
    assert [(e.section, e.tile) for e in from_csv.entries] == [(6, "t1.png"), (7, "b/t2.png")]
    assert from_csv.entries[1] == Entry(
        "b/t2.png", 7, 10.5, -20.0, 40, 50, digest, 0, 1, (0, 4095), f"{tmp_path}/manifest.csv, line 2"
    )
    assert origin_of(from_csv) == (1, -20)
    objects = [
        {"path": "b/t2.png", "section": 7, "stage_y_px": 10.5, "stage_x_px": -20, "height_px": 40, "width_px": 50}
        | {"sha256": digest, "row": 0, "col": 1, "range": [0, 4095]},
        {"path": "t1.png", "section": 6, "stage_y_px": 1, "stage_x_px": 2, "height_px": None},
    ]
    (tmp_path / "m.json").write_text(json.dumps(objects))
    from_json = read_manifest(tmp_path / "m.json")
    bare = [vars(e) | {"where": ""} for e in from_csv.entries]
    assert [vars(e) | {"where": ""} for e in from_json.entries] == bare
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "again.csv").write_text(to_csv(from_csv, tmp_path / "sub"))
    again = read_manifest(tmp_path / "sub" / "again.csv")
    assert [again.file_of(e).resolve() for e in again.entries] == [from_csv.file_of(e) for e in from_csv.entries]
    assert [vars(e) | {"where": "", "tile": ""} for e in again.entries] == [e | {"tile": ""} for e in bare]


def test_positions_in_nm_need_the_pixel_size(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("path,section,stage_y_nm,stage_x_nm\na.png,0,80,60\n")
    entry = read_manifest(tmp_path / "m.csv", pixel_nm=(8.0, 4.0)).entries[0]
    assert (entry.stage_y_px, entry.stage_x_px) == (10.0, 15.0)
    with pytest.raises(SourceError, match=r"m\.csv, line 2: positions in nm need the pixel size"):
        read_manifest(tmp_path / "m.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "path,section,stage_y_px,stage_x_px,hieght_px\n",
            r"line 1: unknown column 'hieght_px'; did you mean 'height_px'",
        ),
        ("path,section,stage_y_px,stage_x_px,path\n", r"line 1: the column 'path' is there 2 times"),
        ("section,stage_y_px,stage_x_px\n", r"line 1: the column 'path' is missing"),
        ("path,section,stage_y_px\n", r"line 1: wanted the stage position .*came stage_y_px"),
        ("path,section\n", r"line 1: wanted the stage position .*came neither"),
        ("path,section,stage_y_px,stage_x_px,stage_y_nm,stage_x_nm\n", r"line 1: wanted the stage position"),
        (f"{HEADER}\na.png,0,1,2\nb.png,1.5,1,2\n", r"line 3: section: wanted an integer, came '1.5'"),
        (f"{HEADER}\na.png,9999,1,2\n", r"line 2: section: wanted -4096 to 4095, came 9999"),
        (f"{HEADER}\na.png,0,nan,2\n", r"line 2: stage_y_px: wanted a finite number, came 'nan'"),
        (f"{HEADER}\na.png,0,1\n", r"line 2: wanted 4 fields as in the header, came 3"),
        (f"{HEADER}\n,0,1,2\n", r"line 2: the path is empty"),
        (f"{HEADER},sha256\na.png,0,1,2,abc\n", r"line 2: sha256: wanted 64 hexadecimal digits, came 'abc'"),
        (f"{HEADER},range\na.png,0,1,2,9:3\n", r"line 2: range: wanted low:high"),
        (f"{HEADER},width_px\na.png,0,1,2,0\n", r"line 2: width_px: wanted a positive number of pixels, came 0"),
        (f"{HEADER}\n", r"lists no tiles"),
        ("", r"line 1: the column 'path' is missing"),
    ],
)
def test_wrong_csv_names_the_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(SourceError, match=message):
        read_manifest(tmp_path / "m.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"path": "a.png"}', "wanted a JSON list of objects"),
        ('[{"path": "a.png", "path": "b.png"}]', "the key 'path' twice"),
        ("[3]", "entry 1: wanted an object"),
        (
            '[{"path": "a.png", "section": 1.0, "stage_y_px": 1, "stage_x_px": 2}]',
            "section: wanted an integer, came '1.0'",
        ),
        (
            '[{"path": "a.png", "section": 1, "stage_y_px": "x", "stage_x_px": 2}]',
            "entry 1: stage_y_px: wanted a finite",
        ),
        ("[\n{,}]", "line 2: not JSON"),
        ("[]", "lists no tiles"),
    ],
)
def test_wrong_json_names_the_entry(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(SourceError, match=message):
        read_manifest(tmp_path / "m.json")


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "m.xml").write_text("<a/>")
    with pytest.raises(SourceError, match=r"'\.xml'; wanted \.csv, \.json, \.txt or a folder"):
        read_manifest(tmp_path / "m.xml")
    with pytest.raises(SourceError, match="no manifest at"):
        read_manifest(tmp_path / "none.csv")
    (tmp_path / "m.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SourceError, match="UTF-8"):
        read_manifest(tmp_path / "m.csv")


def test_sections_are_filtered_and_an_empty_filter_is_an_error(tmp_path: Path) -> None:
    manifest_of(tmp_path, ["a.png,1,0,0", "b.png,2,0,0", "c.png,3,0,0"])
    kept = read_manifest(tmp_path / "manifest.csv", sections=range(2, 4))
    assert [e.tile for e in kept.entries] == ["b.png", "c.png"]
    with pytest.raises(SourceError, match="lists 1 to 3"):
        read_manifest(tmp_path / "manifest.csv", sections={8})


def test_a_folder_is_a_grid_with_overlap(tmp_path: Path) -> None:
    put(tmp_path, ["s12_1_1.png", "s12_1_2.jpg", "s12_2_1.tif", "s13_1_1.png"])
    (tmp_path / "notes.md").write_text("not an image")
    (tmp_path / "s12_2_2.png").write_bytes(imagecodecs.png_encode(image(9, (40, 48))))
    manifest = read_manifest(tmp_path, overlap_px=(4, 5))
    assert [(e.section, e.tile, e.stage_y_px, e.stage_x_px) for e in manifest.entries] == [
        (12, "s12_1_1.png", 0.0, 0.0),
        (12, "s12_1_2.jpg", 0.0, 45.0),
        (12, "s12_2_1.tif", 36.0, 0.0),
        (12, "s12_2_2.png", 36.0, 45.0),
        (13, "s13_1_1.png", 0.0, 0.0),
    ]
    found = problems(sources.scan(manifest))
    assert found.pop("s12_2_2.png") == "wrong_size"
    assert set(found.values()) == {""}
    assert {e.section for e in read_manifest(tmp_path, overlap_px=(4, 5), section=3).entries} == {3}
    with pytest.raises(SourceError, match="give the overlap"):
        read_manifest(tmp_path)
    with pytest.raises(SourceError, match="less than the tile"):
        read_manifest(tmp_path, overlap_px=(40, 5))
    put(tmp_path / "b", ["ab_1_1.png"])
    with pytest.raises(SourceError, match="ends in no section number"):
        read_manifest(tmp_path / "b", overlap_px=(4, 5))
    put(tmp_path / "c", ["ab.png"])
    with pytest.raises(SourceError, match="<prefix>_<row>_<col>"):
        read_manifest(tmp_path / "c", overlap_px=(4, 5))


def test_layout_text(tmp_path: Path) -> None:
    line = "4\t12\t1.0\t0.0\t-86623.5\t0.0\t1.0\t334490.25\t3\t9\t0\t../elsewhere/tile_a.png\n"
    (tmp_path / "layout.txt").write_text(line + "\n")
    entry = read_manifest(tmp_path / "layout.txt").entries[0]
    assert (entry.tile, entry.section, entry.row, entry.col) == ("tile_a.png", 4, 3, 9)
    assert (entry.stage_y_px, entry.stage_x_px) == (334490.25, -86623.5)
    (tmp_path / "layout.txt").write_text(line + "4\t12\t1.0\n")
    with pytest.raises(SourceError, match=r"layout\.txt, line 2: wanted 12 fields"):
        read_manifest(tmp_path / "layout.txt")
    (tmp_path / "layout.txt").write_text(line.replace("4\t12", "4.5\t12"))
    with pytest.raises(SourceError, match=r"line 1: section: wanted an integer, came '4\.5'"):
        read_manifest(tmp_path / "layout.txt")


def shared_montage() -> Path:
    root = os.environ.get("CONNECTOME_SHARED")
    shared = Path(root) if root else Path(__file__).resolve().parents[2] / "shared"
    folder = shared / "data" / "montage"
    if not folder.is_dir():
        pytest.skip(f"the shared data package is not there ({folder}); set CONNECTOME_SHARED")
    return folder


@pytest.mark.shared
def test_real_montages_are_read_whole() -> None:
    folder = shared_montage()
    layout = folder / "fafb_z4" / "layout_acquire.txt"
    manifest = read_manifest(layout, origin_px=origin_of(read_manifest(layout)))
    table = sources.scan(manifest)
    assert table.num_rows == 16
    assert set(table["problem"].to_pylist()) == {""}
    assert set(table["height_px"].to_pylist()) == {2160}
    assert set(table["width_px"].to_pylist()) == {2560}
    assert set(table["section"].to_pylist()) == {4}
    for axis in "yx":
        positions = table[f"stage_{axis}_px"].to_numpy()
        assert 0 <= positions.min() < 1
        assert positions.max() < 20000
    tiles = sources.Tiles(table, manifest.root)
    assert tiles["image_151215053322003009.4.0.jpg"].shape == (2160, 2560)
    grid = read_manifest(folder / "cremi_sim1_C1", overlap_px=(165, 165))
    assert [(e.section, e.stage_y_px, e.stage_x_px) for e in grid.entries] == [
        (1, 0, 0), (1, 0, 1375), (1, 1375, 0), (1, 1375, 1375)
    ]  # fmt: skip

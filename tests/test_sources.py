"""Raw tiles: every problem by name, the cache of a scan, and files that change later."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest

from connectome_db import rasters, sources
from connectome_db.errors import SourceError
from connectome_db.manifest import origin_of, read_manifest
from tests.raw_tiles import HEADER, details, image, manifest_of, problems, put, tiff


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are read."""
    names: list[str] = []
    read = Path.read_bytes

    def counting(path: Path) -> bytes:
        names.append(path.name)
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", counting)
    return names


# Problems -----------------------------------------------------------------------------------------------------------


def test_every_problem_is_reported_by_name(tmp_path: Path) -> None:
    good = [f"good{i}.{s}" for i, s in enumerate(["png", "jpg", "tif"])]
    put(tmp_path, [*good, "short.png", "short.jpg", "short.tif", "small.png", "altered.png", "copy_a.png", "twice.png"])
    for name in ("short.png", "short.jpg", "short.tif"):
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) // 2])
    shutil.copy(tmp_path / "copy_a.png", tmp_path / "copy_b.png")
    (tmp_path / "noise.png").write_bytes(b"not an image at all")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    lines = [f"{n},0,{i * 30},0,,," for i, n in enumerate(good)]
    lines += [f"short.{s},0,0,0,,," for s in ("png", "jpg", "tif")]
    lines += [
        "small.png,0,0,0,40,60,",
        f"altered.png,0,0,0,40,50,{'0' * 64}",
        "copy_a.png,1,0,0,,,",
        "copy_b.png,1,0,9,,,",
    ]
    lines += [
        "twice.png,1,0,0,,,",
        "twice.png,1,0,9,,,",
        "gone.png,1,0,0,,,",
        "noise.png,1,0,0,,,",
        "empty.png,1,0,0,,,",
    ]
    lines += ["folder.png,1,0,0,,,"]
    table = sources.scan(manifest_of(tmp_path, lines, f"{HEADER},height_px,width_px,sha256"))
    assert table.schema.equals(sources.SCHEMA)
    assert problems(table) == {
        **dict.fromkeys(good, ""),
        **dict.fromkeys(["short.png", "short.jpg", "short.tif", "empty.png"], "truncated"),
        "small.png": "wrong_size",
        "altered.png": "checksum",
        **dict.fromkeys(["copy_a.png", "copy_b.png", "twice.png"], "duplicate"),
        "gone.png": "missing",
        **dict.fromkeys(["noise.png", "folder.png"], "unreadable"),
    }
    keys = list(zip(table["section"].to_pylist(), table["tile"].to_pylist(), strict=True))
    assert keys == sorted(set(keys)), "one row per (section, tile), in order"
    why = details(table)
    assert "wanted 40 x 60 px (height x width), the file has 40 x 50" in why["small.png"]
    assert "copy_a.png" in why["copy_b.png"]
    assert "copy_b.png" in why["copy_a.png"]
    assert "line 12" in why["twice.png"]
    assert "line 13" in why["twice.png"]
    assert str(tmp_path) not in "".join(why.values()), "rows must not depend on where the project lies"
    assert set(sources.Tiles(table, tmp_path)) == set(good)


def test_the_same_file_in_two_sections_is_a_duplicate_of_both(tmp_path: Path) -> None:
    put(tmp_path, ["a.png", "b.png"])
    (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
    table = sources.scan(manifest_of(tmp_path, ["a.png,0,0,0", "link.png,1,0,0", "b.png,1,0,0"]))
    assert problems(table) == {"a.png": "duplicate", "link.png": "duplicate", "b.png": ""}


def test_blank_tiles_are_no_duplicates(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(imagecodecs.png_encode(np.full((40, 50), 255, np.uint8)))
    assert set(problems(sources.scan(manifest_of(tmp_path, ["a.png,0,0,0", "b.png,0,0,40"]))).values()) == {""}


@pytest.mark.parametrize("keep", [0.02, 0.3, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "lzw.tif", "zip.tif"])
def test_a_cut_file_is_truncated_wherever_it_is_cut(keep: float, suffix: str) -> None:
    array = image(3, (200, 300))
    how = {"lzw.tif": {"compression": "lzw"}, "zip.tif": {"compression": "zlib"}}.get(suffix, {})
    encoders: dict[str, Callable[[Any], bytes]] = {"png": imagecodecs.png_encode, "jpg": imagecodecs.jpeg8_encode}
    data = encoders[suffix](array) if suffix in encoders else tiff(array, rowsperstrip=16, **how)
    assert rasters.decode(data).shape == array.shape
    with pytest.raises(rasters.TruncatedError):
        rasters.decode(data[: int(len(data) * keep)])
    with pytest.raises(rasters.TruncatedError):
        rasters.decode(data[:-1])


@pytest.mark.parametrize("encode", [imagecodecs.png_encode, imagecodecs.jpeg8_encode])
def test_a_tail_of_zeros_is_truncated_and_bytes_behind_the_end_are_not(encode: Callable[[Any], bytes]) -> None:
    data = encode(image(3, (200, 300)))
    half = len(data) // 2
    with pytest.raises((rasters.TruncatedError, rasters.UnreadableError)):
        rasters.decode(data[:half] + bytes(len(data) - half))
    np.testing.assert_array_equal(rasters.decode(data + b"\0trailer"), rasters.decode(data))


def test_a_flipped_bit_in_a_png_is_found() -> None:
    data = bytearray(imagecodecs.png_encode(image(3)))
    data[len(data) // 2] ^= 1
    with pytest.raises(rasters.UnreadableError, match="fails its checksum"):
        rasters.decode(bytes(data))


def test_colour_transparency_and_stacks_are_refused() -> None:
    grey = image(1)
    rgb = np.stack([grey, grey, grey], axis=-1)
    np.testing.assert_array_equal(rasters.decode(imagecodecs.png_encode(rgb)), grey)
    opaque = np.concatenate([rgb, np.full((40, 50, 1), 255, np.uint8)], axis=-1)
    np.testing.assert_array_equal(rasters.decode(imagecodecs.png_encode(opaque)), grey)
    rgb[0, 0, 1] ^= 1
    with pytest.raises(rasters.UnreadableError, match="colour image"):
        rasters.decode(imagecodecs.png_encode(rgb))
    opaque[0, 0, 3] = 9
    with pytest.raises(rasters.UnreadableError, match="transparency"):
        rasters.decode(imagecodecs.png_encode(opaque))
    with pytest.raises(rasters.UnreadableError, match="3 pages"):
        rasters.decode(tiff(np.zeros((3, 40, 50), np.uint8), photometric="minisblack"))
    with pytest.raises(rasters.UnreadableError, match="float32"):
        rasters.decode(tiff(np.zeros((40, 50), np.float32)))


def test_a_tiff_where_zero_is_white_is_inverted() -> None:
    data = tiff(image(1), photometric="miniswhite")
    np.testing.assert_array_equal(rasters.decode(data), 255 - image(1))


def test_sixteen_bit_tiles_need_a_range(tmp_path: Path) -> None:
    deep = np.linspace(0, 5000, 2000).astype(np.uint16).reshape(40, 50)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(deep))
    (tmp_path / "b.tif").write_bytes(tiff(deep[::-1]))
    lines = ["a.png,0,0,0,0:4095", "b.tif,0,0,0,"]
    manifest = manifest_of(tmp_path, lines, f"{HEADER},range")
    table = sources.scan(manifest)
    assert problems(table) == {"a.png": "", "b.tif": "unreadable"}
    assert "add the column `range`" in details(table)["b.tif"]
    assert table["dtype"].to_pylist() == ["uint16[0:4095]", "uint16"]
    wanted = np.floor(np.clip(deep, 0, 4095) / 4095 * 255 + 0.5).astype(np.uint8)
    np.testing.assert_array_equal(sources.Tiles(table, tmp_path)["a.png"], wanted)
    table = sources.scan(read_manifest(tmp_path / "manifest.csv", value_range=(0, 5000)))
    assert problems(table) == {"a.png": "", "b.tif": ""}
    tiles = sources.Tiles(table, tmp_path)
    assert tiles["b.tif"].max() == 255
    assert tiles["b.tif"].dtype == np.uint8


# Cache and pixels ---------------------------------------------------------------------------------------------------


def test_a_second_scan_reads_only_what_changed(tmp_path: Path, opened: list[str]) -> None:
    names = ["a.png", "b.jpg", "c.tif"]
    put(tmp_path / "raw", names)
    manifest = manifest_of(tmp_path / "raw", [f"{n},0,0,{i}" for i, n in enumerate([*names, "gone.png"])])
    cache = tmp_path / "cache" / "scan.parquet"
    seen: list[tuple[int, int]] = []
    first = sources.scan(manifest, cache, lambda done, total: seen.append((done, total)))
    assert sorted(opened) == names
    assert seen[0] == (1, 4), "a missing file needs no reading"
    assert seen[-1] == (4, 4)
    opened.clear()
    assert sources.scan(manifest, cache).equals(first)
    assert opened == []
    (tmp_path / "raw" / "b.jpg").write_bytes(imagecodecs.jpeg8_encode(image(77)))
    changed = sources.scan(manifest, cache)
    assert opened == ["b.jpg"]
    assert changed["sha256"].to_pylist()[1] != first["sha256"].to_pylist()[1]
    opened.clear()
    other = tmp_path / "raw" / "swap.png"
    other.write_bytes((tmp_path / "raw" / "a.png").read_bytes())
    stat = (tmp_path / "raw" / "a.png").stat()
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.replace(tmp_path / "raw" / "a.png")
    opened.clear()
    assert sources.scan(manifest, cache).equals(changed)
    assert opened == ["a.png"], "same size and time, but another inode"
    assert [p.name for p in cache.parent.iterdir()] == ["scan.parquet"]


def test_a_damaged_cache_is_built_again(tmp_path: Path, opened: list[str]) -> None:
    put(tmp_path, ["a.png"])
    manifest = manifest_of(tmp_path, ["a.png,0,0,0"])
    cache = tmp_path / "scan.parquet"
    first = sources.scan(manifest, cache)
    cache.write_bytes(b"PAR1 damaged")
    opened.clear()
    assert sources.scan(manifest, cache).equals(first)
    assert opened == ["a.png"]
    opened.clear()
    assert sources.scan(manifest, cache).equals(first)
    assert opened == []


def test_a_changed_declaration_is_judged_without_reading(tmp_path: Path, opened: list[str]) -> None:
    put(tmp_path, ["a.png"])
    cache = tmp_path / "scan.parquet"
    header = f"{HEADER},height_px,width_px"
    assert problems(sources.scan(manifest_of(tmp_path, ["a.png,0,0,0,40,50"], header), cache)) == {"a.png": ""}
    opened.clear()
    assert problems(sources.scan(manifest_of(tmp_path, ["a.png,0,0,0,40,99"], header), cache)) == {
        "a.png": "wrong_size"
    }
    assert opened == []


def test_a_scan_does_not_touch_raw_data(tmp_path: Path) -> None:
    put(tmp_path / "raw", ["a.png", "b.jpg"])
    manifest = manifest_of(tmp_path / "raw", ["a.png,0,0,0", "b.jpg,0,0,1"])
    before = {p.name: (p.stat().st_mtime_ns, p.stat().st_ino, p.read_bytes()) for p in (tmp_path / "raw").iterdir()}
    table = sources.scan(manifest, tmp_path / "scan.parquet")
    for tile in sources.Tiles(table, manifest.root).values():
        assert tile.size
    after = {p.name: (p.stat().st_mtime_ns, p.stat().st_ino, p.read_bytes()) for p in (tmp_path / "raw").iterdir()}
    assert after == before


def test_origin_is_subtracted(tmp_path: Path) -> None:
    put(tmp_path, ["a.png", "b.png"])
    manifest_of(tmp_path, ["a.png,0,100.25,-7.5", "b.png,0,140.25,-7.5"])
    manifest = read_manifest(tmp_path / "manifest.csv")
    assert origin_of(manifest) == (100, -8)
    table = sources.scan(read_manifest(tmp_path / "manifest.csv", origin_px=(100, -8)))
    assert table["stage_y_px"].to_pylist() == [0.25, 40.25]
    assert table["stage_x_px"].to_pylist() == [0.5, 0.5]


def test_tiles_are_lazy_cached_and_checked(tmp_path: Path, opened: list[str]) -> None:
    names = [f"t{i}.png" for i in range(4)]
    put(tmp_path, names)
    table = sources.scan(manifest_of(tmp_path, [f"{n},0,0,{i}" for i, n in enumerate(names)]))
    opened.clear()
    cache = sources.PixelCache(limit_bytes=2 * 40 * 50)
    tiles = sources.Tiles(table, tmp_path, cache)
    assert list(tiles) == names
    assert len(tiles) == 4
    assert opened == []
    np.testing.assert_array_equal(tiles["t0.png"], image(0))
    assert not tiles["t0.png"].flags.writeable
    assert opened == ["t0.png"]
    for name in ("t1.png", "t0.png", "t2.png", "t0.png", "t1.png"):
        assert tiles[name].shape == (40, 50)
    assert opened == ["t0.png", "t1.png", "t2.png", "t1.png"], "least recently used goes first"
    assert cache.held_bytes == 2 * 40 * 50
    with pytest.raises(KeyError, match=r"did you mean 't3\.png'"):
        tiles["t33.png"]
    (tmp_path / "t3.png").write_bytes(imagecodecs.png_encode(image(50)))
    with pytest.raises(SourceError, match=r"raw file changed after ingest: .*t3\.png.*dvc repro"):
        tiles["t3.png"]
    (tmp_path / "t3.png").unlink()
    with pytest.raises(SourceError, match=r"cannot be read any more: .*t3\.png"):
        tiles["t3.png"]

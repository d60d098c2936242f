"""Volumes read back equal in TensorStore, in cloud-volume and over HTTP as Neuroglancer reads."""

from __future__ import annotations

import http.client
import json
import os
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import compressed_segmentation
import numpy as np
import pytest
import tensorstore
from cloudvolume import CloudVolume
from hypothesis import given, settings
from hypothesis import strategies as st

from connectome_db import plans, volumes
from connectome_db.errors import StageError, StoreError
from connectome_db.geometry import Box, box_of
from connectome_db.kernels import pyramid
from connectome_db.spec import Volume

IMAGE = Volume(name="image", dtype="uint8", kind="image", doc="grey")
LABELS = Volume(name="labels", dtype="uint64", kind="segmentation", doc="ids")
CLASSES = Volume(name="mask", dtype="uint8", kind="segmentation", doc="classes")
VOLUMES = pytest.mark.parametrize("volume", [IMAGE, LABELS, CLASSES], ids=lambda v: v.name)

# (bounds, block, voxel size): a whole number of blocks; odd edges; an offset off the lattice; negative coordinates;
# isotropic voxels of fractional size.
CASES = {
    "whole": (Box((0, 0, 0), (16, 64, 128)), (16, 32, 64), (30.0, 6.0, 6.0)),
    "odd": (Box((0, 0, 0), (19, 45, 71)), (16, 32, 64), (30.0, 6.0, 6.0)),
    "offset": (Box((5, 37, 66), (20, 60, 100)), (16, 16, 32), (30.0, 8.0, 8.0)),
    "negative": (Box((-21, -17, -31), (7, 15, 20)), (16, 16, 32), (10.0, 10.0, 10.0)),
    "fraction": (Box((3, 1, 1), (30, 33, 35)), (32, 32, 32), (4.13, 4.13, 4.13)),
}


def make(volume: Volume, bounds: Box, seed: int = 0) -> np.ndarray[Any, Any]:
    """Blobs with background between them; label ids above 2**53, where float64 loses them."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 4, [-(-n // 5) for n in bounds.shape]).astype(np.uint64)
    array = np.kron(coarse, np.ones((5, 5, 5), np.uint64))[tuple(slice(n) for n in bounds.shape)]
    if volume.dtype == "uint64":
        array = np.where(array > 1, array + np.uint64(2**53 + 1), 0).astype(np.uint64)
    elif volume.kind == "image":
        array = np.where(array > 0, rng.integers(0, 256, array.shape), 0).astype(np.uint8)
    else:
        array = array.astype(np.uint8)
    z, y, x = (n // 2 for n in array.shape)
    array[:z, :y, :x] = 0
    return np.ascontiguousarray(array)


def write(folder: Path, volume: Volume, case: str, seed: int = 0) -> tuple[volumes.VolumeLayout, np.ndarray[Any, Any]]:
    bounds, block_vx, voxel_nm = CASES[case]
    layout = volumes.layout(volume, bounds, block_vx, voxel_nm)
    array = make(volume, bounds, seed)
    folder.mkdir(parents=True)
    (folder / "info").write_bytes(volumes.info(layout))
    written = set()
    for core in plans.grid(bounds, block_vx).cores:
        box = box_of(core)
        files = volumes.encode(layout, box, array[box.slices(bounds.lo)])
        decoded = volumes.decode(layout, box, files)
        np.testing.assert_array_equal(decoded, array[box.slices(bounds.lo)])
        for name, data in files.items():
            absolute = volumes.absolute_name(layout, box, name)
            assert absolute not in written, "two units wrote one chunk"
            written.add(absolute)
            path = folder / absolute
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
    return layout, array


def expected(layout: volumes.VolumeLayout, array: np.ndarray[Any, Any], level: int) -> np.ndarray[Any, Any]:
    """The pyramid of the whole array at once, by the plain definition of each cell."""
    lo = layout.bounds.lo
    for before, after in zip(layout.scales[:level], layout.scales[1 : level + 1], strict=True):
        step = [b // a for a, b in zip(before.factor, after.factor, strict=True)]
        phase = [(o // f) % s for o, f, s in zip(lo, before.factor, step, strict=True)]
        array = reference(array, step, phase, layout.kind)
    return array


def reference(array: np.ndarray[Any, Any], step: Any, phase: Any, kind: str) -> np.ndarray[Any, Any]:
    shape = [-(-(n + p) // s) for n, p, s in zip(array.shape, phase, step, strict=True)]
    out = np.empty(shape, array.dtype)
    for cell in np.ndindex(*shape):
        lo = [c * s - p for c, s, p in zip(cell, step, phase, strict=True)]
        values = array[tuple(slice(max(a, 0), a + s) for a, s in zip(lo, step, strict=True))].ravel()
        if kind == "image":
            out[cell] = int(np.floor(values.astype(float).mean() + 0.5))
        else:
            ids, counts = np.unique(values, return_counts=True)
            best = ids[counts == counts.max()]
            out[cell] = best[best > 0].min() if (best > 0).any() else 0
    return out


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        yield f"127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


def fetch(server: str, path: str) -> bytes | None:
    connection = http.client.HTTPConnection(server, timeout=10)
    connection.request("GET", path)
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    assert answer.status in {200, 404}
    return data if answer.status == 200 else None


def neuroglancer_read(server: str, name: str, level: int) -> np.ndarray[Any, Any]:
    """Read a level as the viewer does: `info`, then a GET for each chunk of its grid; 404 is background. (z, y, x)."""
    document = json.loads(fetch(server, f"/{name}/info") or b"")
    scale = document["scales"][level]
    size, offset, chunk = scale["size"], scale["voxel_offset"], scale["chunk_sizes"][0]
    dtype = np.dtype(document["data_type"])
    out = np.zeros(size[::-1], dtype)
    for cell in np.ndindex(*[-(-s // c) for s, c in zip(size, chunk, strict=True)]):
        lo = [i * c for i, c in zip(cell, chunk, strict=True)]
        hi = [min(a + c, s) for a, c, s in zip(lo, chunk, size, strict=True)]
        where = "_".join(f"{a + o}-{b + o}" for a, b, o in zip(lo, hi, offset, strict=True))
        data = fetch(server, f"/{name}/{scale['key']}/{where}")
        if data is None:
            continue
        shape = [b - a for a, b in zip(lo, hi, strict=True)]
        if scale["encoding"] == "raw":
            values = np.frombuffer(data, dtype).reshape(shape, order="F")
        else:
            block = tuple(scale["compressed_segmentation_block_size"])
            values = compressed_segmentation.decompress(data, shape, dtype, block, order="F")
        out[tuple(slice(a, b) for a, b in zip(lo[::-1], hi[::-1], strict=True))] = values.T
    return out


@VOLUMES
@pytest.mark.parametrize("case", CASES)
def test_every_reader_sees_what_was_written(tmp_path: Path, server: str, volume: Volume, case: str) -> None:
    folder = tmp_path / "vol"
    layout, array = write(folder, volume, case)
    assert volumes.open_info(folder) == layout
    assert len(layout.scales) >= 2
    for level, scale in enumerate(layout.scales):
        wanted = expected(layout, array, level)
        assert wanted.shape == scale.bounds.shape
        np.testing.assert_array_equal(volumes.read(folder, scale.bounds, level), wanted)

        inside = scale.bounds.slices(scale.stored.lo)
        spec = {
            "driver": "neuroglancer_precomputed",
            "kvstore": {"driver": "file", "path": f"{folder}/"},
            "scale_index": level,
        }
        stored = tensorstore.open(spec, read=True, open=True).result()[..., 0].read().result().T
        np.testing.assert_array_equal(stored[inside], wanted)
        http_spec = {**spec, "kvstore": {"driver": "http", "base_url": f"http://{server}/vol/"}}
        stored = tensorstore.open(http_spec, read=True, open=True).result()[..., 0].read().result().T
        np.testing.assert_array_equal(stored[inside], wanted)
        for path in (f"file://{folder}", f"precomputed://http://{server}/vol"):
            cloud = CloudVolume(path, mip=level, progress=False, fill_missing=True, cache=False)
            np.testing.assert_array_equal(np.asarray(cloud[:])[..., 0].T[inside], wanted)
            np.testing.assert_allclose(cloud.resolution[::-1], scale.voxel_nm)
        np.testing.assert_array_equal(neuroglancer_read(server, "vol", level)[inside], wanted)


def test_compressed_is_smaller_and_background_is_not_written(tmp_path: Path) -> None:
    layout, array = write(tmp_path / "v", LABELS, "whole")
    files = [p for p in (tmp_path / "v").rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) < array.nbytes / 4
    core = Box((0, 0, 0), (16, 32, 64))
    assert volumes.encode(layout, core, np.zeros(core.shape, np.uint64)) == {}
    assert not volumes.decode(layout, core, {}).any()


def test_equal_content_has_equal_files_wherever_it_lies() -> None:
    layout = volumes.layout(LABELS, Box((-64, -64, -64), (64, 64, 64)), (32, 32, 32), (8.0, 8.0, 8.0))
    array = make(LABELS, Box((0, 0, 0), (32, 32, 32)))
    here, there = Box((0, 0, 0), (32, 32, 32)), Box((-64, 32, -32), (-32, 64, 0))
    files = volumes.encode(layout, here, array)
    assert files == volumes.encode(layout, there, array)
    assert {volumes.absolute_name(layout, here, n) for n in files} == set(files)
    assert {volumes.absolute_name(layout, there, n) for n in files if n.startswith("8_8_8/")} == {
        "8_8_8/-32-0_32-64_-64--32"
    }


def test_interior_names_stay_when_the_volume_grows() -> None:
    small = volumes.layout(IMAGE, Box((1, 3, 5), (40, 70, 70)), (16, 32, 32), (30.0, 6.0, 6.0))
    large = volumes.layout(IMAGE, Box((-40, -90, -9), (90, 99, 99)), (16, 32, 32), (30.0, 6.0, 6.0))
    core = Box((16, 32, 32), (32, 64, 64))
    array = make(IMAGE, core)
    files = volumes.encode(small, core, array)
    assert files == volumes.encode(large, core, array)
    assert [volumes.absolute_name(small, core, n) for n in files] == [
        volumes.absolute_name(large, core, n) for n in files
    ]


def test_pyramid_is_anisotropy_aware() -> None:
    layout = volumes.layout(IMAGE, Box((0, 0, 0), (64, 512, 512)), (64, 512, 512), (30.0, 6.0, 6.0))
    assert [s.factor for s in layout.scales][:5] == [(1, 1, 1), (1, 2, 2), (1, 4, 4), (2, 8, 8), (4, 16, 16)]
    assert [s.key for s in layout.scales][:4] == ["6_6_30", "12_12_30", "24_24_30", "48_48_60"]
    for scale in layout.scales:
        assert all(c >= 8 for c in scale.chunk_vx)
        assert all(c <= 128 for c in scale.chunk_vx)
    isotropic = volumes.layout(IMAGE, Box((0, 0, 0), (64, 64, 64)), (64, 64, 64), (8.0, 8.0, 8.0))
    assert [s.factor for s in isotropic.scales] == [(1, 1, 1), (2, 2, 2), (4, 4, 4), (8, 8, 8)]


def test_info_is_deterministic_and_keeps_the_true_bounds() -> None:
    bounds, block_vx, voxel_nm = CASES["offset"]
    layout = volumes.layout(IMAGE, bounds, block_vx, voxel_nm)
    assert volumes.info(layout) == volumes.info(volumes.layout(IMAGE, bounds, block_vx, voxel_nm))
    document = json.loads(volumes.info(layout))
    assert document["connectome_db"]["bounds_zyx"] == list(bounds.flat())
    assert document["scales"][0]["voxel_offset"] == [64, 32, 0], "snapped down to the chunk lattice"


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_kernels_agree_with_the_definition(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.integers(1, 7)) for _ in range(3))
    factor = tuple(data.draw(st.integers(1, 2)) for _ in range(3))
    phase = tuple(data.draw(st.integers(0, f - 1)) for f in factor)
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    image = rng.integers(0, 256, shape).astype(np.uint8)
    np.testing.assert_array_equal(pyramid.average(image, factor, phase), reference(image, factor, phase, "image"))
    labels = rng.integers(0, 3, shape).astype(np.uint64) << np.uint64(60)
    np.testing.assert_array_equal(pyramid.mode(labels, factor, phase), reference(labels, factor, phase, "segmentation"))


def test_a_tie_of_labels_never_goes_to_background() -> None:
    assert pyramid.mode(np.array([[[0, 7]]], np.uint64), (1, 1, 2))[0, 0, 0] == 7
    assert pyramid.mode(np.array([[[9, 7]]], np.uint64), (1, 1, 2))[0, 0, 0] == 7
    with pytest.raises(ValueError, match="factors of 1 or 2"):
        pyramid.mode(np.zeros((3, 3, 3), np.uint64), (3, 1, 1))


@VOLUMES
@pytest.mark.parametrize("damage", ["truncated", "empty", "garbage"])
def test_a_damaged_chunk_is_named(tmp_path: Path, volume: Volume, damage: str) -> None:
    layout, _ = write(tmp_path / "v", volume, "odd")
    path = sorted((tmp_path / "v" / layout.scales[0].key).iterdir())[-1]
    data = path.read_bytes()
    path.write_bytes({"truncated": data[: len(data) // 2], "empty": b"", "garbage": b"\xff" * (len(data) + 1)}[damage])
    with pytest.raises(StoreError, match=path.name):
        volumes.read(tmp_path / "v", layout.bounds)
    core = Box((0, 0, 0), (16, 32, 64))
    files = volumes.encode(layout, core, make(volume, core))
    name = min(n for n in files if n.startswith(layout.scales[0].key))
    with pytest.raises(StoreError, match="remove the unit"):
        volumes.decode(layout, core, {**files, name: files[name][:-5]})


def test_reads_outside_the_volume_are_refused(tmp_path: Path) -> None:
    layout, array = write(tmp_path / "v", IMAGE, "offset")
    with pytest.raises(StoreError, match=r"wanted z 4:20.*has z 5:20.*not nm"):
        volumes.read(tmp_path / "v", Box((4, 37, 66), (20, 60, 100)))
    with pytest.raises(StoreError, match="has levels 0 to"):
        volumes.read(tmp_path / "v", layout.bounds, level=9)
    with pytest.raises(StoreError, match="run the stage that makes it"):
        volumes.read(tmp_path / "nothing", layout.bounds)
    assert volumes.read(tmp_path / "v", Box((6, 40, 70), (6, 41, 71))).shape == (0, 1, 1)
    part = Box((6, 40, 70), (20, 57, 99))
    np.testing.assert_array_equal(volumes.read(tmp_path / "v", part), array[part.slices(layout.bounds.lo)])


def test_damaged_info_is_named(tmp_path: Path) -> None:
    layout, _ = write(tmp_path / "v", IMAGE, "whole")
    (tmp_path / "v" / "info").write_bytes(volumes.info(layout)[:100])
    with pytest.raises(StoreError, match="info"):
        volumes.open_info(tmp_path / "v")
    (tmp_path / "v" / "info").write_text('{"scales": []}')
    with pytest.raises(StoreError, match="connectome_db"):
        volumes.open_info(tmp_path / "v")


def test_wrong_arrays_boxes_and_names_are_refused() -> None:
    bounds, block_vx, voxel_nm = CASES["odd"]
    layout = volumes.layout(IMAGE, bounds, block_vx, voxel_nm)
    core = Box((0, 0, 0), (16, 32, 64))
    with pytest.raises(StageError, match=r"wanted uint8\(16, 32, 64\), came uint64"):
        volumes.encode(layout, core, np.zeros(core.shape, np.uint64))
    with pytest.raises(StageError, match=r"came uint8\(16, 32, 63\)"):
        volumes.encode(layout, core, np.zeros((16, 32, 63), np.uint8))
    with pytest.raises(StageError, match="one block"):
        volumes.encode(layout, Box((0, 0, 1), (16, 32, 65)), np.zeros((16, 32, 64), np.uint8))
    for name in ("6_6_30/0-64_0-32_0-17", "6_6_30/../../etc", "7_7_30/0-64_0-32_0-16", "6_6_30/64-71_0-32_0-16"):
        with pytest.raises(StoreError, match="not a chunk"):
            volumes.absolute_name(layout, core, name)


def test_impossible_layouts_are_refused() -> None:
    box = Box((0, 0, 0), (32, 32, 32))
    with pytest.raises(StageError, match="257"):
        volumes.layout(IMAGE, box, (32, 257, 32), (8.0, 8.0, 8.0))
    with pytest.raises(StageError, match="wanted bounds with voxels"):
        volumes.layout(IMAGE, Box((0, 0, 0), (0, 1, 1)), (32, 32, 32), (8.0, 8.0, 8.0))
    with pytest.raises(StageError, match="segmentation"):
        volumes.layout(Volume(name="i", dtype="uint64", kind="image", doc=""), box, (32, 32, 32), (8.0, 8.0, 8.0))
    good = volumes.layout(IMAGE, box, (32, 32, 32), (8.0, 8.0, 8.0))
    wide = volumes.Scale("8_8_8", (1, 1, 1), (8.0, 8.0, 8.0), (48, 32, 32), box)
    with pytest.raises(StageError, match="two units would write one chunk"):
        volumes.VolumeLayout(good.name, good.dtype, good.kind, box, good.block_vx, good.voxel_nm, (wide,))


def test_large_chunks_are_split_and_linked_names_differ(tmp_path: Path) -> None:
    layout = volumes.layout(IMAGE, Box((0, 0, 0), (8, 256, 384)), (8, 256, 384), (40.0, 8.0, 8.0))
    assert layout.scales[0].chunk_vx == (8, 128, 128)
    array = make(IMAGE, layout.bounds)
    files = volumes.encode(layout, layout.bounds, array)
    source = tmp_path / "blob"
    for name, data in files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(data)
        target = tmp_path / "v" / volumes.absolute_name(layout, layout.bounds, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(source / name, target)
    (tmp_path / "v" / "info").write_bytes(volumes.info(layout))
    np.testing.assert_array_equal(volumes.read(tmp_path / "v", layout.bounds), array)

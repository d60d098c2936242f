"""Boxes drawn in Neuroglancer come back in nm, whatever order and unit their axes have."""

from __future__ import annotations

import json
import struct
import urllib.parse
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from connectome_db import config, paramsfile
from connectome_db.cli.main import app
from connectome_db.config import Dataset
from connectome_db.errors import ConfigError
from connectome_db.newproject import model_changes
from connectome_db.regional import neuroglancer, regions
from connectome_db.stages.pipeline import STAGES

NM = {"x": [8e-9, "m"], "y": [8e-9, "m"], "z": [3e-8, "m"]}
BOX = {"type": "axis_aligned_bounding_box", "id": "1f3a", "pointA": [64, 32, 8], "pointB": [0, 16, 2.5]}
SIX = (75, 128, 0, 240, 256, 512)
LOCAL = "local://annotations"


def layer(*annotations: dict[str, Any], source: Any = LOCAL, name: str = "mine") -> dict[str, Any]:
    return {"type": "annotation", "name": name, "source": source, "annotations": list(annotations)}


def state(*layers: dict[str, Any], dimensions: Any = NM) -> dict[str, Any]:
    image = {"type": "image", "name": "image", "source": "precomputed://http://127.0.0.1:1/image"}
    return {"dimensions": dimensions, "layers": [image, *layers]}


def saved(tmp_path: Path, value: Any) -> str:
    path = tmp_path / "state.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return str(path)


def source(dimensions: Any, **more: Any) -> dict[str, Any]:
    return {"url": LOCAL, "transform": {"outputDimensions": dimensions, **more}}


ZYX = {**BOX, "pointA": [8, 32, 64], "pointB": [2.5, 16, 0]}
NANO = {axis: [scale * 1e9, "nm"] for axis, (scale, _) in NM.items()}
MOVED = [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 2, -1]]
STATES = {
    "the state's dimensions": state(layer(BOX)),
    "the layer's dimensions": state(layer(BOX, source=source(NM)), dimensions={"x": [1e-3, "m"]}),
    "in a list of sources": state(layer(BOX, source=[LOCAL, source(NM)]), dimensions=None),
    "z first": state(layer(ZYX), dimensions={axis: NM[axis] for axis in "zyx"}),
    "in nm": state(layer(BOX), dimensions=NANO),
    "in µm": state(layer(BOX), dimensions={axis: [scale * 1e6, "µm"] for axis, (scale, _) in NM.items()}),
    "with time": state(
        layer({**BOX, "pointA": [5, 64, 32, 8], "pointB": [6, 0, 16, 2.5]}), dimensions={"t": [1, "s"], **NM}
    ),
    "axes swapped, z scaled and moved": state(
        layer({**BOX, "pointA": [16, 0, 1.75], "pointB": [32, 64, 4.5]}, source=source(NM, matrix=MOVED))
    ),
}


@pytest.mark.parametrize("value", STATES.values(), ids=STATES.keys())
def test_a_box_is_the_same_in_every_coordinate_space(tmp_path: Path, value: dict[str, Any]) -> None:
    (box,) = neuroglancer.read_boxes(saved(tmp_path, value))
    assert box == neuroglancer.Drawn("1f3a", "", "mine", SIX)


def test_a_link_is_read_as_text_and_from_a_file(tmp_path: Path) -> None:
    text = json.dumps(state(layer({**BOX, "description": "dark: 5 % #2"})))
    for quoted in (urllib.parse.quote(text), urllib.parse.quote(text, safe='{}[]":,'), text):
        link = f"https://neuroglancer-demo.appspot.com/#!{quoted}"
        for given in (link, saved(tmp_path, f"{link}\n")):
            (box,) = neuroglancer.read_boxes(given)
            assert (box.box_nm, box.description) == (SIX, "dark: 5 % #2")
    made = neuroglancer.encode_link("https://example.org/", json.loads(text))
    assert neuroglancer.read_boxes(made)[0].box_nm == SIX
    assert not set(made.split("#!")[1]) & set(" \"'{}[](),%") - {"%"}


def test_coordinates_that_were_kept_as_float32_are_the_numbers_that_were_meant(tmp_path: Path) -> None:
    single = struct.unpack("<f", struct.pack("<f", 41.6625))[0]
    assert single != 41.6625
    (box,) = neuroglancer.read_boxes(saved(tmp_path, state(layer({**BOX, "pointB": [single, 16, 2.5]}))))
    assert (box.box_nm[2], box.box_nm[5]) == (333.3, 512)


BAD = {
    "not a state": ({"a": 1}, "wanted a state of Neuroglancer"),
    "not JSON": ("{'layers':[]}", "cannot read it"),
    "kept elsewhere": ("https://x.org/#!gs://bucket/state.json", "download gs://bucket/state.json"),
    "no box": (state(layer({"type": "point", "id": "p", "point": [1, 2, 3]})), "no box in it"),
    "no dimensions": (state(layer(BOX), dimensions=None), "gives no `dimensions`"),
    "no z": (
        state(layer(BOX), dimensions={"x": [1, "m"], "y": [1, "m"], "w": [1, "m"]}),
        "named x, y and z, got x, y, w",
    ),
    "no length": (state(layer(BOX), dimensions={**NM, "z": [1, "s"]}), r"dimension z: wanted a length .* \[1, 's'\]"),
    "no unit": (state(layer(BOX), dimensions={**NM, "z": [1, ""]}), "dimension z: wanted a length"),
    "too few": (state(layer({**BOX, "pointA": [1, 2]})), "wanted 3 coordinates, one per dimension, got 2"),
    "no point": (state(layer({"type": BOX["type"], "id": "q"})), "box q: wanted pointA and pointB"),
    "turned": (
        state(layer(BOX, source=source(NM, matrix=[[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]))),
        "turns or shears",
    ),
}


@pytest.mark.parametrize(("value", "message"), BAD.values(), ids=BAD.keys())
def test_what_cannot_be_understood_is_said(tmp_path: Path, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        neuroglancer.read_boxes(saved(tmp_path, value))


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="wanted a state saved from Neuroglancer"):
        neuroglancer.read_boxes(str(tmp_path / "none.json"))


def test_which_box_is_meant(tmp_path: Path) -> None:
    other = {**BOX, "id": "77", "description": "fold", "pointA": [1, 1, 1]}
    boxes = neuroglancer.read_boxes(saved(tmp_path, state(layer(BOX), layer(other, name="second"))))
    assert [b.layer for b in boxes] == ["mine", "second"]
    assert neuroglancer.choose(boxes, "fold", {}) is neuroglancer.choose(boxes, "77", {}) is boxes[1]
    with pytest.raises(ConfigError, match=r"2 boxes could be meant(.|\n)*1f3a: z 75:240(.|\n)*77 \(fold\)"):
        neuroglancer.choose(boxes, None, {})
    with pytest.raises(ConfigError, match="did you mean 'fold'"):
        neuroglancer.choose(boxes, "folds", {})
    # Boxes that are regions already are not meant, unless they were moved.
    assert neuroglancer.choose(boxes, None, {"1f3a": SIX}) is boxes[1]
    with pytest.raises(ConfigError, match="2 boxes could be meant"):
        neuroglancer.choose(boxes, None, {"1f3a": (0, 0, 0, 30, 8, 8)})
    with pytest.raises(ConfigError, match="all its boxes are regions already"):
        neuroglancer.choose(boxes, None, {b.id: b.box_nm for b in boxes})


INFO = {
    "@type": "neuroglancer_annotations_v1",
    "dimensions": NM,
    "lower_bound": [0, 0, 0],
    "upper_bound": [100, 100, 100],
    "annotation_type": "AXIS_ALIGNED_BOUNDING_BOX",
    "properties": [{"id": "score", "type": "float32"}, {"id": "class", "type": "uint8"}],
    "relationships": [{"id": "segments", "key": "rel"}],
    "by_id": {"key": "by_id"},
    "spatial": [{"key": "s0", "grid_shape": [1, 1, 1]}, {"key": "s1", "grid_shape": [2, 2, 2]}],
}
TWO = {9: ((0, 16, 2.5), (64, 32, 8)), 2**63 + 5: ((1, 2, 3), (4, 5, 6))}


def record(ends: tuple[tuple[float, ...], ...]) -> bytes:
    """Geometry, a float32 and a uint8 property, padding to four bytes."""
    return struct.pack("<6f", *ends[0], *ends[1]) + struct.pack("<fBxxx", 0.5, 3)


def cell(*names: int) -> bytes:
    return (
        struct.pack("<Q", len(names)) + b"".join(record(TWO[n]) for n in names) + struct.pack(f"<{len(names)}Q", *names)
    )


def folder(tmp_path: Path, **changes: Any) -> Path:
    """Annotations in all indices, as Neuroglancer's own writer lays them out; ids up to 2**64."""
    root = tmp_path / "drawn"
    for name in ("by_id", "s0", "s1", "rel"):
        (root / name).mkdir(parents=True)
    (root / "info").write_text(json.dumps({k: v for k, v in (INFO | changes).items() if v is not None}))
    for n, ends in TWO.items():
        (root / "by_id" / str(n)).write_bytes(record(ends) + struct.pack("<IQ", 1, 77))
    (root / "s0" / "0_0_0").write_bytes(cell(9))
    (root / "s1" / "0_0_0").write_bytes(cell(9, 2**63 + 5))
    (root / "s1" / "0_1_0").write_bytes(cell(9))
    return root


@pytest.mark.parametrize("changes", [{}, {"by_id": None}, {"by_id": {"key": "by_id", "sharding": {"bits": 1}}}])
def test_a_folder_of_precomputed_annotations(tmp_path: Path, changes: dict[str, Any]) -> None:
    boxes = neuroglancer.read_boxes(str(folder(tmp_path, **changes)))
    assert {b.id: b.box_nm for b in boxes} == {"9": SIX, str(2**63 + 5): (90, 16, 8, 180, 40, 32)}


SHARDED = [{"key": "s0", "sharding": {"bits": 1}}]
BAD_FOLDERS = {
    "sharded": ({"by_id": None, "spatial": SHARDED}, "sharded, which is not read"),
    "points": ({"annotation_type": "point"}, "wanted annotations of type axis_aligned_bounding_box, got .* point"),
    "a volume": ({"@type": "neuroglancer_multiscale_volume"}, "got neuroglancer_multiscale_volume"),
    "no dimensions": ({"dimensions": None}, r"wanted a folder of precomputed annotations .*KeyError"),
}


@pytest.mark.parametrize(("changes", "message"), BAD_FOLDERS.values(), ids=BAD_FOLDERS.keys())
def test_a_folder_that_cannot_be_read(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        neuroglancer.read_boxes(str(folder(tmp_path, **changes)))


def test_a_damaged_file_is_said(tmp_path: Path) -> None:
    root = folder(tmp_path)
    (root / "by_id" / "9").write_bytes(b"short")
    with pytest.raises(ConfigError, match=r"by_id/9: is damaged: wanted 32 bytes"):
        neuroglancer.read_boxes(str(root))
    (root / "info").write_text(json.dumps({k: v for k, v in INFO.items() if k != "by_id"}))
    (root / "s1" / "0_0_0").write_bytes(cell(9)[:-1])
    with pytest.raises(ConfigError, match=r"s1/0_0_0: is damaged"):
        neuroglancer.read_boxes(str(root))
    (root / "s1" / "0_0_0").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"s1/0_0_0: is damaged"):
        neuroglancer.read_boxes(str(root))


def test_a_drawn_box_becomes_a_region(tmp_path: Path) -> None:
    text = paramsfile.render(Dataset(name="small", voxel_nm=(30, 8, 8)), STAGES, model_changes(STAGES, "phantom"))
    (tmp_path / "params.yaml").write_text(text)
    path = saved(tmp_path, state(layer({**BOX, "description": "dark,\nby Ada"})))
    done = CliRunner().invoke(app, ["regions", "add", "dark", "--from-neuroglancer", path, "-C", str(tmp_path)])
    assert done.exit_code == 0, done.output
    found = regions.region(config.load(tmp_path, STAGES), "dark")
    assert (found.spec.box_nm, found.spec.note) == (SIX, "dark, by Ada")
    assert found.box.flat() == (2, 16, 0, 8, 32, 64)  # rounded outward: z from 75 nm, in sections of 30
    # As Neuroglancer saved a box that was drawn within section 4: it makes such boxes one section thick.
    drawn = {
        **BOX,
        "pointA": [110.25, 90.375, 4.500000476837158],
        "pointB": [137.75, 123.00000762939453, 5.500000476837158],
    }
    path = saved(tmp_path, state(layer(drawn)))
    found_spec = regions.read_drawn(config.load(tmp_path, STAGES), path)
    assert found_spec.box_nm == (135, 723, 882, 165, 984, 1102)
    one = CliRunner().invoke(app, ["regions", "add", "x", "--from-neuroglancer", path, "--box-vx", "0,0,0,1,1,1"])
    assert isinstance(one.exception, ConfigError)

"""Editing regions changes the lines it must and no other byte, and refuses what would not be a valid project."""

from __future__ import annotations

import difflib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from typer.testing import CliRunner

from connectome_db import config, paramsfile, volumes
from connectome_db.cli.main import app
from connectome_db.config import Dataset, Project, RegionSpec
from connectome_db.errors import ConfigError, ConnectomeError
from connectome_db.geometry import Box
from connectome_db.newproject import model_changes
from connectome_db.regional import effect, regions, yamltext
from connectome_db.spec import Volume
from connectome_db.stages.pipeline import STAGES

FRESH = paramsfile.render(Dataset(name="small", voxel_nm=(30, 8, 8)), STAGES, model_changes(STAGES, "phantom"))
HEAD = "dataset: {name:   small, voxel_nm: [30,8,8]}   # odd spacing\nsegment: {model: 'phantom-affinity'}\n"
TEXTS = {
    "as init writes it": FRESH,
    "comments": HEAD + "# above\nregions: {}  # none yet\n# between\n\n# over\noverrides: {}\n# at the end\n",
    "two spaces": HEAD + "regions:  {}\noverrides:   {}\n",
    "no last line break": HEAD + "regions: {}\noverrides: {}",
    "windows": (HEAD + "regions: {}\n\noverrides: {}\n").replace("\n", "\r\n"),
    "others before": HEAD
    + "regions:\n    a:   # first\n        box_vx:\n        - 0\n        - 0\n        - 0\n        - 8\n        - 64\n"
    + "        - 64\n        note: |\n          two lines # no comment\n          of text\n\n    # b: later\n\n"
    + "overrides:\n    score: {}\n    segment:\n        a: {boundary: 0.45}   # why\n",
    "flow": HEAD
    + "regions: {a: {box_nm: [0, 0, 0, 30, 8, 8], note: 'x'}}\noverrides: {segment: {a: {boundary: 0.4}}}\n",
    "overrides first": HEAD + "overrides: {}\nregions: {}\nscore: {}\n",
}
BOUNDS = Box((0, 0, 0), (10, 256, 256))
EACH_TEXT = pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())


def project(tmp_path: Path, text: str = FRESH) -> Project:
    with (tmp_path / "params.yaml").open("w", newline="") as f:
        f.write(text)
    return config.load(tmp_path, STAGES)


def rendered(p: Project) -> Project:
    """The project with the `info` of an image, which is all that says where the volume ends."""
    layout = volumes.layout(Volume(name="image", dtype="uint8", kind="image", doc=""), BOUNDS, (8, 64, 64), p.voxel_nm)
    folder = p.data("render") / "image"
    folder.mkdir(parents=True)
    (folder / "info").write_bytes(volumes.info(layout))
    return p


def again(p: Project) -> Project:
    return config.load(p.root, STAGES)


def do(p: Project, change: regions.Change) -> Project:
    regions.apply(change)
    return again(p)


def lines_of_diff(old: str, new: str) -> list[str]:
    return [d for d in difflib.ndiff(old.splitlines(True), new.splitlines(True)) if d[0] in "+-"]


@EACH_TEXT
def test_what_is_done_and_undone_restores_every_byte(tmp_path: Path, text: str) -> None:
    p = project(tmp_path, text)
    spec = RegionSpec(box_vx=(0, 0, 0, 8, 64, 96), note='weak: osmium, "5 %" #2')
    p = do(p, regions.add(p, "dark", spec))
    one = regions.read_text(p.root)
    assert regions.region(p, "dark").spec == spec
    p = do(p, regions.set_values(p, "dark", ["segment.seed_window_nm=80"]))
    p = do(p, regions.set_values(p, "dark", ["segment.smooth_nm=10", "synapses.low=0.7"]))
    assert {o.region: dict(o.values) for o in p.overrides["segment"]}["dark"] == {"seed_window_nm": 80, "smooth_nm": 10}
    p = do(p, regions.unset(p, "dark", ["synapses", "segment.smooth_nm", "segment.seed_window_nm"]))
    assert regions.read_text(p.root) == one
    p = do(p, regions.set_values(p, "dark", ["synapses.low=0.7", "segment.smooth_nm=10"]))
    do(p, regions.remove(p, "dark"))
    with (tmp_path / "params.yaml").open(newline="") as f:
        assert f.read() == text


def test_only_the_lines_that_must_change_do(tmp_path: Path) -> None:
    p = project(tmp_path)
    p = do(p, regions.add(p, "corner", RegionSpec(box_nm=(0, 0, 0, 240, 512.5, 512), note="weak osmium")))
    one = regions.read_text(p.root)
    assert lines_of_diff(FRESH, one) == [
        "- regions: {}\n",
        "+ regions:\n",
        "+   corner: {box_nm: [0, 0, 0, 240, 512.5, 512], note: weak osmium}\n",
    ]
    p = do(p, regions.set_values(p, "corner", ["segment.seed_window_nm=80"]))
    two = regions.read_text(p.root)
    added = ["- overrides: {}\n", "+ overrides:\n", "+   segment:\n", "+     corner:\n", "+       seed_window_nm: 80\n"]
    assert lines_of_diff(one, two) == added
    p = do(p, regions.set_values(p, "corner", ["segment.seed_window_nm=60", "segment.boundary=0.45"]))
    three = regions.read_text(p.root)
    changed = [d for d in lines_of_diff(two, three) if d[0] != "?"]
    assert sorted(changed) == [
        "+       boundary: 0.45\n",
        "+       seed_window_nm: 60\n",
        "-       seed_window_nm: 80\n",
    ]
    p = do(p, regions.add(p, "corner", RegionSpec(box_vx=(0, 0, 0, 8, 64, 64)), replace=True))
    assert regions.region(p, "corner").spec == RegionSpec(box_vx=(0, 0, 0, 8, 64, 64), note="weak osmium")
    assert p.overrides["segment"][0].values == {"seed_window_nm": 60, "boundary": 0.45}


@pytest.mark.parametrize(
    ("before", "kept"),
    [("regions:", "regions: {}"), ("regions:   # none", "regions: {}   # none"), ("", "")],
    ids=["empty", "comment", "absent"],
)
def test_a_section_without_a_value_or_not_there_is_made(tmp_path: Path, before: str, kept: str) -> None:
    p = project(tmp_path, f"{HEAD}{before}\nscore: {{}}\n")
    p = do(p, regions.add(p, "dark", RegionSpec(box_vx=(0, 0, 0, 8, 64, 96))))
    p = do(p, regions.set_values(p, "dark", ["segment.boundary=0.4"]))
    do(p, regions.remove(p, "dark"))
    text = regions.read_text(tmp_path)
    assert text.startswith(f"{HEAD}{kept}\nscore: {{}}")
    assert YAML(typ="safe").load(text)["regions"] == {}


def test_comments_of_what_goes_away_stay(tmp_path: Path) -> None:
    text = HEAD + "regions:\n  # looked at by Ada\n  a: {box_vx: [0, 0, 0, 1, 1, 1]}\n  # and this\n"
    do(p := project(tmp_path, text), regions.remove(p, "a"))
    assert regions.read_text(tmp_path) == HEAD + "regions: {}\n  # looked at by Ada\n  # and this\n"


def test_a_layout_that_cannot_be_edited_in_place_is_refused(tmp_path: Path) -> None:
    text = HEAD + "regions:\n  a: &box {box_vx: [0, 0, 0, 1, 1, 1]}\n  b: *box\n"
    p = project(tmp_path, text)
    with pytest.raises(ConfigError, match=r"params.yaml: regions.b: cannot be edited .* by hand"):
        regions.add(p, "b", RegionSpec(box_vx=(0, 0, 0, 2, 2, 2)), replace=True)
    with pytest.raises(ConfigError, match=r"regions.a: cannot be edited"):
        regions.remove(p, "a")


NAMES = st.text("abz0_-", min_size=1, max_size=3)
VALUES = st.one_of(
    st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=8), st.booleans(), st.none()
)


@settings(max_examples=60, deadline=None)
@given(
    edits=st.lists(st.tuples(st.tuples(NAMES, NAMES, NAMES), VALUES, st.booleans()), max_size=8),
    name=st.sampled_from(sorted(set(TEXTS) - {"as init writes it"})),
)
def test_any_edits_equal_those_of_the_loaded_document_and_keep_other_lines(edits: Any, name: str) -> None:
    text = TEXTS[name]
    document = YAML(typ="safe").load(text)
    mine: dict[tuple[str, ...], Any] = {}
    for path, value, drop in edits:
        at = ("overrides", *path)
        if drop and at in mine:
            text = yamltext.drop(text, at, "t")
            del mine[at]
        else:
            text = yamltext.put(text, at, value, "t")
            mine[at] = value
    for at, value in mine.items():
        level = document
        for key in at[:-1]:
            level = level.setdefault(key, {})
        level[at[-1]] = value
    assert YAML(typ="safe").load(text) == document
    comments = [line for line in TEXTS[name].splitlines() if line.lstrip().startswith("#")]
    assert [line for line in text.splitlines() if line in comments] == comments


REFUSED = {
    "segmet.boundary=0.4": r"no stage 'segmet'; did you mean 'segment'",
    "segment.boundry=0.4": r"segment.boundry: no such parameter; did you mean 'boundary'",
    "segment.boundary=1.5": r"overrides.segment.corner.boundary: .*less than or equal to 1, got 1.5",
    "segment.boundary=high": r"overrides.segment.corner.boundary: .*valid number.* got 'high'",
    "segment.boundary=true": r"segment.boundary: wanted a float, got True",
    "segment.boundary='0.4'": r"segment.boundary: wanted a float, got '0.4'",
    "segment.boundary=.nan": r"wanted a finite number",
    "segment.boundary": r"wanted stage.parameter=value",
    "boundary=0.4": r"wanted stage.parameter=value",
    "segment.model=a: b": r"cannot be read as a YAML value",
    "segment.model=phantom-afinity": r"model 'phantom-afinity': not found .* did you mean 'phantom-affinity'",
    "agglomerate.threshold=0.4": r"agglomerate runs once for the whole dataset",
    "align.mesh_px=64": r"align runs once for the whole dataset",
    "segment.block_vx=[8, 32, 32]": r"segment.corner.block_vx: decides how segment is cut into units",
    "synapses.halo_nm=400": r"synapses.corner.halo_nm: decides",
    "match.reach=3": r"match.corner.reach: decides",
}


@pytest.mark.parametrize(("assignment", "message"), REFUSED.items(), ids=REFUSED.keys())
def test_an_override_that_would_not_do_what_it_says_is_refused(tmp_path: Path, assignment: str, message: str) -> None:
    p = project(tmp_path)
    p = do(p, regions.add(p, "corner", RegionSpec(box_vx=(0, 0, 0, 8, 64, 64))))
    before = (tmp_path / "params.yaml").read_bytes()
    done = CliRunner().invoke(app, ["regions", "set", "corner", assignment, "segment.smooth_nm=9", "-C", str(tmp_path)])
    assert done.exit_code == 1
    assert isinstance(done.exception, ConnectomeError)
    with pytest.raises(ConnectomeError, match=message):
        raise done.exception
    assert (tmp_path / "params.yaml").read_bytes() == before


def test_a_stage_that_has_units_takes_overrides_and_so_does_a_model(tmp_path: Path) -> None:
    p = project(tmp_path)
    p = do(p, regions.add(p, "corner", RegionSpec(box_vx=(0, 0, 0, 8, 64, 64))))
    wanted = {
        "montage.search_px": 60,
        "mask.resin_grey": 150,
        "overlap.accept_share": 0.8,
        "segment.model": "ac3-affinity",
    }
    p = do(p, regions.set_values(p, "corner", [f"{k}={v}" for k, v in wanted.items()]))
    found = {f"{stage}.{k}": v for stage, items in p.overrides.items() for o in items for k, v in o.values.items()}
    assert found == wanted
    kinds = {s.name: effect.kind_of(p, s) for s in STAGES}
    once = ["align", "reconcile", "agglomerate", "graph", "measure_graph", "flag"]
    assert [n for n, kind in kinds.items() if kind == "once"] == once


BOXES = {
    "far,0,0,8,64,64": r"wanted six whole numbers",
    "0,0,0,8,64": r"wanted six whole numbers .* got 5",
    "0,0,0,0,64,64": r"regions.corner: the box is empty",
    "8,64,64,0,0,0": r"regions.corner: the box is empty",
    "300,0,0,400,64,64": r"lies outside the volume, z 0:10.* nm taken as voxels",
}


@pytest.mark.parametrize(("box", "message"), BOXES.items(), ids=BOXES.keys())
def test_a_box_that_is_none_or_lies_outside_is_refused(tmp_path: Path, box: str, message: str) -> None:
    p = rendered(project(tmp_path))
    done = CliRunner().invoke(app, ["regions", "add", "corner", "--box-vx", box, "-C", str(tmp_path)])
    with pytest.raises(ConfigError, match=message):
        raise done.exception or AssertionError(done.output)
    assert regions.read_text(p.root) == FRESH


def test_a_box_that_reaches_out_is_warned_of_and_no_bounds_are_known_before_render(tmp_path: Path) -> None:
    p = project(tmp_path)
    out = RegionSpec(box_vx=(8, 200, 200, 12, 300, 300))
    assert regions.add(p, "edge", out).warnings == ()
    (warning,) = regions.add(rendered(p), "edge", out).warnings
    assert "reaches out of the volume (z 0:10, y 0:256, x 0:256 voxels" in warning
    assert regions.add(p, "inside", RegionSpec(box_vx=(0, 0, 0, 10, 256, 256))).warnings == ()


@pytest.mark.parametrize("name", ["a b", "", "-a", "a.b", "ä", "a:"])
def test_a_name_is_letters_digits_dash_and_underscore(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="wanted letters, digits"):
        regions.add(project(tmp_path), name, RegionSpec(box_vx=(0, 0, 0, 8, 64, 64)))


@pytest.mark.parametrize("name", ["12", "null", "true", "1e3", "on"])
def test_a_name_that_yaml_takes_for_something_else_is_kept_as_it_is(tmp_path: Path, name: str) -> None:
    p = project(tmp_path)
    p = do(p, regions.add(p, name, RegionSpec(box_vx=(0, 0, 0, 8, 64, 64))))
    p = do(p, regions.set_values(p, name, ["segment.boundary=0.4"]))
    assert p.overrides["segment"][0].region == name
    do(p, regions.remove(p, name))
    assert regions.read_text(tmp_path) == FRESH


def test_a_name_that_is_taken_or_unknown_is_said(tmp_path: Path) -> None:
    p = project(tmp_path)
    spec = RegionSpec(box_vx=(0, 0, 0, 8, 64, 64))
    p = do(p, regions.add(p, "corner", spec))
    with pytest.raises(ConfigError, match=r"'corner' is there already.*--replace"):
        regions.add(p, "corner", spec)
    for ask in (regions.remove, lambda q, n: regions.set_values(q, n, ["segment.boundary=0.4"]), regions.region):
        with pytest.raises(ConfigError, match="no region 'cornr'; did you mean 'corner'"):
            ask(p, "cornr")
    with pytest.raises(ConfigError, match="overrides nothing of stage 'segment'"):
        regions.unset(p, "corner", ["segment"])


def test_removing_a_region_says_which_overrides_go(tmp_path: Path) -> None:
    p = project(tmp_path, TEXTS["others before"])
    change = regions.remove(p, "a")
    assert change.done == ("region a removed", "override segment.boundary: 0.45 removed")
    assert do(p, change).overrides == {}


def test_overlapping_overrides_are_said_in_file_order(tmp_path: Path) -> None:
    p = project(tmp_path)
    for name, x in (("a", 0), ("b", 63), ("c", 64)):
        p = do(p, regions.add(p, name, RegionSpec(box_vx=(0, 0, x, 8, 64, x + 64))))
    p = do(p, regions.set_values(p, "b", ["segment.boundary=0.4"]))
    assert effect.conflicts(p) == []
    change = regions.set_values(p, "a", ["segment.boundary=0.3", "segment.smooth_nm=9"])
    (warning,) = change.warnings
    assert "segment.boundary is set by b (0.4) and by a (0.3)" in warning
    assert "share the voxels z 0:8, y 0:64, x 63:64: a comes later in the file and wins" in warning
    p = do(p, change)
    p = do(p, regions.set_values(p, "c", ["segment.boundary=0.35", "segment.smooth_nm=8"]))
    assert len(effect.conflicts(p)) == 2
    assert len(effect.conflicts(p, "a")) == 1
    shown = CliRunner().invoke(app, ["regions", "list", "-C", str(tmp_path)])
    assert shown.output.count("comes later in the file and wins") == 2


def test_a_flag_becomes_a_region_with_its_evidence_as_the_note(tmp_path: Path) -> None:
    p = project(tmp_path)
    with pytest.raises(ConfigError, match="no flags were raised"):
        regions.read_flag(p, "drift-1")
    (tmp_path / "qa").mkdir()
    flag = {"flag": "drift-1", "box_nm": [0, 0, 0, 240, 512, 512], "severity": "high", "evidence": "residual 9 px"}
    (tmp_path / "qa" / "flags.json").write_text(json.dumps([flag]))
    with pytest.raises(ConfigError, match="no flag 'drift-2'; did you mean 'drift-1'"):
        regions.read_flag(p, "drift-2")
    done = CliRunner().invoke(app, ["regions", "add", "drift", "--from-flag", "drift-1", "-C", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert regions.region(again(p), "drift").spec == RegionSpec(box_nm=(0, 0, 0, 240, 512, 512), note="residual 9 px")
    (tmp_path / "qa" / "flags.json").write_text('{"flag": 1}')
    with pytest.raises(ConfigError, match=r"flags.json: wanted a list"):
        regions.read_flag(p, "drift-1")


def test_the_file_is_replaced_not_written_into_and_not_if_someone_else_was_faster(tmp_path: Path) -> None:
    p = project(tmp_path)
    path = tmp_path / "params.yaml"
    path.chmod(0o640)
    os.link(path, tmp_path / "same-inode")
    change = regions.add(p, "a", RegionSpec(box_vx=(0, 0, 0, 8, 64, 64)))
    regions.apply(change)
    assert (tmp_path / "same-inode").read_text() == FRESH
    assert path.stat().st_mode & 0o777 == 0o640
    with pytest.raises(ConfigError, match="changed by someone else"):
        regions.apply(change)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["params.yaml", "same-inode"]


def test_a_new_text_is_judged_as_the_file_would_be(tmp_path: Path) -> None:
    p = project(tmp_path)
    text = FRESH.replace("regions: {}", "regions: {a: {box_vx: [0, 0, 0, 1, 1, 1]}}")
    assert config.load(
        p.root, STAGES, text.replace("overrides: {}", "overrides: {mask: {a: {fold_grey: 9}}}")
    ).overrides
    with pytest.raises(ConfigError, match="no such region; did you mean 'a'"):
        config.load(p.root, STAGES, text.replace("overrides: {}", "overrides: {mask: {aa: {fold_grey: 9}}}"))
    assert again(p).overrides == {}

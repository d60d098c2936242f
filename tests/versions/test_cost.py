"""`plan --machine`: published statements follow from the machine files, and the arithmetic agrees with counting."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from connectome_db import config, volumes
from connectome_db.cli.main import app
from connectome_db.errors import ConfigError
from connectome_db.geometry import Box, Vec3
from connectome_db.spec import Volume
from connectome_db.stages.pipeline import STAGES
from connectome_db.versions.plan.bytes_and_hours import measured
from connectome_db.versions.plan.cost import CoarseToFine, Extent, Tiling, Work, costs
from connectome_db.versions.plan.cost_report import amount, between
from connectome_db.versions.plan.forecast import Span
from connectome_db.versions.plan.machine import Machine, parse_machine, read_machine, shipped

BARE = Tiling((256, 256, 256), (0, 0, 0))
OWN = """
name: ours
device: a GPU
devices_per_node: {value: 4, kind: measured, source: ours}
voxels_per_move: {low: 500, high: 600, kind: measured, source: ours}
speeds:
  - {precision: float32, moves_per_s: {value: 100, kind: measured, source: ours}}
"""


@pytest.fixture(autouse=True)
def _nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in a project."""
    monkeypatch.chdir(tmp_path)


def asked(*words: str) -> dict[str, dict[str, object]]:
    """The costs that the command prints, by machine and precision, and the rest under ''."""
    done = CliRunner().invoke(app, ["plan", "--json", *words])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    return {f"{c['machine']} {c['precision']}": c for c in found["costs"]} | {"": found}


def refused(*words: str) -> str:
    done = CliRunner().invoke(app, ["plan", *words])
    assert isinstance(done.exception, ConfigError), done.output
    return str(done.exception)


# Published statements -----------------------------------------------------------------------------------------------


def test_a_petavoxel_is_a_million_gpu_hours_at_a_gigavoxel_per_hour() -> None:
    found = asked("--machine", "argonne-a100", "--voxels", "1e15")
    hoped, single = found["argonne-a100 8-16 bit"], found["argonne-a100 float32"]
    assert hoped["voxels_per_h"] == [1e9, 1e9]
    assert hoped["device_h_no_overlap"] == [1e6, 1e6]
    assert hoped["device_h"] == pytest.approx([1e6 * 256**3 / (240 * 224 * 224)] * 2)
    assert hoped["node_h"] == pytest.approx([1e6 * 256**3 / (240 * 224 * 224) / 4] * 2)
    assert single["device_h_no_overlap"] == [1e15 / 80e6] * 2


def test_eighty_megavoxels_per_hour_are_about_a_tenth_of_an_a100() -> None:
    low, high = asked("--machine", "argonne-a100", "--voxels", "1e15")["argonne-a100 float32"]["share_of_peak"]  # type: ignore[misc]
    # 76 to 92 MFLOP a voxel, from the published 45.8 GFLOP a move and 500 to 600 voxels a move
    assert low == pytest.approx(80e6 / 3600 * 45.8e9 / 600 / 19.5e12, rel=1e-3)
    assert high == pytest.approx(80e6 / 3600 * 45.8e9 / 500 / 19.5e12, rel=1e-3)
    assert 0.08 < low < 0.1 < high < 0.11


def test_55_000_jobs_of_256_cubed_are_less_than_a_teravoxel() -> None:
    """The volume was not published; these are the ones that it fits."""
    assert Tiling().jobs(Extent(55_000 * 240 * 224 * 224)) == 55_000
    assert pytest.approx(0.662e12, rel=1e-3) == 55_000 * 240 * 224 * 224
    assert BARE.jobs(Extent(55_000 * 256**3)) == 55_000
    assert BARE.jobs(Extent(10**12)) == 59_605  # more: no overlap makes it fit a teravoxel


def test_the_laptop_fills_what_its_moves_fill() -> None:
    found = asked("--machine", "laptop", "--voxels", "1e9", "--overlap", "0,0,0")
    assert found["laptop float32"]["voxels_per_h"] == pytest.approx([4.65 * 3600 * 500, 4.65 * 3600 * 600])
    assert found["laptop bfloat16"]["device_h"] == pytest.approx([1e9 / (8.72 * 3600 * n) for n in (600, 500)])
    assert found["laptop float32"]["share_of_peak"] is None
    assert found["laptop float32"]["flop_per_s"] == pytest.approx([4.65 * 45.8e9] * 2, rel=1e-3)


def test_an_assumed_share_of_a_peak_is_called_assumed() -> None:
    found = asked("--machine", "h200", "--voxels", "1e15")["h200 bfloat16"]
    assert found["speed_is"] == "assumed"
    assert found["voxels_per_h"] == pytest.approx(
        [0.3 * 989.5e12 / 45.8e9 * 500 * 3600, 0.4 * 989.5e12 / 45.8e9 * 600 * 3600], rel=1e-3
    )


def test_coarse_to_fine_that_fills_four_fifths_costs_a_third() -> None:
    found = asked("--machine", "laptop", "--voxels", "1e9", "--coarse", "2,2,2", "--coarse-filled", "0.8")
    assert found[""]["passes"] == pytest.approx(0.325)
    one = asked("--machine", "laptop", "--voxels", "1e9")
    ratio = found["laptop float32"]["device_h"][0] / one["laptop float32"]["device_h"][0]  # type: ignore[index]
    assert ratio == pytest.approx(1 / 8 + 1 / 5)
    assert CoarseToFine((1, 2, 2), 0.5).passes == 0.75


# Arithmetic ---------------------------------------------------------------------------------------------------------


def count(shape: Vec3, side: Vec3, overlap: Vec3) -> tuple[int, int]:
    """Subvolumes and their voxels, laid out one by one until the far border is reached."""
    axes = []
    for whole, s, o in zip(shape, side, overlap, strict=True):
        spans, start = [(0, min(s, whole))], 0
        while spans[-1][1] < whole:
            start += s - o
            spans.append((start, min(start + s, whole)))
        axes.append(spans)
    boxes = list(itertools.product(*axes))
    return len(boxes), sum(int(np.prod([b - a for a, b in box])) for box in boxes)


@pytest.mark.parametrize("shape", [(1, 1, 1), (8, 8, 8), (9, 17, 40), (6, 25, 7), (2, 3, 100)])
@pytest.mark.parametrize(("side", "overlap"), [((8, 8, 8), (0, 0, 0)), ((8, 8, 8), (2, 3, 7)), ((4, 9, 5), (3, 0, 1))])
def test_jobs_and_their_voxels_are_those_of_a_layout(shape: Vec3, side: Vec3, overlap: Vec3) -> None:
    extent = Extent(int(np.prod(shape)), shape)
    jobs, voxels = count(shape, side, overlap)
    assert Tiling(side, overlap).jobs(extent) == jobs
    assert Tiling(side, overlap).overlap_factor(extent) * extent.voxels == pytest.approx(voxels)


def test_devices_take_whole_jobs() -> None:
    work = Work(Extent(3 * 256**3), BARE, None)
    machine = parse_machine(OWN, "own")
    (alone,) = costs(machine, work, devices=1, price_per_hour=2.0)
    (two,) = costs(machine, work, devices=2, price_per_hour=None)
    hour = 256**3 / (100 * 3600 * np.array([600, 500]))
    assert alone.clock_h is not None
    assert two.clock_h is not None
    assert alone.price is not None
    assert [alone.clock_h.low, alone.clock_h.high] == pytest.approx(3 * hour)
    assert [two.clock_h.low, two.clock_h.high] == pytest.approx(2 * hour)
    assert [alone.price.low, alone.price.high] == pytest.approx(6 * hour)
    assert two.price is None
    assert [two.node_h.low, two.node_h.high] == pytest.approx(3 / 4 * hour)


def test_another_network_costs_what_its_convolutions_cost() -> None:
    small = parse_machine(OWN + "network: {depth: 1, features: 4, fov_vx: [5, 5, 5], deltas_vx: [2, 2, 2]}\n", "own")
    # two 3x3x3 convolutions, 2 -> 4 and 4 -> 4 channels, and 4 -> 1 of one voxel; a product and a sum each
    assert small.flop_per_move == 2 * 5**3 * (27 * (2 * 4 + 4 * 4) + 4)
    assert read_machine("h200").flop_per_move == pytest.approx(45.8e9, rel=1e-3)


def test_numbers_for_people() -> None:
    assert [amount(v) for v in (0.0, 4.65, 999.9, 80e6, 1.394e15)] == ["0", "4.65", "1 k", "80 M", "1.39 P"]
    assert between(Span(8.37e6, 10.04e6)) == "8.37–10 M"
    assert between(Span(999e3, 2e6)) == "999 k – 2 M"
    assert between(Span(5, 5)) == "5"


# Machine files and options ------------------------------------------------------------------------------------------


def test_every_shipped_machine_says_where_its_numbers_are_from() -> None:
    assert shipped() == ["argonne-a100", "h100", "h200", "laptop"]
    for name in shipped():
        machine = read_machine(name)
        assert machine.name == name
        assert Machine(**machine.model_dump()) == machine


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("moves_per_s", "moves_per_sec", "speeds.0.moves_per_sec: no such field; did you mean 'moves_per_s'"),
        (", source: ours}}", "}}", "speeds.0.moves_per_s.source: is missing"),
        ("low: 500", "low: 700", "voxels_per_move: wanted low <= high, got 700 and 600"),
        ("low: 500, ", "", "voxels_per_move: wanted either `value`, or `low` and `high`"),
        ("value: 4,", "value: 2.5,", "devices_per_node: wanted a whole `value`"),
        ("value: 100", "value: .nan", "speeds.0.moves_per_s.value"),
        ("value: 100", "value: 0", "speeds.0.moves_per_s.value"),
        ("kind: measured, source: ours}}", "kind: told, source: ours}}", "speeds.0.moves_per_s.kind"),
        ("moves_per_s:", "share_of_peak:", "share_of_peak needs peak_flop_per_s"),
        ("float32, ", "float32, voxels_per_h: {value: 1, kind: hoped, source: x}, ", "exactly one of"),
        ("speeds:", "speeds: []\nrest:", "speeds"),
        ("name: ours", "name: [", "own.yaml, line"),
    ],
)
def test_a_wrong_machine_file_is_refused(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in OWN
    (tmp_path / "own.yaml").write_text(OWN.replace(old, new, 1))
    message = refused("--machine", "own.yaml", "--voxels", "1e9")
    assert message.startswith("own.yaml")
    assert says in message


def test_a_share_above_one_is_refused() -> None:
    peak = "peak_flop_per_s: {value: 1.0e12, kind: published, source: x}"
    text = OWN.replace("moves_per_s: {value: 100,", f"{peak}, share_of_peak: {{value: 30,")
    with pytest.raises(ConfigError, match="wanted at most 1, got 30"):
        parse_machine(text, "own.yaml")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--voxels 1e15", "--voxels: only with --machine"),
        ("--devices 3 --coarse 2,2,2", "--coarse, --devices: only with --machine"),
        ("--machine h200", "needs --voxels"),
        ("--machine h20 --voxels 1e9", "did you mean 'h200'"),
        ("--machine none.yaml --voxels 1e9", "none.yaml: cannot be read"),
        ("--machine h200 --voxels many", "like 1e15"),
        ("--machine h200 --voxels nan", "like 1e15"),
        ("--machine h200 --voxels 0", "like 1e15"),
        ("--machine h200 --voxels 2.5", "whole"),
        ("--machine h200 --voxels 5,5", "a shape z,y,x"),
        ("--machine h200 --voxels 1e9 --overlap 8,8", "--overlap '8,8': wanted three whole numbers"),
        ("--machine h200 --voxels 1e9 --overlap 8,256,8", "less than --subvolume 256,256,256"),
        ("--machine h200 --voxels 1e9 --subvolume 0,8,8", "of at least 1"),
        ("--machine h200 --voxels 1e9 --coarse 2,2,2", "go together"),
        ("--machine h200 --voxels 1e9 --coarse 1,1,1 --coarse-filled 0.5", "at least 2 on one axis"),
        ("--machine h200 --voxels 1e9 --price inf", "wanted a number"),
        (
            "segment --machine h200 --voxels 1e9 --ranks 0 --deep",
            "stages, --ranks, --deep: not together with --machine",
        ),
        ("--machine h200 --voxels 1e9 -C .", "no connectome project"),
    ],
)
def test_wrong_options_are_refused(words: str, says: str) -> None:
    assert says in refused(*words.split())


def test_it_prints_what_its_numbers_rest_on() -> None:
    done = CliRunner().invoke(app, ["plan", "--machine", "h200", "--voxels", "1000,2000,3000", "--devices", "8"])
    assert done.exit_code == 0, done.output
    assert "6 G voxels (1,000 × 2,000 × 3,000): 630 jobs" in done.stdout  # 5 x 9 x 14
    assert "assumed: what dense convolutions" in done.stdout
    assert "hours on 8" in done.stdout


# Bytes and stages of a project --------------------------------------------------------------------------------------


def test_a_project_tells_its_bytes_and_seconds_per_voxel(tmp_path: Path) -> None:
    root = tmp_path / "p"
    folder = root / "data" / "render" / "image"
    folder.mkdir(parents=True)
    (root / "params.yaml").write_text("dataset: {name: small, voxel_nm: [30, 8, 8]}\n")
    assert measured(config.load(root, STAGES)) is None
    bare = CliRunner().invoke(app, ["plan", "--machine", "h200", "--voxels", "1e9", "-C", str(root)])
    assert "has no image in data/render" in str(bare.exception)
    image = Volume(name="image", dtype="uint8", kind="image", doc="grey")
    layout = volumes.layout(image, Box((0, 0, 0), (4, 8, 10)), (4, 8, 16), (30.0, 8.0, 8.0))
    info = volumes.info(layout)
    (folder / "info").write_bytes(info)
    (folder / "30_8_8").mkdir()
    (folder / "30_8_8" / "0-10_0-8_0-4").write_bytes(bytes(320))
    (root / "data" / "render" / "image_plane.parquet").write_bytes(bytes(64))
    times = root / "provenance" / "render"
    times.mkdir(parents=True)
    pq.write_table(pa.table({"unit": [1, 2], "seconds": [3.0, 5.0]}), times / "executions.parquet")

    found = asked("--machine", "h200", "--voxels", "3200", "-C", str(root))[""]
    assert {s["layer"]: s["bytes"] for s in found["storage"]["layers"]} == {  # type: ignore[index]
        "render.image": pytest.approx([10 * (320 + len(info))] * 2),
        "render, tables": pytest.approx([640, 640]),
    }
    assert found["storage"]["bytes"] == pytest.approx([10 * (384 + len(info))] * 2)  # type: ignore[index]
    assert found["stages"] == [
        {
            "stage": "render",
            "worker_s_per_voxel": pytest.approx(8 / 320),
            "worker_h": pytest.approx(80 / 3600),
            "units_measured": 2,
        }
    ]
    shown = CliRunner().invoke(app, ["plan", "--machine", "h200", "--voxels", "3200", "-C", str(root)])
    assert "measured in small, 320 voxels" in shown.stdout


def test_without_a_project_storage_is_that_of_the_encodings() -> None:
    found = asked("--machine", "h200", "--voxels", "1e15")[""]
    assert found["stages"] is None
    by_layer = {s["layer"]: s["bytes_per_voxel"] for s in found["storage"]["layers"]}  # type: ignore[index]
    assert found["storage"]["from"] == "assumed"  # type: ignore[index]
    halves = sum(1 / 8**k for k in range(60)), sum(1 / 4**k for k in range(60))
    assert by_layer["image"] == pytest.approx(halves)
    assert by_layer["affinities"] == pytest.approx([3 * h for h in halves])
    assert found["storage"]["bytes"] == pytest.approx(  # type: ignore[index]
        [1e15 * sum(pair[end] for pair in by_layer.values()) for end in (0, 1)]
    )

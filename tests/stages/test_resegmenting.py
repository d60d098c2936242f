"""score -> resegment -> agglomerate: fragments that may be one neuron are filled once more from each side."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy import ndimage

from connectome_db.errors import StageError
from connectome_db.geometry import Box
from connectome_db.schema.segmentation import OVERLAP, SUPERVOXEL
from connectome_db.spec import Extent, Found
from connectome_db.stages import agglomerate as agglomerate_stage
from connectome_db.stages import reconcile as reconcile_stage
from connectome_db.stages import resegment as resegment_stage
from connectome_db.stages import score as score_stage
from tests.stages.memory import Memory
from tests.stages.truth_network import TruthWindow, WatchingWindow, colour

VOXEL_NM = (30.0, 8.0, 8.0)
SHAPE = (32, 62, 62)
BLOCK = (32, 31, 62)
"""Two blocks, the face between them at y = 31."""
CUT = 13
"""The section at which one neurite was cut in two by mistake."""
HOW: dict[str, Any] = {"block_vx": BLOCK, "radius_vx": (8, 20, 20), "disco_seed_threshold": -1}


def neurites() -> np.ndarray:
    """Square neurites, 20 voxels apart with boundaries of 2, straight through all sections."""
    _, y, x = np.indices(SHAPE)
    return np.where((y % 20 > 1) & (x % 20 > 1), 1 + (y // 20) * 5 + x // 20, 0)


def bodies(truth: np.ndarray) -> np.ndarray:
    """Supervoxels as `segment` would leave them: grown into all membranes, cut at the face between blocks (the upper
    part has 100 more), and neurite 1 cut at a section (the part above has 50 more)."""
    grown = truth[tuple(ndimage.distance_transform_edt(truth == 0, return_distances=False, return_indices=True))]
    out = grown.astype(np.uint64)
    out[CUT:][grown[CUT:] == 1] += np.uint64(50)
    out[:, BLOCK[1] :][grown[:, BLOCK[1] :] > 0] += np.uint64(100)
    return out


def scored(truth: np.ndarray, *, affinity: float = 0.4, origin: tuple[int, int, int] = (0, 0, 0)) -> Memory:
    """Everything up to `score`. The halves of the neurites that the face cuts are accepted as one, but for one."""
    high = tuple(o + n for o, n in zip(origin, SHAPE, strict=True))
    level = np.full(SHAPE, round(affinity * 255), np.uint8)
    volumes = {"render.image": colour(truth), "mask.mask": np.zeros(SHAPE, np.uint8)}
    volumes |= {"segment.supervoxels": bodies(truth), **{f"segment.affinity_{axis}": level for axis in "zyx"}}
    memory = Memory(VOXEL_NM, volumes, Box(origin, high))
    memory.run(score_stage.STAGE, score_stage.ScoreParams(block_vx=BLOCK))
    cut = [n for n in np.unique(truth[:, BLOCK[1]]).tolist() if n]
    rows = [
        {"unit": 0, "a": n, "b": n + 100, "overlap_vx": 9, "a_vx": 9, "b_vx": 9, "score": 1.0, "iou": 1.0,
         "accepted": n != cut[-1], "reason": ""} for n in cut
    ]  # fmt: skip
    memory.tables["overlap.overlap"] = pa.Table.from_pylist(rows, schema=OVERLAP.stored())
    memory.extents["overlap.overlap"] = Extent(np.zeros(1, np.uint64), np.array([[*origin, *high]]))
    return memory


def judged(memory: Memory, network: TruthWindow | None = None, **more: Any) -> list[dict[str, Any]]:
    memory.run(resegment_stage.STAGE, resegment_stage.ResegmentParams(**(HOW | more)), network or TruthWindow())
    return memory.tables["resegment.resegmentation"].to_pylist()


@pytest.fixture(scope="module")
def memory() -> Memory:
    found = scored(neurites())
    judged(found)
    return found


def objects(memory: Memory, **params: Any) -> dict[int, int]:
    """The object of every supervoxel."""
    names, size = np.unique(memory.volumes["segment.supervoxels"], return_counts=True)
    zero = {c.name: np.zeros(len(names)) for c in SUPERVOXEL.columns}
    columns = {"unit": names * 0, **zero, "supervoxel": names, "size_vx": size, "origin": ["ffn"] * len(names)}
    schema = SUPERVOXEL.stored()
    cast = [pa.array(columns[n]).cast(schema.field(n).type) for n in schema.names]
    memory.tables["segment.supervoxel"] = pa.table(cast, schema=schema)
    memory.extents["segment.supervoxel"] = memory.extents["overlap.overlap"]
    memory.run(reconcile_stage.STAGE, reconcile_stage.ReconcileParams())
    memory.run(agglomerate_stage.FLOODED, agglomerate_stage.AgglomerateParams(dust_vx=0, **params))
    member = memory.tables["agglomerate.member"]
    return dict(zip(member["supervoxel"].to_pylist(), member["object"].to_pylist(), strict=True))


def neurite(supervoxel: int) -> int:
    return supervoxel % 50


def test_what_was_cut_is_filled_whole_and_what_is_apart_is_not(memory: Memory) -> None:
    rows = memory.tables["resegment.resegmentation"].to_pylist()
    same = [r for r in rows if neurite(r["a"]) == neurite(r["b"])]
    assert {(r["a"], r["b"]) for r in same if neurite(r["a"]) == 1} == {(1, 51)}
    assert len(rows) > 15
    for r in rows:
        assert min(r["a_own"], r["b_own"]) > 0.3  # supervoxels were grown into the membranes, and some are seen in part
        if r in same:
            assert min(r["a_other"], r["b_other"]) > 0.3
            assert r["iou"] > 0.6
        else:
            assert max(r["a_other"], r["b_other"], r["iou"]) == 0


def test_fragments_and_not_supervoxels_are_judged(memory: Memory) -> None:
    """What an accepted overlap has joined is one; what was refused at the face is a pair like any other."""
    rows = memory.tables["resegment.resegmentation"].to_pylist()
    across = sorted((r["a"], r["b"]) for r in rows if r["b"] == r["a"] + 100)
    (refused,) = {r["a"] for r in memory.tables["overlap.overlap"].to_pylist() if not r["accepted"]}
    assert across == [(refused, refused + 100)]
    whole = max(r["a_vx"] for r in rows if r["a"] == 6)
    assert whole > 17 * 20 * 10  # more than what one block has of it around the contact


def test_a_row_says_where_and_from_which_seeds(memory: Memory) -> None:
    supervoxels, truth = memory.volumes["segment.supervoxels"], neurites()
    contacts = memory.tables["score.contact"].to_pylist()
    for r in memory.tables["resegment.resegmentation"].to_pylist():
        (contact,) = [c for c in contacts if (c["unit"], c["a"], c["b"]) == (r["unit"], r["a"], r["b"])]
        for side in "ab":
            seed = tuple(r[f"{side}_seed_{axis}_vx"] for axis in "zyx")
            assert neurite(supervoxels[seed]) == neurite(r[side]) == truth[seed]
            assert r[f"{side}_moves"] >= 1
            for axis, n, radius, fov in zip("zyx", seed, HOW["radius_vx"], TruthWindow().fov_vx, strict=True):
                assert abs(contact[f"{axis}_vx"] - r[f"{axis}_vx"]) <= 0.5
                assert abs(n - r[f"{axis}_vx"]) <= radius - fov // 2


def test_the_largest_contact_of_a_pair_is_judged_once_per_block(memory: Memory) -> None:
    rows = memory.tables["resegment.resegmentation"].to_pylist()
    pairs = [
        (r["unit"], *sorted((neurite(r["a"]), neurite(r["b"]))))
        for r in rows
        if 1 not in map(neurite, (r["a"], r["b"]))
    ]
    assert len(set(pairs)) == len(pairs)
    contacts = memory.tables["score.contact"].to_pylist()
    for unit, low, high in pairs:
        alike = [c for c in contacts if c["unit"] == unit and {neurite(c["a"]), neurite(c["b"])} == {low, high}]
        chosen = [r for r in rows if r["unit"] == unit and {neurite(r["a"]), neurite(r["b"])} == {low, high}]
        assert max(c["area_nm2"] for c in alike) == next(
            c["area_nm2"] for c in alike if (c["a"], c["b"]) == (chosen[0]["a"], chosen[0]["b"])
        )


@pytest.mark.parametrize(
    ("affinity", "more", "some"),
    [(0.4, {}, True), (0.1, {}, False), (0.1, {"from_affinity": 0.05}, True), (1.0, {"from_affinity": 1.0}, False),
     (0.4, {"min_size_vx": 50_000}, False)],
    ids=["as it is", "weak", "lower limit", "none", "small"],
)  # fmt: skip
def test_which_pairs_are_judged(affinity: float, more: dict[str, Any], some: bool) -> None:
    assert bool(judged(scored(neurites(), affinity=affinity), **more)) == some


def test_no_tissue_no_filling() -> None:
    memory = scored(neurites())
    memory.volumes["mask.mask"][:] = 2
    assert {r["a_own"] for r in judged(memory)} == {0.0}


def test_it_is_the_same_wherever_the_volume_lies() -> None:
    moved = judged(scored(neurites(), origin=(0, 31 * 3, 0)))
    rows = judged(scored(neurites()))
    assert [r | {"unit": 0} for r in rows] == [
        {k: v - 93 if k in {"y_vx", "a_seed_y_vx", "b_seed_y_vx"} else v for k, v in r.items()} | {"unit": 0}
        for r in moved
    ]


def test_the_order_of_blocks_changes_nothing(memory: Memory) -> None:
    again = scored(neurites())
    again.run(resegment_stage.STAGE, resegment_stage.ResegmentParams(**HOW), TruthWindow(), [1, 0])
    assert again.tables["resegment.resegmentation"].equals(memory.tables["resegment.resegmentation"])


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"radius_vx": (3, 20, 20)}, "resegment.radius_vx .*wanted at least half the window of truth-window"),
        ({"step_vx": (2, 5, 13)}, "resegment.step_vx .*wanted at most half the window"),
        ({"block_vx": (16, 31, 62)}, "resegment.block_vx .*wanted the blocks of score.block_vx"),
        ({"move_threshold": 0.99}, "init_activation 0.95: wanted at least move_threshold"),
    ],
    ids=["radius", "step", "blocks", "thresholds"],
)
def test_parameters_that_cannot_be(more: dict[str, Any], words: str) -> None:
    with pytest.raises(StageError, match=words):
        judged(scored(neurites()), **more)


def test_a_block_reads_what_lies_within_the_radius_of_its_contacts() -> None:
    memory = scored(neurites())
    plan = resegment_stage.plan(Found(VOXEL_NM, memory.extents), resegment_stage.ResegmentParams(**HOW))
    boxes = {r.input: r.boxes for r in plan.reads}
    assert boxes["render.image"][1].tolist() == [0, 31 - 21, 0, 32, 62, 62]
    assert boxes["score.contact"][1].tolist() == [0, 31, 0, 32, 62, 62]


@pytest.mark.parametrize(
    ("affinity", "params", "found"),
    [
        (0.4, {"resegmented": 0.0}, "as reconciled"),
        (0.4, {}, "the truth"),
        (0.6, {"resegmented": 0.0}, "one"),
        (0.6, {"resegmented_own": 0.3}, "the truth"),
        (0.6, {"resegmented_own": 1.0}, "one"),
        (0.2, {"resegmented": 1.0}, "the truth"),
    ],
    ids=["affinity splits", "and is raised", "affinity merges", "and is lowered", "fillings that say nothing", "alone"],
)
def test_agglomerate_weighs_it(affinity: float, params: dict[str, Any], found: str) -> None:
    memory = scored(neurites(), affinity=affinity)
    judged(memory)
    object_of = objects(memory, threshold=0.42, **params)
    groups: dict[int, set[int]] = {}
    for supervoxel, owner in object_of.items():
        groups.setdefault(owner, set()).add(supervoxel)
    if found == "one":
        assert len(groups) == 1
        return
    whole = {n: {s for s in object_of if neurite(s) == n} for n in map(neurite, object_of)}
    if found == "the truth":
        assert sorted(map(sorted, groups.values())) == sorted(map(sorted, whole.values()))
        return
    split = [n for n, parts in whole.items() if len({object_of[s] for s in parts}) > 1]
    assert len(split) == 2  # the one that was cut, and the one of which the overlap was refused
    assert all(len(set(map(neurite, group))) == 1 for group in groups.values())


def test_blocks_that_judge_one_pair_are_averaged() -> None:
    memory = scored(neurites(), affinity=0.4)
    judged(memory)
    rows = memory.tables["resegment.resegmentation"].to_pylist()
    (pair,) = [r for r in rows if (r["a"], r["b"]) == (1, 51)]
    assert max(pair["a_other"], pair["b_other"]) > 0.7
    against = {"unit": 7, "a_own": 1.0, "b_own": 1.0, "a_other": 0.2, "b_other": 0.0}
    for more, whole in (
        ([], True),
        ([pair | against], True),
        ([pair | against | {"unit": n} for n in range(7, 12)], False),
        ([pair | against | {"unit": n, "a_other": 0.4} for n in range(7, 30)], False),
    ):
        table = memory.tables["resegment.resegmentation"]
        memory.tables["resegment.resegmentation"] = pa.Table.from_pylist([*rows, *more], schema=table.schema)
        object_of = objects(memory, threshold=0.42, resegmented=1.0)
        assert (object_of[1] == object_of[51]) == whole


def test_a_pair_is_judged_at_its_largest_contact() -> None:
    """Neurite 1 is cut at a section, both parts are one fragment: the part above touches neurite 2 more."""
    memory = scored(neurites())
    table = memory.tables["overlap.overlap"]
    joined = table.to_pylist()[0] | {"a": 1, "b": 51, "accepted": True}
    memory.tables["overlap.overlap"] = pa.Table.from_pylist([*table.to_pylist(), joined], schema=table.schema)
    rows = judged(memory)
    assert [(r["a"], r["b"]) for r in rows if {neurite(r["a"]), neurite(r["b"])} == {1, 2}] == [(2, 51)]


def test_other_fragments_are_in_the_way_and_what_has_none_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    real, seen = resegment_stage.resegment, []

    def watching(image: np.ndarray, free: np.ndarray, a: np.ndarray, b: np.ndarray, how: Any) -> Any:
        seen.append((image, free, a, b))
        return real(image, free, a, b, how)

    monkeypatch.setattr(resegment_stage, "resegment", watching)
    truth = neurites()
    memory = scored(truth)
    gap = truth == 0
    memory.volumes["segment.supervoxels"][gap & (np.indices(SHAPE)[0] > 25)] = 0  # nothing has these
    memory.run(score_stage.STAGE, score_stage.ScoreParams(block_vx=BLOCK))
    assert len(judged(memory)) == len(seen) > 15
    assert any((free & ~a & ~b).any() for _, free, a, b in seen)
    for image, free, a, b in seen:
        assert not (a & b).any()
        assert (free >= (a | b)).all()
        assert (image[free & ~a & ~b] == 0).all()  # background, and no voxel of another neurite


def test_what_lies_beyond_the_dataset_is_its_mirror_image() -> None:
    watching = WatchingWindow()
    memory = scored(neurites())
    memory.volumes["render.image"] += 40
    judged(memory, watching)
    assert len(watching.lowest) > 30
    assert set(watching.lowest) == {40}

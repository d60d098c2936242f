"""flood -> segment -> overlap -> reconcile -> score -> agglomerate over several blocks, against truth."""

from __future__ import annotations

from collections import Counter
from typing import Any

import cc3d
import numpy as np
import pyarrow as pa
import pytest

from connectome_db import ids
from connectome_db.errors import StageError
from connectome_db.geometry import Box
from connectome_db.kernels.consensus import split_consensus
from connectome_db.kernels.metrics import adapted_rand, overlap
from connectome_db.spec import Found
from connectome_db.stages import agglomerate as agglomerate_stage
from connectome_db.stages import flood as flood_stage
from connectome_db.stages import overlap as overlap_stage
from connectome_db.stages import reconcile as reconcile_stage
from connectome_db.stages import score as score_stage
from connectome_db.stages import segment as segment_stage
from tests.stages.memory import Memory
from tests.stages.test_reconstruction import mapped
from tests.stages.truth_network import TruthAffinity, TruthWindow, WatchingWindow, colour

BLOCKS: dict[str, Any] = {"block_vx": (16, 64, 64), "halo_vx": (8, 16, 16), "apron_vx": (4, 8, 8)}
VOXEL_NM = (30.0, 8.0, 8.0)
BLIND_TUBE = 52
"""A neurite that some networks do not see."""


def tubes(shape: tuple[int, int, int] = (24, 122, 142)) -> np.ndarray:
    """Square neurites, 20 voxels apart with boundaries of 2, straight through all sections: each has seeds anywhere."""
    _, y, x = np.indices(shape)
    return np.where((y % 20 > 1) & (x % 20 > 1), 1 + (y // 20) * 50 + x // 20, 0)


def flooded(
    labels: np.ndarray,
    *,
    network: TruthWindow | None = None,
    fill: str = "affinity",
    affinity: TruthAffinity | None = None,
    reverse: bool = False,
    mask: np.ndarray | None = None,
    origin: tuple[int, int, int] = (0, 0, 0),
    **more: Any,
) -> Memory:
    image = colour(labels)
    if network is not None and network.blind:
        image[labels == BLIND_TUBE] = network.blind
    tissue = np.zeros(image.shape, np.uint8) if mask is None else mask
    high = (origin[0] + image.shape[0], origin[1] + image.shape[1], origin[2] + image.shape[2])
    memory = Memory(VOXEL_NM, {"render.image": image, "mask.mask": tissue}, Box(origin, high))
    # A window of this network denies what it cannot see to be connected; others may still say it.
    params = flood_stage.FloodParams(**({"min_body_vx": 50, "disco_seed_threshold": -1} | BLOCKS | more))
    count = len(flood_stage.plan(Found(VOXEL_NM, memory.extents), params))
    order = list(reversed(range(count))) if reverse else []
    memory.run(flood_stage.STAGE, params, network or TruthWindow(), order)
    blocks = {name: getattr(params, name) for name in BLOCKS}
    own = segment_stage.SegmentParams(method="ffn", fill=fill, **blocks)  # type: ignore[arg-type]
    memory.run(segment_stage.FLOODED, own, affinity or TruthAffinity(), order)
    memory.run(overlap_stage.STAGE, overlap_stage.OverlapParams(block_vx=params.block_vx, depth_vx=params.apron_vx))
    memory.run(reconcile_stage.STAGE, reconcile_stage.ReconcileParams())
    memory.run(score_stage.FLOODED, score_stage.ScoreParams(block_vx=BLOCKS["block_vx"]))
    memory.run(agglomerate_stage.STAGE, agglomerate_stage.AgglomerateParams(dust_vx=100))
    return memory


@pytest.fixture(scope="module")
def tubes_memory() -> Memory:
    return flooded(tubes())


def test_bodies_joined_across_blocks_are_the_truth(tubes_memory: Memory) -> None:
    """`reconcile` alone joins them: bodies of two blocks agree on the voxels that both saw."""
    truth = cc3d.connected_components(tubes(), connectivity=6)
    assert tubes_memory.units["flood"] == 2 * 2 * 3
    joined = mapped(tubes_memory, "fragment")
    bodies = tubes_memory.volumes["flood.bodies"]
    assert (bodies[tubes() > 0] > 0).mean() > 0.8  # some that a block sees the edge of have no seed in it
    covered = np.where(bodies > 0, joined, 0)
    assert adapted_rand(overlap(covered, truth, ignore_seg=0)).error < 0.002
    alone = adapted_rand(overlap(bodies, truth, ignore_seg=0))
    assert alone.error > 0.1  # each block has its own
    assert adapted_rand(overlap(mapped(tubes_memory, "object"), truth)).error < 0.002


def test_a_body_keeps_its_name_and_what_is_filled_gets_one(tubes_memory: Memory) -> None:
    bodies, supervoxels = tubes_memory.volumes["flood.bodies"], tubes_memory.volumes["segment.supervoxels"]
    assert (supervoxels[bodies > 0] == bodies[bodies > 0]).all()
    rows = tubes_memory.tables["segment.supervoxel"]
    made = dict(zip(rows["supervoxel"].to_pylist(), rows["origin"].to_pylist(), strict=True))
    assert set(made.values()) <= {"ffn", "fill"}
    assert {n for n, origin in made.items() if origin == "ffn"} == set(np.unique(bodies[bodies > 0]).tolist())
    assert set(made) == set(np.unique(supervoxels[supervoxels > 0]).tolist())
    assert (ids.unit_of(rows["supervoxel"].to_numpy()) == (rows["unit"].to_numpy() & np.uint64((1 << 39) - 1))).all()


def test_rows_say_where_a_body_came_from(tubes_memory: Memory) -> None:
    bodies, truth = tubes_memory.volumes["flood.bodies"], tubes()
    rows = tubes_memory.tables["flood.flood_body"].to_pylist()
    assert len(rows) == len(np.unique(bodies[bodies > 0]))
    for row in rows:
        mine = bodies == row["body"]
        assert int(mine.sum()) == row["size_vx"] <= row["read_vx"]
        seed = truth[row["seed_z_vx"], row["seed_y_vx"], row["seed_x_vx"]]
        assert set(np.unique(truth[mine]).tolist()) == {seed}
        assert row["second_seed_z_vx"] is None
    objects = tubes_memory.tables["flood.flood_object"]
    kept = objects.filter(pa.compute.equal(objects["reason"], "complete"))
    assert min(kept["moves"].to_pylist()) >= 1
    assert min(kept["voxels"].to_pylist()) >= 50
    skipped = tubes_memory.tables["flood.flood_skip"].to_pylist()
    assert {r["reason"] for r in skipped} == {"border", "no_tissue", "taken", "close"}
    assert sum(r["seeds"] for r in skipped if r["reason"] == "taken") > 0


def test_the_image_is_mirrored_where_it_ends(tubes_memory: Memory) -> None:
    """A window of 25 could else not come within 12 voxels of the border."""
    bodies, truth = tubes_memory.volumes["flood.bodies"], tubes()
    for edge in (np.s_[0], np.s_[-1], np.s_[:, 2], np.s_[:, -3], np.s_[:, :, 2], np.s_[:, :, -3]):
        assert (bodies[edge][truth[edge] > 0] > 0).mean() > 0.6


def test_what_lies_beyond_the_dataset_is_its_mirror_image() -> None:
    watching = WatchingWindow()
    image = np.where(tubes((16, 64, 64)) > 0, 200, 40).astype(np.uint8)
    memory = Memory(VOXEL_NM, {"render.image": image, "mask.mask": np.zeros_like(image)}, Box((0, 0, 0), image.shape))
    memory.run(flood_stage.STAGE, flood_stage.FloodParams(**BLOCKS), watching)
    assert len(watching.lowest) > 10
    assert set(watching.lowest) == {40}


@pytest.mark.parametrize("fill", ["none", "grow", "affinity", "mutex"])
def test_what_no_body_has_is_filled_by_the_rule_chosen(fill: str) -> None:
    """The network is blind for one colour: the neurite that has it gets no body."""
    truth = tubes((16, 64, 70))
    memory = flooded(truth, network=TruthWindow(blind=9), fill=fill, affinity=LONG)
    bodies, supervoxels = memory.volumes["flood.bodies"], memory.volumes["segment.supervoxels"]
    unseen = truth == BLIND_TUBE
    assert unseen.sum() > 2000
    assert not bodies[unseen].any()
    origins = set(memory.tables["segment.supervoxel"]["origin"].to_pylist())
    if fill == "none":
        assert (supervoxels == bodies).all()
        assert origins == {"ffn"}
    elif fill == "grow":
        assert supervoxels.all()
        ours = (supervoxels == bodies) | np.isin(supervoxels, np.unique(bodies))
        assert ours.mean() > 0.9  # the rest is where a neighbour's body grew into a block
    else:
        assert supervoxels.all()
        assert origins == ({"ffn", "fill"} if fill == "affinity" else {"mutex"})
        pieces = cc3d.connected_components(np.where(unseen, truth, 0), connectivity=6)
        found = adapted_rand(overlap(np.where(unseen, mapped(memory, "object"), 0), pieces))
        assert found.error < 0.01


LONG = TruthAffinity(channels=("aff_z1", "aff_y1", "aff_x1", "aff_z2", "aff_y6", "aff_x6"))
"""Affinities that see further than the nearest voxel."""


class Blurred(TruthWindow):
    """Takes the colours 1 and 2 for one: what touches and differs is one to it."""

    def predict(self, images: np.ndarray, masks: np.ndarray) -> np.ndarray:
        return super().predict(np.minimum(images, 1), masks)


def merged_tubes() -> np.ndarray:
    """Nothing is left between the neurites 51 and 52."""
    truth = tubes((16, 64, 70))
    truth[:, 22:40, 20:22] = 51
    return truth


def test_long_range_affinities_cut_a_body_that_merges_two_neurites() -> None:
    truth = merged_tubes()
    merged, cut = (flooded(truth, network=Blurred(), fill=f, affinity=LONG) for f in ("affinity", "mutex"))
    bodies = cut.volumes["flood.bodies"]
    pairs = set(zip(*(a[(bodies > 0) & np.isin(truth, [51, 52])].tolist() for a in (bodies, truth)), strict=True))
    both = {body for body, tube in pairs if tube == 51} & {body for body, tube in pairs if tube == 52}
    assert both, "the network was to merge them"
    inside = np.isin(bodies, list(both))
    wrong = adapted_rand(overlap(np.where(inside, merged.volumes["segment.supervoxels"], 0), truth, ignore_seg=0))
    right = adapted_rand(overlap(np.where(inside, cut.volumes["segment.supervoxels"], 0), truth, ignore_seg=0))
    assert wrong.precision < 0.7
    assert right.precision > 0.99
    assert set(cut.tables["segment.supervoxel"]["origin"].to_pylist()) == {"mutex"}
    objects = mapped(cut, "object")
    pieces = cc3d.connected_components(truth, connectivity=6)
    assert adapted_rand(overlap(np.where(truth > 0, objects, 0), pieces)).error < 0.02


@pytest.mark.parametrize("fill", ["affinity", "mutex"])
def test_rows_say_which_bodies_became_which_supervoxels(fill: str) -> None:
    memory = flooded(merged_tubes(), network=Blurred(), fill=fill, affinity=LONG)
    bodies, supervoxels = memory.volumes["flood.bodies"], memory.volumes["segment.supervoxels"]
    rows = memory.tables["segment.supervoxel_body"].to_pylist()
    both = (bodies > 0) & (supervoxels > 0)
    wanted = Counter(zip(supervoxels[both].tolist(), bodies[both].tolist(), strict=True))
    assert {(r["supervoxel"], r["body"]): r["voxels"] for r in rows} == wanted
    assert len(wanted) > 5
    if fill == "affinity":
        assert all(supervoxel == body for supervoxel, body in wanted)
    else:
        assert len(wanted) > len({body for _, body in wanted})  # a body was cut


class Vague(TruthAffinity):
    """Says nothing: neighbours may be one object or not, and nothing keeps them apart."""

    def predict(self, image: np.ndarray) -> np.ndarray:
        near = [0.5 if name.endswith("1") else 1.0 for name in self.channels]
        return np.ones((len(near), *image.shape), np.float32) * np.array(near, np.float32)[:, None, None, None]


def test_a_body_holds_together_beyond_its_block_too() -> None:
    """By affinities alone nothing would be joined across a face, where a neighbour has other bodies."""
    truth = tubes((16, 64, 142))
    memory = flooded(truth, fill="mutex", affinity=Vague(channels=LONG.channels))
    bodies = memory.volumes["flood.bodies"]
    joined = np.where(bodies > 0, mapped(memory, "fragment"), 0)
    pieces = cc3d.connected_components(truth, connectivity=6)
    assert adapted_rand(overlap(bodies, pieces, ignore_seg=0)).error > 0.02  # each block has its own
    assert adapted_rand(overlap(joined, pieces, ignore_seg=0)).error < 0.005


def test_contacts_of_a_mutex_filling_are_all_counted() -> None:
    """No body was grown there, whatever numbers supervoxels and bodies have."""
    memory = flooded(tubes((16, 64, 142)), fill="mutex", affinity=LONG)
    labels = memory.volumes["segment.supervoxels"]
    faces = 0
    for axis in range(3):
        a, b = np.moveaxis(labels, axis, 0)[1:], np.moveaxis(labels, axis, 0)[:-1]
        faces += int(((a != b) & (a > 0) & (b > 0)).sum())
    assert faces > 1000
    assert sum(memory.tables["score.contact"]["faces"].to_pylist()) == faces


def test_a_mutex_filling_needs_affinities_that_see_far() -> None:
    with pytest.raises(StageError, match="wants long-range affinities"):
        flooded(tubes((16, 64, 70)), fill="mutex")


def test_bodies_that_were_grown_together_have_no_contact() -> None:
    """Two neurites are 2 voxels apart, so their bodies touch only where they were grown over the boundary."""
    truth = tubes((16, 64, 142))
    memory = flooded(truth, fill="grow")
    bodies = memory.volumes["flood.bodies"]
    tube = {int(b): int(truth[bodies == b][0]) for b in np.unique(bodies[bodies > 0])}
    contacts = memory.tables["score.contact"].to_pylist()
    pairs = [(tube[c["a"]], tube[c["b"]]) for c in contacts if c["a"] in tube and c["b"] in tube]
    assert pairs  # the two halves of a neurite, across the face of two blocks
    assert all(a == b for a, b in pairs)


def test_consensus_splits_where_either_run_does() -> None:
    first = np.array([[[1, 1, 1, 2, 2, 0, 3]]], np.uint32)
    second = np.array([[[1, 1, 2, 2, 2, 2, 0]]], np.uint32)
    labels, pairs = split_consensus(first, second, 1)
    assert labels.tolist() == [[[1, 1, 2, 3, 3, 0, 0]]]
    assert pairs.tolist() == [[1, 1], [1, 2], [2, 2]]
    labels, pairs = split_consensus(first, second, 2)
    assert labels.tolist() == [[[1, 1, 0, 2, 2, 0, 0]]]
    assert pairs.tolist() == [[1, 1], [2, 2]]


def test_consensus_of_two_orders_names_both_seeds() -> None:
    truth = tubes((16, 64, 70))
    memory = flooded(truth, consensus=True)
    rows = memory.tables["flood.flood_body"].to_pylist()
    assert rows
    for row in rows:
        seeds = [tuple(row[f"{kind}{axis}_vx"] for axis in "zyx") for kind in ("seed_", "second_seed_")]
        assert truth[seeds[0]] == truth[seeds[1]] > 0
    directions = memory.tables["flood.flood_object"]["direction"].to_pylist()
    assert set(directions) == {"forward", "backward"}


def test_a_thin_end_of_the_stack_has_seeds_too() -> None:
    """Blocks of 16 sections, of 18: the last block has 2, and sees 6 with the least halo."""
    truth = tubes((18, 64, 70))
    memory = flooded(truth, halo_vx=(4, 16, 16), apron_vx=(2, 8, 8))
    bodies = memory.volumes["flood.bodies"]
    assert (bodies[16:][truth[16:] > 0] > 0).mean() > 0.2


@pytest.mark.parametrize("how", [{"network": TruthWindow(batch=4)}, {"reverse": True}], ids=["batch-4", "reverse"])
def test_neither_batch_nor_order_of_units_changes_anything(tubes_memory: Memory, how: dict[str, Any]) -> None:
    again = flooded(tubes(), **how)
    for name, volume in tubes_memory.volumes.items():
        assert (again.volumes[name] == volume).all(), name
    for name, table in tubes_memory.tables.items():
        assert again.tables[name].equals(table), name


def test_another_step_is_another_walk(tubes_memory: Memory) -> None:
    wide = flooded(tubes(), step_vx=(3, 10, 10))
    moves = [sum(m.tables["flood.flood_object"]["moves"].to_pylist()) for m in (wide, tubes_memory)]
    assert moves[0] < 0.7 * moves[1]


def test_an_origin_off_every_lattice() -> None:
    truth = tubes((20, 70, 90))
    memory = flooded(truth, origin=(5, -13, 40))
    found = adapted_rand(overlap(mapped(memory, "object"), cc3d.connected_components(truth, connectivity=6)))
    assert found.error < 0.005
    seed = memory.tables["flood.flood_body"].to_pylist()[0]
    place = [seed[f"seed_{axis}_vx"] - o for axis, o in zip("zyx", (5, -13, 40), strict=True)]
    assert truth[tuple(place)] > 0


def test_no_tissue_gives_empty_tables() -> None:
    truth = tubes((16, 64, 64))
    memory = flooded(truth, mask=np.full(truth.shape, 2, np.uint8))
    assert not memory.volumes["segment.supervoxels"].any()
    assert memory.tables["flood.flood_body"].num_rows == 0
    assert memory.tables["flood.flood_object"].num_rows == 0


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"halo_vx": (2, 16, 16), "apron_vx": (2, 8, 8)}, r"flood.halo_vx .*wanted at least half the window"),
        ({"apron_vx": (9, 8, 8)}, "flood.apron_vx .*wanted at most halo_vx"),
        ({"step_vx": (2, 4, 13)}, "flood.step_vx .*wanted at most half the window"),
        ({"move_threshold": 0.99}, "init_activation 0.95: wanted at least move_threshold"),
    ],
    ids=["halo", "apron", "step", "thresholds"],
)
def test_parameters_that_cannot_be(params: dict[str, Any], words: str) -> None:
    image = np.zeros((16, 64, 64), np.uint8)
    memory = Memory(VOXEL_NM, {"render.image": image, "mask.mask": image}, Box((0, 0, 0), image.shape))
    with pytest.raises(StageError, match=words):
        memory.run(flood_stage.STAGE, flood_stage.FloodParams(**(BLOCKS | params)), TruthWindow())


def test_segment_wants_bodies_and_their_blocks(tubes_memory: Memory) -> None:
    found = Found(VOXEL_NM, tubes_memory.extents)
    other = segment_stage.SegmentParams(method="ffn", **(BLOCKS | {"block_vx": (16, 32, 64)}))
    with pytest.raises(StageError, match=r"segment.block_vx .*wanted the blocks of flood.block_vx"):
        segment_stage.plan_flooded(found, other)
    alone = Found(VOXEL_NM, {n: e for n, e in tubes_memory.extents.items() if not n.startswith("flood")})
    with pytest.raises(StageError, match=r"segment\.method 'ffn': wanted bodies of the stage `flood`"):
        segment_stage.plan(alone, segment_stage.SegmentParams(method="ffn"))


def test_a_region_can_go_without_bodies(tubes_memory: Memory) -> None:
    """An override of `segment.method` in a pipeline with `flood`."""
    memory = Memory(VOXEL_NM, dict(list(tubes_memory.volumes.items())[:2]), tubes_memory.bounds)
    memory.run(segment_stage.STAGE, segment_stage.SegmentParams(**BLOCKS), TruthAffinity())
    usual = memory.volumes["segment.supervoxels"]
    memory.volumes["flood.bodies"] = tubes_memory.volumes["flood.bodies"]
    memory.tables["flood.flood_apron"] = tubes_memory.tables["flood.flood_apron"]
    memory.extents |= {n: tubes_memory.extents[n] for n in ("flood.bodies", "flood.flood_apron")}
    memory.run(segment_stage.FLOODED, segment_stage.SegmentParams(**BLOCKS), TruthAffinity())
    assert (memory.volumes["segment.supervoxels"] == usual).all()

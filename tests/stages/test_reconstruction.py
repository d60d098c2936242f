"""segment -> overlap -> reconcile -> score -> agglomerate over several blocks, against truth."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cc3d
import h5py
import numpy as np
import pyarrow as pa
import pytest

from connectome_db import ids
from connectome_db.errors import StageError
from connectome_db.geometry import Box
from connectome_db.kernels.metrics import adapted_rand, overlap
from connectome_db.spec import Extent, Found
from connectome_db.stages import agglomerate as agglomerate_stage
from connectome_db.stages import overlap as overlap_stage
from connectome_db.stages import reconcile as reconcile_stage
from connectome_db.stages import score as score_stage
from connectome_db.stages import segment as segment_stage
from tests.stages.memory import Memory
from tests.stages.truth_network import TruthAffinity, colour

BLOCK = (16, 64, 64)


def tubes(shape: tuple[int, int, int] = (24, 120, 130)) -> np.ndarray:
    """Slanted square neurites, 20 voxels apart with boundaries of 2, running through all sections."""
    z, y, x = np.indices(shape)
    row, col = (y + z) // 20, (x + 2 * (z // 2)) // 20
    inside = ((y + z) % 20 > 1) & ((x + 2 * (z // 2)) % 20 > 1)
    return np.where(inside, 1 + row * 50 + col, 0)


def reconstruct(
    labels: np.ndarray,
    voxel_nm: tuple[float, float, float],
    *,
    block_vx: tuple[int, int, int] = BLOCK,
    origin: tuple[int, int, int] = (0, 0, 0),
    noise: float = 0.0,
    mask: np.ndarray | None = None,
    reverse: bool = False,
    network: TruthAffinity | None = None,
    **more: Any,
) -> Memory:
    image = colour(labels)
    bounds = Box(origin, (origin[0] + image.shape[0], origin[1] + image.shape[1], origin[2] + image.shape[2]))
    tissue = np.zeros(image.shape, np.uint8) if mask is None else mask
    memory = Memory(voxel_nm, {"render.image": image, "mask.mask": tissue}, bounds)
    halo, apron = (8, 16, 16), (4, 8, 8)
    params = segment_stage.SegmentParams(block_vx=block_vx, halo_vx=halo, apron_vx=apron, **more)
    count = len(segment_stage.plan(Found(voxel_nm, memory.extents), params))
    order = list(reversed(range(count))) if reverse else []
    memory.run(segment_stage.STAGE, params, network or TruthAffinity(noise), order)
    memory.run(overlap_stage.STAGE, overlap_stage.OverlapParams(block_vx=block_vx, depth_vx=apron))
    memory.run(reconcile_stage.STAGE, reconcile_stage.ReconcileParams())
    memory.run(score_stage.STAGE, score_stage.ScoreParams(block_vx=block_vx), order=order)
    memory.run(agglomerate_stage.STAGE, agglomerate_stage.AgglomerateParams(dust_vx=100))
    return memory


def mapped(memory: Memory, column: str) -> np.ndarray:
    """The volume of supervoxels with each replaced by its fragment or object."""
    return memory.owners("agglomerate.member", column)


@pytest.fixture(scope="module")
def tubes_memory() -> Memory:
    return reconstruct(tubes(), (30.0, 8.0, 8.0))


def test_blocks_reproduce_the_whole_volume(tubes_memory: Memory) -> None:
    truth = cc3d.connected_components(tubes(), connectivity=6)
    assert tubes_memory.units["segment"] == 2 * 2 * 3
    assert adapted_rand(overlap(mapped(tubes_memory, "object"), truth)).error <= 0.002
    pieces = adapted_rand(overlap(mapped(tubes_memory, "fragment"), truth))
    alone = adapted_rand(overlap(tubes_memory.volumes["segment.supervoxels"], truth))
    assert pieces.error < alone.error  # faces joined something, and nothing wrongly
    assert pieces.precision > 0.998


def test_noisy_affinities_are_agglomerated_without_false_merges() -> None:
    truth = cc3d.connected_components(tubes(), connectivity=6)
    memory = reconstruct(tubes(), (30.0, 8.0, 8.0), noise=0.2)
    found = adapted_rand(overlap(mapped(memory, "object"), truth))
    assert found.error <= 0.02


LONG = ("aff_y6", "aff_x1", "aff_z1", "aff_z2", "aff_y1", "aff_x6")


def test_the_mutex_watershed_reproduces_the_whole_volume_from_blocks() -> None:
    truth = cc3d.connected_components(tubes(), connectivity=6)
    network = TruthAffinity(0.2, channels=LONG)
    memory = reconstruct(tubes(), (30.0, 8.0, 8.0), network=network, method="mutex")
    assert adapted_rand(overlap(mapped(memory, "object"), truth)).error <= 0.002
    assert set(memory.tables["segment.supervoxel"]["origin"].to_pylist()) == {"mutex"}
    again = reconstruct(tubes(), (30.0, 8.0, 8.0), network=network, method="mutex", reverse=True)
    for name, volume in memory.volumes.items():
        assert np.array_equal(volume, again.volumes[name]), name
    for name, table in memory.tables.items():
        assert table.equals(again.tables[name]), name
    plain = reconstruct(tubes(), (30.0, 8.0, 8.0), network=network)
    for axis in "zyx":
        name = f"segment.affinity_{axis}"
        assert np.array_equal(memory.volumes[name], plain.volumes[name])


def test_the_mutex_watershed_wants_long_range_affinities() -> None:
    with pytest.raises(StageError, match="wants long-range affinities such as aff_y9"):
        reconstruct(tubes((16, 64, 64)), (30.0, 8.0, 8.0), method="mutex")


def test_supervoxel_rows_describe_the_voxels(tubes_memory: Memory) -> None:
    rows = tubes_memory.tables["segment.supervoxel"]
    volume = tubes_memory.volumes["segment.supervoxels"]
    found, size = np.unique(volume[volume > 0], return_counts=True)
    names = rows["supervoxel"].to_numpy()
    assert (np.sort(names) == found).all()
    assert (ids.unit_of(names) == rows["unit"].to_numpy()).all()
    assert (rows.sort_by("supervoxel")["size_vx"].to_numpy() == size).all()
    for row in rows.to_pylist()[:: max(1, len(rows) // 7)]:
        where = np.argwhere(volume == row["supervoxel"])
        for k, axis in enumerate("zyx"):
            assert (row[f"{axis}0_vx"], row[f"{axis}1_vx"]) == (where[:, k].min(), where[:, k].max() + 1)
            assert row[f"{axis}_vx"] == pytest.approx(where[:, k].mean())
        inside = tuple(where.T)
        aff = [tubes_memory.volumes[f"segment.affinity_{axis}"][inside].mean() / 255 for axis in "zyx"]
        assert row["boundary"] == pytest.approx(1 - np.mean(aff))


def test_aprons_say_what_the_lower_block_sees(tubes_memory: Memory) -> None:
    pairs = tubes_memory.tables["overlap.overlap"]
    assert len(pairs) > 0
    assert (ids.unit_of(pairs["a"].to_numpy()) != ids.unit_of(pairs["b"].to_numpy())).all()
    accepted = pairs.filter(pairs["accepted"])
    assert len(accepted) > 0
    # Majority on both sides: nothing has two partners on one face.
    for side in ("a", "b"):
        keys = np.stack([accepted["unit"].to_numpy(), accepted[side].to_numpy()])
        assert len(np.unique(keys, axis=1).T) == len(accepted)
    assert set(pairs.filter(pa.compute.invert(pairs["accepted"]))["reason"].to_pylist()) <= {
        r for r in pairs["reason"].to_pylist() if "wanted" in r or "fewer" in r
    }


def test_merges_members_and_objects_agree(tubes_memory: Memory) -> None:
    member = tubes_memory.tables["agglomerate.member"]
    objects = tubes_memory.tables["agglomerate.object"]
    merges = tubes_memory.tables["agglomerate.merge"].sort_by("rank")
    # Replaying the merges over fragments gives the objects.
    group = {int(f): int(f) for f in np.unique(member["fragment"].to_numpy())}
    for a, b in zip(merges["a"].to_pylist(), merges["b"].to_pylist(), strict=True):
        assert a < b
        group = {f: a if g == b else g for f, g in group.items()}
    assert [group[f] for f in member["fragment"].to_pylist()] == member["object"].to_pylist()
    lowest: dict[int, int] = {}
    for s, o in zip(member["supervoxel"].to_pylist(), member["object"].to_pylist(), strict=True):
        lowest[o] = min(s, lowest.get(o, s))
    assert all(o == s for o, s in lowest.items())
    assert sum(objects["size_vx"].to_pylist()) == int((tubes_memory.volumes["segment.supervoxels"] > 0).sum())
    assert sum(objects["fragments"].to_pylist()) == len(group)
    weakest = dict(zip(objects["object"].to_pylist(), objects["weakest_merge"].to_pylist(), strict=True))
    scores: dict[int, float] = {}
    for a, score in zip(merges["a"].to_pylist(), merges["score"].to_pylist(), strict=True):
        scores[group[a]] = min(score, scores.get(group[a], 1.0))
    assert weakest == {o: pytest.approx(scores.get(o, 1.0)) for o in weakest}


def test_the_order_of_units_changes_nothing(tubes_memory: Memory) -> None:
    other = reconstruct(tubes(), (30.0, 8.0, 8.0), reverse=True)
    for name, table in tubes_memory.tables.items():
        assert table.equals(other.tables[name]), name
    assert (tubes_memory.volumes["segment.supervoxels"] == other.volumes["segment.supervoxels"]).all()


def test_an_origin_off_every_lattice(tubes_memory: Memory) -> None:
    memory = reconstruct(tubes(), (30.0, 8.0, 8.0), origin=(-5, 13, -7))
    truth = cc3d.connected_components(tubes(), connectivity=6)
    assert adapted_rand(overlap(mapped(memory, "object"), truth)).error <= 0.002


def test_no_tissue_gives_empty_tables() -> None:
    memory = reconstruct(tubes((8, 70, 70)), (30.0, 8.0, 8.0), mask=np.full((8, 70, 70), 2, np.uint8))
    assert not memory.volumes["segment.supervoxels"].any()
    for name in ("segment.supervoxel", "overlap.overlap", "score.contact", "agglomerate.object"):
        assert len(memory.tables[name]) == 0


def test_folds_are_segmented_and_resin_is_not() -> None:
    mask = np.zeros((16, 64, 64), np.uint8)
    mask[:, :20], mask[:, 40:] = 2, 3
    memory = reconstruct(tubes((16, 64, 64)), (30.0, 8.0, 8.0), mask=mask)
    assert not memory.volumes["segment.supervoxels"][:, :20].any()
    assert memory.volumes["segment.supervoxels"][:, 40:].all()


def test_neurites_go_on_across_a_missing_section() -> None:
    labels = tubes((24, 64, 64))
    truth = cc3d.connected_components(labels, connectivity=6)
    mask = np.zeros(labels.shape, np.uint8)
    mask[15], mask[20, :30] = 5, 1  # at a block's face, and a missing tile
    lost = np.where(mask > 0, 0, labels)
    memory = reconstruct(lost, (30.0, 8.0, 8.0), mask=mask)
    kept = mask == 0
    assert memory.volumes["segment.supervoxels"][~kept].any()
    assert adapted_rand(overlap(mapped(memory, "object")[kept], truth[kept])).error <= 0.01


def test_an_apron_beyond_the_halo_is_refused() -> None:
    extent = Extent(np.zeros(1, np.uint64), np.asarray([[0, 0, 0, 16, 64, 64]]))
    params = segment_stage.SegmentParams(halo_vx=(2, 8, 8), apron_vx=(4, 8, 8))
    with pytest.raises(StageError, match="apron_vx"):
        segment_stage.plan(Found((30.0, 8.0, 8.0), {"render.image": extent}), params)


def test_a_model_for_another_task_is_refused() -> None:
    with pytest.raises(StageError, match="aff_z1"):
        segment_stage.affinities(
            TruthAffinity(channels=("cleft",)), np.zeros((2, 8, 8), np.uint8), Box((0, 0, 0), (2, 8, 8))
        )


def test_faces_that_do_not_match_the_aprons_are_refused() -> None:
    memory = reconstruct(tubes((16, 64, 96)), (30.0, 8.0, 8.0))
    with pytest.raises(StageError, match="depth_vx must be at most"):
        memory.run(overlap_stage.STAGE, overlap_stage.OverlapParams(block_vx=BLOCK, depth_vx=(4, 8, 20)))


def test_a_thinner_face_is_fine(tubes_memory: Memory) -> None:
    memory = reconstruct(tubes(), (30.0, 8.0, 8.0))
    memory.run(overlap_stage.STAGE, overlap_stage.OverlapParams(block_vx=BLOCK, depth_vx=(1, 3, 3)))
    assert memory.tables["overlap.overlap"]["accepted"].to_numpy().any()


@pytest.fixture(scope="module")
def fib25() -> Iterator[np.ndarray]:
    path = Path(__file__).parents[3] / "shared/data/fib25/ts2_z000-139.h5"
    if not path.is_file():
        pytest.skip("the shared data package is not beside the checkout")
    with h5py.File(path) as file:
        yield file["gt"][:64, :128, :192]


@pytest.mark.shared
def test_real_bodies_from_perfect_affinities(fib25: np.ndarray) -> None:
    truth = cc3d.connected_components(fib25, connectivity=6)
    memory = reconstruct(fib25, (10.0, 10.0, 10.0), block_vx=(32, 64, 64))
    assert memory.units["segment"] == 12
    assert adapted_rand(overlap(mapped(memory, "object"), truth)).error <= 0.02

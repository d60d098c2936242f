"""What a segmentation costs and how good it is: methods side by side on held-out parts of real volumes.

    python -m benchmarks.segmentation --data SHARED_DATA --out segmentation.png [--only fib25|ac3]
        [--model fib25=FOLDER ...] [--flood fib25=FOLDER[:STEP] ...] [--labels fib25=FILE.npz ...]
        [--crop 512] [--default]

Held-out parts: `fib25` z 100-139 and `ac3` z 28-39, of both the middle `--crop` voxels of y and x; what comes before is
what the networks learnt from. `--model` adds a network (its folder), such as one that learnt shape descriptors.
`--flood` adds a flood-filling network, with another step from window to window if STEP (voxels in y and x, less in z as
the network's own step is) is given: its bodies alone, joined across blocks; and agglomerated with the last affinity
network, without and with `resegment`, as bodies and by `segment.fill` "mutex". All with default parameters.
`--labels` adds labels made elsewhere for exactly the held-out part: an .npz of `labels` (z, y, x; 0 = nothing),
`flops` (of the whole part), `seconds` (CPU seconds; 0 = not measured) and `name`.

Affinities go through the stages `segment`, `overlap`, `reconcile`, `score` and `agglomerate`, in blocks with halos.
Every network is tried with both methods of `segment`, each with the stages' default parameters, and with those that
scored best on as many sections of the training part, right before the held-out ones. Truth is scored by connected
pieces, without voxels of label 0. "all": voxels without a segment count as one more object; "covered": not at all.

Operations are those of the network, with its halo. Seconds are CPU seconds, of all threads, which other work on the
machine disturbs less than wall time: of the network alone and with all stages. A network answers once, and both methods
are charged for it. `--default` leaves out what is chosen on the training part, which takes most of the time.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from benchmarks.segmentation_rows import Row, draw, scored, tell
from connectome_db.geometry import Box, Vec3
from connectome_db.networks.architecture import flops_per_voxel
from connectome_db.networks.datasets import TrainingVolume, load_split
from connectome_db.networks.evaluate import connected_pieces
from connectome_db.networks.ffn import FloodNetwork, flops_per_move, load_ffn
from connectome_db.networks.inference import Network, load_network
from connectome_db.networks.registry import find_model
from connectome_db.spec import NM3
from connectome_db.stages import agglomerate, flood, reconcile, resegment, score, segment
from connectome_db.stages import overlap as faces
from tests.stages.memory import Memory

BLOCKS: dict[str, tuple[Vec3, Vec3, Vec3]] = {
    "fib25": ((40, 128, 128), (16, 32, 32), (8, 8, 8)),
    "ac3": ((16, 128, 128), (4, 32, 32), (2, 8, 8)),
}
"""Core, halo and apron (z, y, x) in voxels: AC3's are the stages' defaults, FIB-25's suit cubic voxels."""
FLOOD_BLOCK = 256
"""Core (y, x) of a block where a flood-filling network fills, whose halo costs more."""
THRESHOLDS = tuple(round(0.05 * i, 2) for i in range(6, 21))
REPULSIONS = (1.0, 1.2, 1.5, 3.0)
FFN_FLOPS = 45.8e9 / 550
"""Per voxel, of the published network: operations of one move over the voxels that a move advances (500-600)."""


@dataclass(frozen=True)
class Part:
    """A box of image with truth by connected pieces."""

    image: np.ndarray
    truth: np.ndarray
    voxel_nm: NM3


@dataclass
class Charged:
    """A network that answers every image once, and keeps what that cost."""

    network: Network
    answers: dict[str, tuple[np.ndarray, float]] = field(default_factory=dict)
    seconds: float = 0.0
    voxels: int = 0

    def __post_init__(self) -> None:
        self.model_id, self.channels = self.network.model_id, self.network.channels
        self.alignment_vx, self.margin_vx = self.network.alignment_vx, self.network.margin_vx

    def predict(self, image: np.ndarray) -> np.ndarray:
        key = hashlib.sha256(image.tobytes()).hexdigest()
        if key not in self.answers:
            start = time.process_time()
            self.answers[key] = self.network.predict(image), time.process_time() - start
        answer, seconds = self.answers[key]
        self.seconds += seconds
        self.voxels += image.size
        return answer

    def paid(self) -> tuple[float, int]:
        """Seconds and voxels since the last call."""
        found = self.seconds, self.voxels
        self.seconds, self.voxels = 0.0, 0
        return found


def part_of(volume: TrainingVolume, crop: int, sections: slice) -> Part:
    low = [max(0, (n - crop) // 2) for n in volume.image.shape[1:]]
    cut = (sections, slice(low[0], low[0] + crop), slice(low[1], low[1] + crop))
    return Part(np.ascontiguousarray(volume.image[cut]), connected_pieces(volume.labels[cut]), volume.voxel_nm)


@dataclass(frozen=True)
class Pieces:
    """Supervoxels of one part up to their scored contacts, and what they cost in CPU seconds."""

    memory: Memory
    network_s: float
    other_s: float
    read_vx: int


def pieces_of(part: Part, blocks: tuple[Vec3, Vec3, Vec3], network: Charged, params: dict[str, object]) -> Pieces:
    block, halo, apron = blocks
    bounds = Box((0, 0, 0), part.image.shape)
    memory = Memory(
        part.voxel_nm, {"render.image": part.image, "mask.mask": np.zeros(part.image.shape, np.uint8)}, bounds
    )
    network.paid()
    answered = sum(seconds for _, seconds in network.answers.values())
    start = time.process_time()
    memory.run(
        segment.STAGE,
        segment.SegmentParams(block_vx=block, halo_vx=halo, apron_vx=apron, **params),
        network,
    )
    memory.run(faces.STAGE, faces.OverlapParams(block_vx=block, depth_vx=apron))
    memory.run(reconcile.STAGE, reconcile.ReconcileParams())
    memory.run(score.STAGE, score.ScoreParams(block_vx=block))
    whole = time.process_time() - start
    spent = sum(seconds for _, seconds in network.answers.values()) - answered
    seconds, voxels = network.paid()
    return Pieces(memory, seconds, whole - spent, voxels)


def objects_of(pieces: Pieces, **params: float) -> tuple[np.ndarray, float]:
    """Labels of the objects, and the CPU seconds that merging took."""
    start = time.process_time()
    pieces.memory.run(agglomerate.STAGE, agglomerate.AgglomerateParams(**params))
    seconds = time.process_time() - start
    return pieces.memory.owners("agglomerate.member", "object"), seconds


def rows_of(dataset: str, name: str, folder: Path, train: Part | None, test: Part) -> Iterable[Row]:
    """Both methods of `segment` with one network, by default and as chosen on the training part."""
    network = Charged(load_network(folder))
    corner = (slice(0, 12), slice(0, 64), slice(0, 64))
    warm = Part(test.image[corner], test.truth[corner], test.voxel_nm)
    flops = flops_per_voxel(network.network.config)
    blocks = BLOCKS[dataset]
    for method, tries in (
        ("watershed", [{"method": "affinity"}]),
        ("mutex", [{"method": "mutex"}, *({"method": "mutex", "mutex_repulsion": factor} for factor in REPULSIONS)]),
    ):
        objects_of(pieces_of(warm, blocks, network, tries[0]))  # the first call builds and compiles
        best: tuple[float, dict[str, object], float] | None = None
        for params in tries if train is not None else ():
            pieces = pieces_of(train, blocks, network, params)
            for threshold in THRESHOLDS:
                error = scored(objects_of(pieces, threshold=threshold)[0], train.truth).rand_all
                if best is None or error < best[0]:
                    best = error, params, threshold
        settings: list[tuple[str, dict[str, object], dict[str, float]]] = [("default", tries[0], {})]
        if best is not None:
            chosen = {k: v for k, v in best[1].items() if k != "method"} | {"threshold": best[2]}
            told = f"{', '.join(f'{k} {v:g}' for k, v in chosen.items())} (chosen on training part)"
            settings.append((told, best[1], {"threshold": best[2]}))
        for setting, params, merging in settings:
            pieces = pieces_of(test, blocks, network, params)
            labels, seconds = objects_of(pieces, **merging)
            total = pieces.network_s + pieces.other_s + seconds
            yield Row(
                dataset,
                f"{name} + {method}",
                setting,
                flops * pieces.read_vx / test.image.size / 1e6,
                test.image.size / pieces.network_s,
                test.image.size / total,
                scored(labels, test.truth),
            )


@dataclass
class Asked:
    """A flood-filling network that counts its windows and CPU seconds."""

    network: FloodNetwork
    moves: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.model_id, self.batch = self.network.model_id, self.network.batch
        self.fov_vx, self.deltas_vx = self.network.fov_vx, self.network.deltas_vx

    def predict(self, images: np.ndarray, masks: np.ndarray) -> np.ndarray:
        start = time.process_time()
        answer = self.network.predict(images, masks)
        self.seconds += time.process_time() - start
        self.moves += len(images)
        return answer


def flooded_rows(dataset: str, given: str, affinity: Path, test: Part) -> Iterable[Row]:
    """Bodies of a flood-filling network alone, agglomerated by an affinity network, and with `resegment` between."""
    folder, _, step = given.partition(":")
    network, own = Asked(load_ffn(Path(folder))), Charged(load_network(affinity))
    wide = network.deltas_vx
    if step:
        wide = tuple(max(1, round(n * int(step) / wide[2])) if n else 0 for n in wide)
    (depth, _, _), halo, apron = BLOCKS[dataset]
    block = (depth, FLOOD_BLOCK, FLOOD_BLOCK)
    memory = Memory(
        test.voxel_nm,
        {"render.image": test.image, "mask.mask": np.zeros(test.image.shape, np.uint8)},
        Box((0, 0, 0), test.image.shape),
    )
    blocks = {"block_vx": block, "halo_vx": halo, "apron_vx": apron}
    start = time.process_time()
    memory.run(flood.STAGE, flood.FloodParams(step_vx=wide, **blocks), network)
    flooding, filled_s = time.process_time() - start, network.seconds
    flops = network.moves * flops_per_move(network.network.config) / test.image.size
    setting = f"step {', '.join(map(str, wide))}"
    print(f"  {network.moves} windows, {flooding:.0f} CPU s", flush=True)
    size, name = test.image.size, Path(folder).name
    for fill in ("none", "mutex"):
        began, asked = time.process_time(), network.moves
        memory.run(segment.FLOODED, segment.SegmentParams(method="ffn", fill=fill, **blocks), own)
        memory.run(faces.STAGE, faces.OverlapParams(block_vx=block, depth_vx=apron))
        memory.run(reconcile.STAGE, reconcile.ReconcileParams())
        spent = time.process_time() - began
        seconds, voxels = own.paid()
        if fill == "none":  # bodies alone need no affinities
            rates = (size / network.seconds, size / flooding)
            labels = memory.owners("reconcile.fragment", "fragment")
            yield Row(dataset, f"{name}, bodies", setting, flops / 1e6, *rates, scored(labels, test.truth))
        began = time.process_time()
        memory.run(score.FLOODED, score.ScoreParams(block_vx=block))
        spent += time.process_time() - began
        cost = flops + flops_per_voxel(own.network.config) * voxels / size
        told = f"{name} + {affinity.name}" + (" + mutex" if fill == "mutex" else "")
        for weight in (0.0, agglomerate.AgglomerateParams().resegmented):
            began, before = time.process_time(), network.seconds
            if weight:
                judge = resegment.ResegmentParams(step_vx=wide, block_vx=block, radius_vx=radius_of(network))
                memory.run(resegment.STAGE, judge, network)
                seconds += network.seconds - before
                cost += (network.moves - asked) * flops_per_move(network.network.config) / size
                told += ", resegmented"
            stage = agglomerate.FLOODED if weight else agglomerate.STAGE
            memory.run(stage, agglomerate.AgglomerateParams(resegmented=weight))
            labels, spent = memory.owners("agglomerate.member", "object"), spent + time.process_time() - began
            rates = (size / (filled_s + seconds), size / (flooding + spent))
            yield Row(dataset, told, setting, cost / 1e6, *rates, scored(labels, test.truth))


def radius_of(network: Asked) -> tuple[int, int, int]:
    """What is filled around a contact: one window on each side, less a voxel."""
    z, y, x = network.fov_vx
    return z - 1, y - 1, x - 1


def made_elsewhere(dataset: str, path: Path, test: Part) -> Row:
    with np.load(path, allow_pickle=False) as stored:
        labels, flops, seconds = stored["labels"], float(stored["flops"]), float(stored["seconds"])
        name = str(stored["name"])
    if labels.shape != test.image.shape:
        raise SystemExit(f"{path}: wanted labels of {test.image.shape} (z, y, x), got {labels.shape}")
    speed = labels.size / seconds if seconds > 0 else float("nan")
    return Row(dataset, name, "", flops / labels.size / 1e6, speed, speed, scored(labels, test.truth))


def compare(dataset: str, options: argparse.Namespace) -> list[Row]:
    folder = options.data / dataset
    split = load_split(dataset, folder)
    sections = split.test[0].image.shape[0]
    train = None if options.default else part_of(split.train[0], options.crop, slice(-sections, None))
    test = part_of(split.test[0], options.crop, slice(None))
    models = [("affinity", find_model(f"{dataset}-affinity"))]
    models += [(Path(f).name, Path(f)) for given, _, f in (m.partition("=") for m in options.model) if given == dataset]
    rows = []
    for name, model in models:
        for row in rows_of(dataset, name, model, train, test):
            tell(row)
            rows.append(row)
    if dataset == "fib25" and options.crop >= test.image.shape[1]:
        with h5py.File(folder / "ts2_z000-139.h5") as file:
            labels = file["ffn_published"][-sections:]
        rows.append(Row(dataset, "FFN as published", "", FFN_FLOPS / 1e6, np.nan, np.nan, scored(labels, test.truth)))
        tell(rows[-1])
    for given, _, told in (text.partition("=") for text in options.flood):
        if given == dataset:
            for row in flooded_rows(dataset, told, models[-1][1], test):
                tell(row)
                rows.append(row)
    for given, _, path in (text.partition("=") for text in options.labels):
        if given == dataset:
            rows.append(made_elsewhere(dataset, Path(path), test))
            tell(rows[-1])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("segmentation.png"))
    parser.add_argument("--only", choices=tuple(BLOCKS))
    parser.add_argument("--model", action="append", default=[], metavar="DATASET=FOLDER")
    parser.add_argument("--flood", action="append", default=[], metavar="DATASET=FOLDER[:STEP]")
    parser.add_argument("--labels", action="append", default=[], metavar="DATASET=FILE.npz")
    parser.add_argument("--crop", type=int, default=512)
    parser.add_argument("--default", action="store_true")
    options = parser.parse_args()
    print(
        "| data | method | parameters | MFLOP/voxel | network 10³ voxels/CPU s | all 10³ voxels/CPU s | "
        f"Rand error, all | covered | VI split + merge, all | covered | coverage |\n|{' --- |' * 11}"
    )
    rows: list[Row] = []
    for dataset in (options.only,) if options.only else tuple(BLOCKS):
        rows += compare(dataset, options)
    draw(rows, options.out)
    print(f"\nwrote {options.out}; load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()

"""FIB-25 with a flood-filling network, in blocks: accuracy against Google's published result on the same voxels.

    connectome models import-ffn SHARED_DATA/ffn_fib25_checkpoint --name fib25-ffn --bfloat16
    python -m benchmarks.fib25_ffn --data SHARED_DATA/fib25 --model models/fib25-ffn --out FOLDER
        [--block 140,125,125] [--halo 16,16,16] [--step 0] [--disco 0] [--sections 140]
        [--affinity fib25-lsd]
        [--fills none,affinity,mutex,alone] [--repulsion 2] [--accept-share 0.7] [--resegmented 0,0.7]

The stages' own plan and compute, unit by unit; a unit of `flood` or `resegment` that was made is kept in FOLDER and not
made again, so the run can be stopped and go on. Two results are scored: the bodies, joined across blocks by `overlap`
and `reconcile` (voxels without a body are not counted: "covered"), and the objects after filling and `agglomerate` (all
voxels), with each weight of what `resegment` found. Truth is taken as it is, and by its connected pieces in the volume:
what the cut parts cannot be joined by anyone. Affinity networks learnt on z 0-99: the threshold that is best there is
also told for z 100-139 alone, by pieces.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet as pq

from connectome_db.geometry import Box
from connectome_db.kernels.metrics import adapted_rand, overlap, variation_of_information
from connectome_db.kernels.normalise import normalise_stack
from connectome_db.kernels.watershed import grow
from connectome_db.networks.evaluate import connected_pieces
from connectome_db.networks.ffn import load_ffn
from connectome_db.networks.inference import load_network
from connectome_db.networks.registry import BUNDLED, find_model
from connectome_db.spec import Rows, Stage
from connectome_db.stages import agglomerate, flood, reconcile, resegment, score, segment
from connectome_db.stages import overlap as faces
from tests.stages.memory import Memory

VOXEL_NM = (10.0, 10.0, 10.0)
LEARNT = 100
"""Sections that affinity networks have learnt from."""
ALONE = "alone"
"""Among the fills: no bodies at all, the mutex watershed of the affinity network."""
THRESHOLDS = (0.3, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)


@dataclass
class Kept:
    """A stage that asks the flood-filling network, whose units are kept in a folder."""

    stage: Stage[Any]
    folder: Path
    moves: tuple[str, ...]
    """Columns of its rows that count windows."""
    found: list[dict[str, Any]] = field(default_factory=list)

    def run(self, memory: Memory, params: Any, network: Any) -> None:
        """Run it, and say what it cost."""
        self.folder.mkdir(parents=True, exist_ok=True)
        memory.run(replace(self.stage, compute=self.compute), params, network)
        seconds, moves = sum(f["seconds"] for f in self.found), sum(f["moves"] for f in self.found)
        voxels = int(np.prod(memory.bounds.shape))
        print(f"{self.stage.name}: {moves} moves, {seconds:.0f} s, {voxels / seconds:.0f} voxels of box a second, "
              f"{voxels / max(moves, 1):.0f} a move", flush=True)  # fmt: skip

    def compute(self, block: Any) -> Any:
        path = self.folder / str(block.unit.code)
        volumes = [o.name for o in self.stage.outputs if not isinstance(o, Rows)]
        tables = {o.name: o.table.arrow() for o in self.stage.outputs if isinstance(o, Rows)}
        if not path.exists():
            start = time.perf_counter()
            result = self.stage.compute(block)
            seconds = time.perf_counter() - start
            counts = [
                t[c].to_numpy().sum() for t in (result[n] for n in tables) for c in self.moves if c in t.schema.names
            ]
            moves = int(sum(counts))
            partial = path.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            for name in volumes:
                np.save(partial / f"{name}.npy", result[name])
            for name in tables:
                pq.write_table(result[name], partial / f"{name}.parquet")
            (partial / "cost.json").write_text(json.dumps({"seconds": seconds, "moves": moves}))
            partial.replace(path)
            print(f"  {block.unit}: {moves} moves in {seconds:.0f} s, {moves / seconds:.2f} a second", flush=True)
        self.found.append(json.loads((path / "cost.json").read_text()))
        rows = {name: pq.read_table(path / f"{name}.parquet", schema=schema) for name, schema in tables.items()}
        return {**{name: np.load(path / f"{name}.npy") for name in volumes}, **rows}


def triple(text: str) -> tuple[int, int, int]:
    z, y, x = (int(part) for part in text.split(","))
    return z, y, x


def tell(name: str, labels: np.ndarray, truth: np.ndarray, pieces: np.ndarray) -> dict[str, float]:
    coverage = float((labels[truth != 0] != 0).mean())
    out = {"coverage": round(coverage, 4)}
    for called, t in (("truth", truth), ("pieces", pieces)):
        every, covered = overlap(labels, t), overlap(labels, t, ignore_seg=0)
        vi = variation_of_information(covered)
        out[f"{called}_covered"] = round(adapted_rand(covered).error, 4)
        out[f"{called}_all"] = round(adapted_rand(every).error, 4)
        out[f"{called}_split"], out[f"{called}_merge"] = round(vi.split, 3), round(vi.merge, 3)
    print(f"{name}: {json.dumps(out)}", flush=True)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--block", type=triple, default=(140, 125, 125))
    parser.add_argument("--halo", type=triple, default=(16, 16, 16))
    parser.add_argument("--apron", type=triple, default=(8, 8, 8))
    parser.add_argument("--step", type=int, default=0)
    parser.add_argument("--sections", type=int, default=140)
    parser.add_argument("--order", default="forward")
    parser.add_argument("--disco", type=float, default=flood.FloodParams().disco_seed_threshold)
    parser.add_argument("--raw", action="store_true", help="grey levels as they are, not those of `render`")
    parser.add_argument("--affinity", default="fib25-lsd")
    parser.add_argument("--fills", default="none,affinity,mutex,alone")
    parser.add_argument("--repulsion", type=float, default=segment.SegmentParams().mutex_repulsion)
    parser.add_argument("--accept-share", type=float, default=faces.OverlapParams().accept_share)
    parser.add_argument("--resegmented", default="0,0.7", help="weights of resegmentation; 0 alone: none is made")
    parser.add_argument("--from-affinity", type=float, default=resegment.ResegmentParams().from_affinity)
    parser.add_argument("--min-size", type=int, default=resegment.ResegmentParams().min_size_vx)
    parser.add_argument("--batch", type=int, default=1)
    a = parser.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    with h5py.File(a.data / "ts2_z000-139.h5") as file:
        raw, truth, published = (file[n][: a.sections] for n in ("raw", "gt", "ffn_published"))
    image = raw if a.raw else normalise_stack(raw)
    pieces = connected_pieces(truth)
    tell("published", published, truth, pieces)
    memory = Memory(
        VOXEL_NM,
        {"render.image": image, "mask.mask": np.zeros(image.shape, np.uint8)},
        Box((0, 0, 0), image.shape),
    )
    blocks = {"block_vx": a.block, "halo_vx": a.halo, "apron_vx": a.apron}
    network = load_ffn(a.model, batch=a.batch)
    step = (a.step,) * 3
    filled = flood.FloodParams(step_vx=step, order=a.order, disco_seed_threshold=a.disco, **blocks)
    Kept(flood.STAGE, a.out, ("moves",)).run(memory, filled, network)
    affinity = load_network(find_model(Path(a.affinity).name, [Path(a.affinity).parent, BUNDLED]))
    for fill in a.fills.split(","):
        own = {"method": "mutex"} if fill == ALONE else {"method": "ffn", "fill": fill}
        params = segment.SegmentParams(mutex_repulsion=a.repulsion, **own, **blocks)
        memory.run(segment.STAGE if fill == ALONE else segment.FLOODED, params, affinity)
        share = faces.OverlapParams(block_vx=a.block, depth_vx=a.apron, accept_share=a.accept_share)
        memory.run(faces.STAGE, share)
        memory.run(reconcile.STAGE, reconcile.ReconcileParams())
        tell(f"fill {fill}, reconciled", memory.owners("reconcile.fragment", "fragment"), truth, pieces)
        memory.run(score.STAGE if fill == ALONE else score.FLOODED, score.ScoreParams(block_vx=a.block))
        weights = [float(w) for w in a.resegmented.split(",")]
        if fill == ALONE or not any(weights):
            weights = [0.0]
        else:
            again = resegment.ResegmentParams(
                step_vx=step,
                disco_seed_threshold=a.disco,
                block_vx=a.block,
                from_affinity=a.from_affinity,
                min_size_vx=a.min_size,
            )
            kept = Kept(resegment.STAGE, a.out / f"resegment-{fill}", ("a_moves", "b_moves"))
            kept.run(memory, again, network)
        for weight in weights:
            objects_of(memory, fill, weight, truth, pieces)


def objects_of(memory: Memory, fill: str, weight: float, truth: np.ndarray, pieces: np.ndarray) -> None:
    """Objects at all thresholds, each told; `weight` is that of resegmentation."""
    split, last = min(LEARNT, len(truth)), len(truth) - 1
    later = connected_pieces(truth[split:]) if last >= split else None
    best: tuple[float, float, float] | None = None
    told = f"fill {fill}" + (f", resegmented {weight:g}" if weight else "")
    for threshold in THRESHOLDS:
        stage = agglomerate.FLOODED if weight else agglomerate.STAGE
        memory.run(stage, agglomerate.AgglomerateParams(threshold=threshold, resegmented=weight))
        objects = memory.owners("agglomerate.member", "object")
        tell(f"{told}, agglomerated at {threshold}", objects, truth, pieces)
        if later is not None:
            cut = ((objects[:split], truth[:split]), (objects[split:], later))
            errors = [adapted_rand(overlap(o, t)).error for o, t in cut]
            best = min(best or (1.0, 0.0, 0.0), (errors[0], threshold, errors[1]))
        if fill == "none":
            names, number = np.unique(objects, return_inverse=True)
            edges = np.stack([memory.volumes[f"segment.affinity_{axis}"] for axis in "zyx"])
            everywhere = np.ones(objects.shape, np.bool_)
            grown = grow(number.reshape(objects.shape).astype(np.int32), edges, everywhere)
            tell("    these, grown into the rest", names[grown], truth, pieces)
    if best is not None:
        print(
            f"{told}: best on z 0-{split - 1} at {best[1]} ({best[0]:.4f} of all voxels); there, "
            f"z {split}-{last} by pieces {best[2]:.4f}",
            flush=True,
        )


if __name__ == "__main__":
    main()

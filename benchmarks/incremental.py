"""One corner redone: what it costs against everything from scratch, and that no unit is computed without need.

    python -m benchmarks.incremental [--folder DIR] [--shape 20,768,768] [--ranks 2]

Makes a phantom project of more than 500 blocks, runs it under DVC, then edits it again and again. For each edit and
stage, three numbers that must agree or be ordered:

    closure    units that read, directly or not, any unit of the region: by brute force over the recorded read boxes
    needed     units whose own parameters, code or model changed, or that read a part whose content changed
    computed   what `dvc repro` computed

`computed` must equal `needed`; `needed` is below `closure` where an unchanged result stopped the wave early.
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from connectome_db.cli import settings
from connectome_db.config import load
from connectome_db.newproject import commit, create, model_changes, repro
from connectome_db.phantom.acquire import AcquireConfig
from connectome_db.phantom.simulate import SimulateConfig, simulate
from connectome_db.phantom.tissue import TissueConfig
from connectome_db.stages.pipeline import STAGES
from tests import edits
from tests.versioned import edit_params

BOX = ["z0", "y0", "x0", "z1", "y1", "x1"]
BLOCK = (8, 64, 64)


def make(root: Path, shape: tuple[int, int, int], ranks: int) -> None:
    simulate(SimulateConfig(tissue=TissueConfig(seed=11, shape_vx=shape), acquire=AcquireConfig()), root)
    changes = model_changes(STAGES, "phantom")
    for stage in STAGES:
        if "block_vx" in stage.params.model_fields:
            changes.setdefault(stage.name, {})["block_vx"] = BLOCK
    create(root, name="corner", manifest="raw/manifest.csv", voxel_nm=(30, 8, 8), stages=STAGES, changes=changes)
    launch = root / "launch.yaml"
    launch.write_text(launch.read_text().replace("ranks: 0 ", f"ranks: {ranks} "))
    commit(root, "Ranks")


def timed(root: Path, message: str) -> tuple[float, dict[str, int]]:
    """Seconds of `dvc repro`, and the units it computed by stage."""
    before = {s.name: stored(root, s.name) for s in STAGES}
    clock = time.perf_counter()
    repro(root)
    seconds = time.perf_counter() - clock
    commit(root, message)
    return seconds, {s.name: stored(root, s.name) - before[s.name] for s in STAGES}


def stored(root: Path, stage: str) -> int:
    """Units of a stage that the store holds: every computed unit adds one."""
    store = root / ".connectome" / "store"
    single = len(list((store / "keys" / stage).glob("*.json")))
    return single + sum(pq.ParquetFile(p).metadata.num_rows for p in (store / "shards" / stage).glob("*.parquet"))


def snapshot(root: Path) -> dict[str, dict[str, object]]:
    """Per stage: units with cores, reads, and the digest of every part."""
    found: dict[str, dict[str, object]] = {}
    for s in STAGES:
        folder = root / "data" / s.name
        units = pq.read_table(folder / "units.parquet").to_pydict()
        reads = pq.read_table(folder / "reads.parquet").to_pydict()
        parts = pq.read_table(folder / "parts.parquet").to_pydict()
        found[s.name] = {"units": units, "reads": reads, "parts": parts}
    return found


def _touch(a: list[int], b: np.ndarray) -> np.ndarray:
    lo, hi = np.asarray(a[:3]), np.asarray(a[3:])
    return ((b[:, :3] < hi) & (lo < b[:, 3:])).all(axis=1) & (lo < hi).all()


def _readers(now: dict, stage: str, woken: dict[str, np.ndarray]) -> set[int]:
    """Units of a stage that read one of the boxes in `woken` (by "stage.output"), one read box after the other."""
    reads, found = now[stage]["reads"], set()
    for k, name in enumerate(reads["input"]):
        boxes = woken.get(name)
        if boxes is not None and len(boxes) and _touch([reads[c][k] for c in BOX], boxes).any():
            found.add(reads["unit"][k])
    return found


def expected(before: dict, now: dict, own: dict[str, set[int]]) -> tuple[dict[str, int], dict[str, int]]:
    """(closure, needed) by stage; `own`: units whose parameters, code or model changed."""
    closure_boxes: dict[str, np.ndarray] = {}
    changed_boxes: dict[str, np.ndarray] = {}
    closure, needed = {}, {}
    for s in STAGES:
        parts = now[s.name]["parts"]
        once = len(now[s.name]["units"]["unit"]) == 1
        mine = own.get(s.name, set())
        reached = mine | _readers(now, s.name, closure_boxes)
        closure[s.name] = len(reached)
        needed[s.name] = len(mine | _readers(now, s.name, changed_boxes))
        old = dict(zip(zip(before[s.name]["parts"]["output"], before[s.name]["parts"]["unit"], strict=True),
                       before[s.name]["parts"]["digest"], strict=True))  # fmt: skip
        for output in set(parts["output"]):
            rows = [k for k, o in enumerate(parts["output"]) if o == output]
            boxes = {k: [parts[c][k] for c in BOX] for k in rows}
            woken = [boxes[k] for k in rows if (once and reached) or parts["unit"][k] in reached]
            changed = [boxes[k] for k in rows if old.get((output, parts["unit"][k])) != parts["digest"][k]]
            closure_boxes[f"{s.name}.{output}"] = np.asarray(woken, dtype=np.int64).reshape(-1, 6)
            changed_boxes[f"{s.name}.{output}"] = np.asarray(changed, dtype=np.int64).reshape(-1, 6)
    return closure, needed


def _in_box(now: dict, stage: str, box: tuple[int, ...]) -> set[int]:
    units = now[stage]["units"]
    cores = np.stack([units[f"core_{c}"] for c in BOX], axis=1)
    return {u for u, hit in zip(units["unit"], _touch(list(box), cores), strict=True) if hit}


def show(title: str, seconds: float, full: float, computed: dict[str, int], closure: dict, needed: dict) -> None:
    print(f"\n{title}: {seconds:.1f} s, {seconds / full:.3f} of from scratch ({full:.0f} s)")
    print(f"  {'stage':<12}{'closure':>9}{'needed':>9}{'computed':>10}")
    for s in STAGES:
        same = "" if computed[s.name] == needed[s.name] else "   <-- differ"
        print(f"  {s.name:<12}{closure[s.name]:>9}{needed[s.name]:>9}{computed[s.name]:>10}{same}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("bench-incremental"))
    parser.add_argument("--shape", default="20,768,768")
    parser.add_argument("--ranks", type=int, default=2)
    asked = parser.parse_args()
    root = asked.folder.resolve()
    assert settings.APPLIED
    if root.exists():
        shutil.rmtree(root)
    z, y, x = (int(v) for v in asked.shape.split(","))
    make(root, (z, y, x), asked.ranks)
    full, computed = timed(root, "First")
    print(f"from scratch: {full:.0f} s, {sum(computed.values())} units, of them segment {computed['segment']}")
    first = snapshot(root)

    corner = (0, 100, 100, 12, 300, 300)
    edits.set_in_region(root, "corner", corner, "segment", "seed_window_nm", 60.0)
    seconds, computed = timed(root, "Corner")
    second = snapshot(root)
    show(f"override of segment in {corner} vx", seconds, full, computed,
         *expected(first, second, {"segment": _in_box(second, "segment", corner)}))  # fmt: skip

    edit_params(root, lambda d: (d["regions"].pop("corner"), d["overrides"].pop("segment")))
    seconds, computed = timed(root, "Back")
    print(f"\nA -> B -> A: {seconds:.1f} s, units computed {sum(computed.values())}")
    assert snapshot(root) == first

    edits.set_in_region(root, "corner", corner, "synapses", "high", 0.95)
    seconds, computed = timed(root, "Synapses in the corner")
    third = snapshot(root)
    show(f"override of synapses in {corner} vx", seconds, full, computed,
         *expected(first, third, {"synapses": _in_box(third, "synapses", corner)}))  # fmt: skip

    edits.change_tile(root, z // 2, 1, (40, 40))
    changed = load(root, STAGES)
    seconds, computed = timed(root, "Tile")
    fourth = snapshot(root)
    woken = {"ingest": {u for u, zz in zip(fourth["ingest"]["units"]["unit"], fourth["ingest"]["units"]["z"],
                                           strict=True) if zz == z // 2}}  # fmt: skip
    print(f"\none tile of section {z // 2} of {changed.dataset.name}: {seconds:.1f} s, {seconds / full:.3f}; computed "
          f"{ {k: v for k, v in computed.items() if v} }; ingest expected {len(woken['ingest'])}")  # fmt: skip


if __name__ == "__main__":
    main()

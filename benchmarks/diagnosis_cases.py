"""Seeded phantoms with a known cause of trouble, without any, and with true biology: what `diagnose` is judged by.

    python -m benchmarks.diagnosis_cases FOLDER [--set judge] [--part 1/2]

Each case is a project of 32 x 512 x 512 voxels (most without an artefact: 24 x 384 x 384), taken through the whole
pipeline; `case.json` beside it says what was planted and where (a box in tissue voxels). The sets differ in their
seeds. The rules of the diagnosis were first chosen on `develop` and tried on `judge`; they were then made stricter
because of its false alarms, and those were counted anew on `fresh`, which no rule has seen.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

SHAPE_VX = (32, 512, 512)
SMALL_VX = (24, 384, 384)
"""Most volumes without an artefact are smaller: chance has more room in them."""
BLOCK_VX = (32, 256, 256)
STRENGTHS = (0.75, 0.85, 0.95)
SETS = {"develop": 1000, "judge": 2000, "fresh": 3000}
COUNTS = {
    "develop": {"clean": 4, "biology": 2, "staining": 3, "misalignment": 2, "session": 2, "defocus": 2, "missing": 2},
    "judge": {"clean": 30, "biology": 10, "staining": 6, "misalignment": 5, "session": 5, "defocus": 5, "missing": 5},
    "fresh": {"clean": 30, "biology": 10},
}
OVERRIDES = {"develop": 2, "judge": 5, "fresh": 0}
WRONG_MODELS = ({"segment": {"model": "ac3-affinity"}}, {"synapses": {"model": "ac3-cleft"}})
TYPOS = (
    {"segment": {"seed_depth_nm": 100.0}},  # one zero too many
    {"synapses": {"min_volume_nm3": 4_000_000.0}},  # one zero too many
    {"synapses": {"high": 0.99}},  # for 0.9
    {"segment": {"seed_window_nm": 4.0, "seed_depth_nm": 1.0}},  # for 40 and 10
    {"synapses": {"facing_nm": 2.4}},  # for 24
)


@dataclass(frozen=True)
class Case:
    """One project to make."""

    name: str
    kind: str
    seed: int
    tissue: dict[str, Any] = field(default_factory=dict)
    artefacts: dict[str, Any] = field(default_factory=dict)
    override: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Stage -> parameters in the region `corner`."""
    base: str = ""
    """The case of which this one is a copy with an override."""


def cases(which: str) -> list[Case]:
    """All cases of a set, interleaved by kind so that a part of them holds some of each."""
    made = {kind: [_case(kind, i, SETS[which]) for i in range(n)] for kind, n in COUNTS[which].items()}
    longest = max(len(v) for v in made.values())
    out = [v[i] for i in range(longest) for v in made.values() if i < len(v)]
    for i in range(OVERRIDES[which]):
        base = made["clean"][i % len(made["clean"])]
        wrong, typo = WRONG_MODELS[i % len(WRONG_MODELS)], TYPOS[i % len(TYPOS)]
        out.append(Case(f"model{i}", "model", base.seed, override=wrong, base=base.name))
        out.append(Case(f"typo{i}", "typo", base.seed, override=typo, base=base.name))
    return out


def _case(kind: str, i: int, start: int) -> Case:
    seed = start + 100 * list(COUNTS["judge"]).index(kind) + i
    rng = np.random.default_rng([seed, 0xCA5E])
    corner = [int(v) for v in rng.integers(0, 2, 2)]
    area = {"y": _half(corner[0], rng), "x": _half(corner[1], rng)}
    first, length = int(rng.integers(5, 14)), int(rng.integers(8, 13))
    run = [first, first + length - 1]
    tissue: dict[str, Any] = {"shape_vx": SMALL_VX} if kind == "clean" and (i >= 5 or start == SETS["fresh"]) else {}
    art: dict[str, Any] = {}
    match kind:
        case "biology":
            strength, reach = float(rng.uniform(0.85, 0.95)), float(rng.uniform(0.75, 0.9))
            tissue = {"sparseness": {"corner": corner, "reach": reach, "strength": strength, "plateau": 0.6}}
        case "staining":
            reach = float(rng.uniform(0.55, 0.75))
            art = {"staining": {"corner": corner, "reach": reach, "strength": STRENGTHS[i % 3], "plateau": 0.5}}
        case "misalignment":
            art = {"wrinkles": {"sections": run, "amplitude_px": float(rng.uniform(6, 9)), "area": area}}
        case "session":
            art = {"session": {"sections": run, "contrast": float(rng.uniform(0.3, 0.5))}}
        case "defocus":
            art = {"defocus": {"sections": run, "sigma_px": float(rng.uniform(2.5, 3.5)), "area": area}}
        case "missing":
            tile = {"row": corner[0], "col": corner[1]}
            art = {"missing_tiles": [{"section": s, **tile} for s in range(run[0], run[1] + 1)]}
    return Case(f"{kind}{i}", kind, seed, tissue, art)


def _half(end: int, rng: np.random.Generator) -> list[float]:
    share = float(rng.uniform(0.45, 0.65))
    return [1 - share, 1.0] if end else [0.0, share]


def make(case: Case, folder: Path) -> None:
    """Simulate, run every stage in this process, and say what was planted. A finished case is left as it is."""
    from connectome_db import config, newproject
    from connectome_db.stages.pipeline import STAGES

    root = folder / case.name
    if (root / "case.json").exists():
        return
    if case.base:
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(folder / case.base, root, copy_function=os.link, ignore=shutil.ignore_patterns("case.json"))
        _override(root, case)
    else:
        shutil.rmtree(root, ignore_errors=True)
        _simulate(case, root)
        changes = newproject.model_changes(STAGES, "phantom")
        for stage in STAGES:
            if "block_vx" in stage.params.model_fields and stage.name in BLOCKED:
                changes.setdefault(stage.name, {})["block_vx"] = BLOCK_VX
        if case.kind == "missing":
            changes.setdefault("ingest", {})["allow_missing"] = True
        newproject.create(
            root, name=case.name, manifest="raw/manifest.csv", voxel_nm=(30, 8, 8), stages=STAGES, changes=changes
        )
    run_all(config.load(root, STAGES))
    (root / "case.json").write_text(json.dumps(asdict(case), indent=1) + "\n")


BLOCKED = ("render", "mask", "segment", "overlap", "score", "synapses")
"""Stages whose blocks are made large, so that less is computed twice."""


def _simulate(case: Case, root: Path) -> None:
    from connectome_db.phantom.acquire import AcquireConfig
    from connectome_db.phantom.simulate import SimulateConfig, simulate
    from connectome_db.phantom.tissue import TissueConfig

    tissue = {"seed": case.seed, "shape_vx": SHAPE_VX, "synapses_per_um3": 20, "synapse_apart_nm": 320, **case.tissue}
    acquire = {"seed": case.seed, "shift_px": 6, "rotation_deg": 0.5, "artefacts": case.artefacts}
    simulate(
        SimulateConfig(tissue=TissueConfig.model_validate(tissue), acquire=AcquireConfig.model_validate(acquire)), root
    )


def _override(root: Path, case: Case) -> None:
    """Write the region and its override into the copy's params.yaml, by a new file in place of the linked one."""
    import pyarrow.parquet as pq
    from ruamel.yaml import YAML

    # A block that holds tissue: the volume is rounded out to whole blocks, so some are nearly empty.
    units = pq.read_table(root / "data" / "segment" / "units.parquet")
    made = pq.read_table(root / "data" / "segment" / "supervoxel.parquet", columns=["unit", "size_vx"])
    tissue = dict(made.group_by("unit").aggregate([("size_vx", "sum")]).to_pandas().itertuples(index=False))
    full = max(tissue.values())
    cores = sorted(
        tuple(row[f"core_{c}"] for c in ("z0", "y0", "x0", "z1", "y1", "x1"))
        for row in units.to_pylist()
        if tissue.get(row["unit"], 0) > 0.6 * full
    )
    box = [int(v) for v in cores[case.seed % len(cores)]]
    yaml = YAML()
    yaml.width = 110
    path = root / "params.yaml"
    document = yaml.load(path.read_text())
    document["regions"] = {"corner": {"box_vx": box}}
    document["overrides"] = {stage: {"corner": values} for stage, values in case.override.items()}
    new = path.with_suffix(".new")
    with new.open("w") as f:
        yaml.dump(document, f)
    new.replace(path)


def run_all(project: Any) -> None:
    """Run and finish every stage that is not up to date."""
    from connectome_db import runner
    from connectome_db.finish import finish, is_current

    for stage in project.stages:
        prepared, outcome = runner.run_units(project, stage.name)
        if not (outcome.computed == 0 and is_current(prepared)):
            finish(prepared, outcome)


def part_of(found: list[Case], part: str) -> Iterator[Case]:
    """Every n-th case, from the i-th; copies come after the cases they are copies of."""
    i, _, n = part.partition("/")
    yield from found[int(i) - 1 :: int(n)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--set", choices=sorted(SETS), default="judge")
    parser.add_argument("--part", default="1/1")
    given = parser.parse_args()
    folder = given.folder / given.set
    folder.mkdir(parents=True, exist_ok=True)
    for case in part_of(cases(given.set), given.part):
        while case.base and not (folder / case.base / "case.json").exists():
            time.sleep(5)  # another part makes it
        begin = time.perf_counter()
        make(case, folder)
        print(f"{case.name:16s} {time.perf_counter() - begin:6.0f} s", flush=True)


if __name__ == "__main__":
    main()

"""How often `connectome diagnose` is right, over the phantoms of `diagnosis_cases`.

    python -m benchmarks.diagnosis_cases FOLDER --set judge
    python -m benchmarks.diagnosis FOLDER --set judge [--json result.json]

Nothing is told to the diagnosis: no region, no metric. Prints a line per case, the confusion table, the false alarms,
the overlap of the region found with the planted box, and for staining the deficit against the truth: recall of true
synapses in the planted box over that outside of it, minus 1.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

EXPECTED = {
    "clean": "none", "biology": "none", "staining": "staining", "misalignment": "misalignment", "session": "session",
    "defocus": "defocus", "missing": "missing tiles", "model": "model", "typo": "parameters",
}  # fmt: skip


def planted_nm(root: Path, case: dict[str, Any]) -> tuple[float, ...] | None:
    """The planted box in nm of the aligned volume; None where nothing was planted.

    The tissue's frame and the volume's differ by the margin around the imaged window and by the project's origin.
    """
    from connectome_db import config, newproject
    from connectome_db.stages.pipeline import STAGES

    if case["base"]:
        project = config.load(root, STAGES)
        override = next(iter(project.overrides.values()))[0]
        return tuple(v * s for v, s in zip(override.box.flat(), project.voxel_nm * 2, strict=True))
    acquisition = json.loads((root / "truth" / "acquisition.json").read_text())
    shape, window = acquisition["shape_vx"], acquisition["window_px"]
    voxel = np.asarray(acquisition["voxel_nm"] * 2, float)
    shift = [0.0, *((shape[k + 1] - window[k]) / 2 - newproject.MARGIN_PX for k in range(2))]
    boxes = [(a["lo_vx"], a["hi_vx"]) for a in json.loads((root / "truth" / "artefacts.json").read_text())]
    if case["kind"] == "biology":
        sparse = case["tissue"]["sparseness"]
        span = [(1 - sparse["reach"], 1.0) if end else (0.0, sparse["reach"]) for end in sparse["corner"]]
        boxes = [([0, *(span[k][0] * shape[k + 1] for k in range(2))],
                  [shape[0], *(span[k][1] * shape[k + 1] for k in range(2))])]  # fmt: skip
    if not boxes:
        return None
    low = np.min([b[0] for b in boxes], axis=0) - shift
    high = np.max([b[1] for b in boxes], axis=0) - shift
    return tuple((np.concatenate([low, high]) * voxel).tolist())


def tissue_nm(root: Path) -> tuple[float, ...]:
    """Hull of what was imaged, in nm."""
    rows = pq.read_table(root / "data" / "measure_raw" / "quality_raw.parquet")
    low = [rows[f"{a}0_nm"].to_numpy().min() for a in "zyx"]
    high = [rows[f"{a}1_nm"].to_numpy().max() for a in "zyx"]
    return (*low, *high)


def clipped(box: tuple[float, ...], to: tuple[float, ...]) -> tuple[float, ...]:
    return (*(max(box[k], to[k]) for k in range(3)), *(min(box[k], to[k]) for k in range(3, 6)))


def judge(root: Path) -> dict[str, Any]:
    """Diagnose one case from its tables, and hold it against what was planted."""
    from connectome_db import config
    from connectome_db.diagnosis.candidates import overlap
    from connectome_db.diagnosis.diagnose import diagnose
    from connectome_db.diagnosis.remedies.against_truth import in_and_out
    from connectome_db.stages.pipeline import STAGES

    case = json.loads((root / "case.json").read_text())
    begin = time.perf_counter()
    found = diagnose(root)
    seconds = time.perf_counter() - begin
    box, hull = planted_nm(root, case), tissue_nm(root)
    iou = None if box is None else overlap(clipped(found.region.box_nm, hull), clipped(box, hull))  # type: ignore[arg-type]
    difference = found.difference
    row = {
        "case": case["name"], "kind": case["kind"], "verdict": found.verdict,
        "cause": found.cause.name if found.cause else "none", "confidence": found.confidence, "iou": iou,
        "metric": difference.metric if difference else None, "relative": difference.relative if difference else None,
        "p_value": difference.p_value if difference else None, "real": found.real, "seconds": seconds,
        "strength": case["artefacts"].get("staining", {}).get("strength"),
        "others": [o.cause.name for o in found.others if o.cause],
    }  # fmt: skip
    if case["kind"] in ("staining", "biology") and box is not None:
        sides = in_and_out(config.load(root, STAGES), box)  # type: ignore[arg-type]
        row["true_deficit"] = sides["region"].recall / sides["outside"].recall - 1
        row["wired_deficit"] = sides["region"].wired_recall / sides["outside"].wired_recall - 1
    return row


def tell(rows: list[dict[str, Any]]) -> None:
    names = sorted({*EXPECTED.values(), *(r["cause"] for r in rows)})
    print("\nplanted \\ named   " + " ".join(f"{n:>13s}" for n in names))
    for kind in EXPECTED:
        counts = Counter(r["cause"] for r in rows if r["kind"] == kind)
        if counts:
            print(f"{kind:16s}  " + " ".join(f"{counts.get(n, 0) or '':>13}" for n in names))
    planted = [r for r in rows if EXPECTED[r["kind"]] != "none"]
    right = sum(r["cause"] == EXPECTED[r["kind"]] for r in planted)
    nothing = [r for r in rows if r["kind"] in ("clean", "biology")]
    alarms = sum(r["cause"] != "none" for r in nothing)
    biology = [r for r in rows if r["kind"] == "biology"]
    print(f"\ncause right: {right} of {len(planted)}")
    print(f"false alarms: {alarms} of {len(nothing)}")
    print(
        f"biology called consistent with biology: {sum(r['verdict'] == 'biology' for r in biology)} of {len(biology)}"
    )
    clean = [r for r in rows if r["kind"] == "clean"]
    print(f"a difference claimed without a cause where there is none: {sum(r['real'] for r in clean)} of {len(clean)}")
    for kind in EXPECTED:
        iou = [r["iou"] for r in planted if r["kind"] == kind and r["iou"] is not None]
        if iou:
            print(f"overlap with the planted box, {kind:13s}: " + " ".join(f"{v:.2f}" for v in iou))
    print(f"diagnose: {np.median([r['seconds'] for r in rows]):.1f} s a case (median)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--set", choices=("develop", "judge", "fresh"), default="judge")
    parser.add_argument("--part", default="1/1", help="Only every n-th case, from the i-th.")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    from benchmarks.diagnosis_cases import run_all
    from connectome_db import config
    from connectome_db.stages.pipeline import STAGES

    i, _, n = given.part.partition("/")
    rows = []
    made = sorted(p.parent for p in (given.folder / given.set).glob("*/case.json"))
    for root in made[int(i) - 1 :: int(n)]:
        run_all(config.load(root, STAGES))
        row = judge(root)
        rows.append(row)
        relative = "" if row["relative"] is None else f"{row['relative']:+.0%}"
        truth = f"true deficit {row['true_deficit']:+.0%}" if "true_deficit" in row else ""
        print(
            f"{row['case']:15s} {row['verdict']:14s} {row['cause']:14s} {row['confidence']:.2f} "
            f"overlap {'' if row['iou'] is None else format(row['iou'], '.2f'):5s} {row['metric']} {relative} {truth}",
            flush=True,
        )
    tell(rows)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Ledgers of a made-up project, written by hand so that every cause can be seen; and a plain walk over real ones.

ingest (a unit per section) -> blur (a block per two sections) -> count (once)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from connectome_db import ids
from connectome_db.plans import FAR

AXES = ("z0", "y0", "x0", "z1", "y1", "x1")
KINDS = {"ingest": "sections", "blur": "blocks", "count": "once"}
READS = {"ingest": "raw.tiles", "blur": "ingest.tile", "count": "blur.image"}
OUTPUT = {"ingest": "tile", "blur": "image", "count": "sum"}


def code(k: int) -> int:
    """The unit code of section or block k."""
    return int(ids.pack([(k, 0, 0)])[0])


def write(
    root: Path,
    anew: str = "",
    *,
    sections: int = 4,
    tiles: Mapping[str, str | None] | None = None,
    records: Mapping[str, Mapping[str, Any]] | None = None,
    models: Mapping[int, str] | None = None,
    stages: tuple[str, ...] = tuple(KINDS),
) -> Path:
    """Write a version. `anew` lists units with another key ("blur:1~") and those with other content, too ("blur:1").

    "blur:1!" has other content under the same key. `tiles` changes digests of tiles ("0/a"), None takes one away;
    `records` changes entries of record.json; `models` gives blocks of blur a model.
    """
    marks = {unit.rstrip("~!"): unit[-1] if unit[-1] in "~!" else "" for unit in anew.split()}
    listed = {f"{z}/{t}": f"pixels {z}{t}" for z in range(sections) for t in "ab"} | dict(tiles or {})
    blocks = range((sections + 1) // 2)
    numbers = {"ingest": range(sections), "blur": blocks, "count": range(1)}
    cores = {
        "ingest": {z: (z, -FAR, -FAR, z + 1, FAR, FAR) for z in range(sections)},
        "blur": {k: (2 * k, 0, 0, min(2 * k + 2, sections), 8, 8) for k in blocks},
        "count": {0: (0, 0, 0, sections, 8, 8)},
    }
    for stage in stages:
        new = {k: marks.get(f"{stage}:{k}") for k in numbers[stage]}
        record = {
            "params": {"sigma": 2.0} if stage == "blur" else {},
            "bounds": [0, 0, 0, sections, 8, 8],
            "inputs": {READS[stage]: json.dumps(listed, sort_keys=True) if stage == "ingest" else ""},
        }
        write_stage(
            root,
            stage,
            KINDS[stage],
            cores[stage],
            reads={READS[stage]: cores[stage]},
            parts={OUTPUT[stage]: {k: f"content {stage} {k}{' other' * (m in {'', '!'})}" for k, m in new.items()}},
            keys={k: f"key {stage} {k}{' anew' * (m in {'', '~'})}" for k, m in new.items()},
            models=models if stage == "blur" else None,
            record=record | dict((records or {}).get(stage, {})),
        )
    if "ingest" in stages:
        rows = [{"section": int(n[0]), "tile": n, "sha256": s, "stage_y_px": 0.0, "stage_x_px": 0.0, "height_px": 8,
                 "width_px": 8, "dtype": "uint8"} for n, s in listed.items() if s is not None]  # fmt: skip
        pq.write_table(pa.Table.from_pylist(rows), root / "data" / "ingest" / "tile.parquet")
    return root


Box6 = tuple[int, ...]
COLUMNS = {
    "units": ("unit", "kind", *(f"core_{c}" for c in AXES), "unit_key", "model_id"),
    "reads": ("unit", "input", *AXES),
    "parts": ("output", "unit", *AXES, "digest", "rows"),
}


def write_stage(
    root: Path,
    stage: str,
    kind: str,
    cores: Mapping[int, Box6],
    *,
    reads: Mapping[str, Mapping[int, Box6]],
    parts: Mapping[str, Mapping[int, str]],
    keys: Mapping[int, str],
    record: Mapping[str, Any],
    models: Mapping[int, str] | None = None,
) -> Path:
    """The ledger of one stage: boxes and keys by unit, boxes by input and unit, digests by output and unit."""
    units = [{"unit": code(k), "kind": kind, **_named(box, "core_"), "unit_key": keys[k],
              "model_id": (models or {}).get(k)} for k, box in cores.items()]  # fmt: skip
    read = [{"unit": code(k), "input": n, **_named(box)} for n, by_unit in reads.items() for k, box in by_unit.items()]
    part = [{"output": n, "unit": code(k), **_named(cores[k]), "digest": digest, "rows": 1}
            for n, by_unit in parts.items() for k, digest in by_unit.items()]  # fmt: skip
    folder = root / "data" / stage
    folder.mkdir(parents=True)
    for name, rows in (("units", units), ("reads", read), ("parts", part)):
        schema = pa.schema([_field(column) for column in COLUMNS[name]])
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / f"{name}.parquet")
    usual = {"stage": stage, "format": 1, "voxel_nm": [30.0, 8.0, 8.0], "code_digest": "c" * 64, "model_id": None,
             "params": {}, "overrides": [], "inputs": dict.fromkeys(reads, "")}  # fmt: skip
    (folder / "record.json").write_text(json.dumps(usual | dict(record)))
    return folder


def _named(box: tuple[int, ...], prefix: str = "") -> dict[str, int]:
    return {f"{prefix}{axis}": v for axis, v in zip(AXES, box, strict=True)}


def _field(column: str) -> pa.Field:
    if column == "unit":
        return pa.field(column, pa.uint64())
    return pa.field(column, pa.string() if column in {"kind", "unit_key", "model_id", "input", "output", "digest"}
                    else pa.int64())  # fmt: skip


def walk(a: Path, b: Path, own: dict[tuple[str, int], set[str]]) -> dict[tuple[str, int], set[str]]:
    """Causes of every unit whose key differs, unit by unit and part by part, given the own causes."""
    ledgers: list[dict[str, Any]] = []
    for root in (a, b):
        stages = {p.parent.name: p.parent for p in root.glob("data/*/record.json")}
        ledgers.append({})
        for stage, folder in stages.items():
            tables = {n: pq.read_table(folder / f"{n}.parquet").to_pylist() for n in ("units", "reads", "parts")}
            inputs = json.loads((folder / "record.json").read_text())["inputs"]
            ledgers[-1][stage] = {**tables, "inputs": inputs}
    x, y = ledgers
    causes: dict[tuple[str, int], set[str]] = {}
    left = list(y)
    while left:
        stage = next(s for s in left if not {n.split(".")[0] for n in y[s]["inputs"]} & set(left))
        left.remove(stage)
        keys = {u["unit"]: u["unit_key"] for u in x[stage]["units"]}
        for unit in y[stage]["units"]:
            code = unit["unit"]
            if keys.get(code) == unit["unit_key"]:
                continue
            found = set(own.get((stage, code), ()))
            for side, other in ((x, y), (y, x)):
                for read in side[stage]["reads"]:
                    maker, _, output = read["input"].partition(".")
                    if read["unit"] != code or maker == "raw":
                        continue
                    digests = {(p["output"], p["unit"]): p["digest"] for p in other[maker]["parts"]}
                    for part in side[maker]["parts"]:
                        touches = all(part[f"{c}0"] < read[f"{c}1"] and read[f"{c}0"] < part[f"{c}1"] for c in "zyx")
                        same = digests.get((output, part["unit"])) == part["digest"]
                        if part["output"] == output and touches and not same:
                            once = side[maker]["units"][0]["kind"] == "once"
                            made_by = side[maker]["units"][0]["unit"] if once else part["unit"]
                            found |= causes.get((maker, made_by), set())
            causes[stage, code] = found
    return causes

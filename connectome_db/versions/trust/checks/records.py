"""Records: do record.json, units, reads and parts say what they said when the stage was finished, and do they agree?"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from connectome_db import ledger
from connectome_db.errors import StoreError
from connectome_db.finish import reads_table, units_table
from connectome_db.prepare import stage_code
from connectome_db.provenance import FORMAT, merkle
from connectome_db.spec import RAW_INPUTS
from connectome_db.store import Store
from connectome_db.versions.trust.checks.differences import json_differences, table_differences, told
from connectome_db.versions.trust.findings import Checked, Place, Problem, first_few
from connectome_db.versions.trust.rederive import Derived, derive, record_of
from connectome_db.versions.trust.trees import Tree, parse_units, read


def problem(tree: Tree, what: str, path: Path, place: Place, wanted: str = "", found: str = "") -> Problem:
    """A problem of a whole stage."""
    return Problem(tree.name, what, tree.relative(path), place, wanted, found)


def check_seals(tree: Tree) -> list[Problem]:
    """Records and `info` files against their seal, missing ones, and files that do not belong there."""
    apart = {f"{o.name}.parquet" for o in tree.tables} | set(tree.companions)
    out = []
    for name in (n for n in tree.expected if n not in apart):
        path = tree.folder / name
        if not path.is_file():
            out.append(problem(tree, "missing record", path, "small", found="nothing"))
        elif tree.vouched(name) is False:
            wanted, found = _detail(tree, name)
            out.append(problem(tree, "edited record", path, "small", wanted, found))
    known = set(tree.expected)
    for path in sorted(p for p in tree.folder.iterdir() if not p.is_dir() and p.name not in known):
        out.append(problem(tree, "foreign file", path, "foreign", found=f"{path.lstat().st_size} bytes"))
    return out


def _detail(tree: Tree, name: str) -> tuple[str, str]:
    """What differs from the sound copy of a record, or the two digests when there is none."""
    right, there = tree.witness(name), read(tree.folder / name) or b""
    digest = tree.ledger.files.get(name, "") if tree.ledger else ""
    plain = (f"sha256 {digest}" if digest else "as committed", f"sha256 {tree.found.get(name)}")
    try:
        if right is None:
            return plain
        if name.endswith(".parquet"):
            wanted, found = told(table_differences(*(pq.read_table(pa.BufferReader(b)) for b in (right, there))))
        else:
            wanted, found = told(json_differences(json.loads(right), json.loads(there)))
    except (pa.ArrowException, OSError):
        return plain[0], f"{len(there)} bytes that are no Parquet"
    except ValueError:
        return plain[0], f"{len(there)} bytes that are no JSON"
    return (wanted, found) if wanted or found else plain


def check_merkles(tree: Tree, parts_wrong: Mapping[str, Sequence[str]]) -> list[Problem]:
    """The digests of outputs in record.json against parts.parquet.

    `parts_wrong` has, per output, the units whose digest there is contradicted by the store and data/ alike.
    """
    out = []
    path = tree.folder / "parts.parquet"
    for output, units in parts_wrong.items():
        row = problem(tree, "edited record", path, "small", "the digests that store and data/ agree on",
                      f"other digests of {output} for {first_few(units)}")  # fmt: skip
        out.append(row)
    if tree.parts is None or tree.record is None or parts_wrong:
        return out
    for output, digest in (tree.record.get("outputs") or {}).items():
        mine = tree.parts.filter(pc.equal(tree.parts["output"], output))
        found = merkle(mine["unit"].to_numpy().astype(np.uint64), mine["digest"].to_pylist())
        if found != digest:
            row = problem(tree, "edited record", tree.folder / "record.json", "small", f"outputs.{output} = {found}",
                          str(digest))  # fmt: skip
            out.append(row)
    return out


def check_derivation(tree: Tree, upstream: Mapping[str, Tree], done: Checked, *, raw_changed: bool) -> list[Problem]:
    """Do the unit keys follow from record.json and from what lies upstream, and do units and reads follow from both?"""
    record, units = tree.record, tree.units
    if record is None or units is None:
        return []
    unsound = [n for n, t in upstream.items() if t.vouched("parts.parquet") is False]
    if unsound:
        done.note(f"its keys were not derived again: parts.parquet of {', '.join(unsound)} must be repaired first")
        return []
    derived = derive(tree.project, tree.stage, record, units.keys)
    inputs = _other_inputs(record, upstream, derived)
    if derived.prepared is None:
        done.note(f"its keys cannot be derived again: {derived.reason}")
    elif derived.keys_fit:
        return _compare_records(tree, record, derived)
    if inputs and raw_changed and set(inputs) <= RAW_INPUTS:
        done.note("its keys were not derived again: raw tiles are not what they were")
    elif inputs:
        return [
            problem(tree, "stale", tree.folder / "record.json", "stale", f"inputs.{n} = {a}", f"{b} now")
            for n, (a, b) in inputs.items()
        ]
    elif derived.prepared is not None and stage_code(tree.stage) != record.get("code_digest"):
        done.note("its keys cannot be derived again: the stage's code has changed since")
    elif derived.prepared is not None:
        return [_culprit(tree, derived, record)]
    return []


def _other_inputs(
    record: Mapping[str, Any], upstream: Mapping[str, Tree], derived: Derived
) -> dict[str, tuple[str, str]]:
    """Inputs whose recorded digest is not that of what lies upstream: (recorded, there now)."""
    out = {}
    for name, digest in (record.get("inputs") or {}).items():
        stage, _, output = name.partition(".")
        if derived.prepared is not None and name in derived.prepared.inputs.parts:
            now = derived.prepared.inputs.parts[name].merkle
        elif stage in upstream and (above := upstream[stage].record) is not None:
            now = str(above["outputs"].get(output))
        else:
            continue
        if now != digest:
            out[name] = (str(digest), now)
    return out


def _compare_records(tree: Tree, record: Mapping[str, Any], derived: Derived) -> list[Problem]:
    """The keys fit: everything else in the records must be what the same plan gives."""
    prepared, out = derived.prepared, []
    assert prepared is not None
    wanted, found = told(json_differences(record_of(prepared, record), record))
    if wanted or found:
        out.append(problem(tree, "edited record", tree.folder / "record.json", "small", wanted, found))
    for name, right in (("units.parquet", units_table(prepared)), ("reads.parquet", reads_table(prepared))):
        data = tree.good(name)
        try:
            there = pq.read_table(pa.BufferReader(data)) if data else right
        except (pa.ArrowException, OSError):
            continue  # found by its seal, or when it was read
        if not there.equals(right):
            wanted, found = told(table_differences(right, there))
            out.append(problem(tree, "edited record", tree.folder / name, "small", wanted, found))
    return out


def _culprit(tree: Tree, derived: Derived, record: Mapping[str, Any]) -> Problem:
    """The keys do not follow, though code and inputs are the same: which record was edited?"""
    units, prepared = tree.units, derived.prepared
    assert units is not None
    assert prepared is not None
    store = Store(tree.project.store)
    there = {key for key, _, _ in store.entries(tree.name, units.keys, bad_shards(store, tree.name))}
    other = [i for i, k in enumerate(prepared.keys) if i < len(units) and k != units.keys[i]]
    lost = [i for i in other if units.keys[i] not in there]
    if other and lost == other:
        wanted = f"unit_key = {prepared.keys[other[0]]}"
        found = f"{units.keys[other[0]]}, in {first_few(units.title(i) for i in other)}"
        return problem(tree, "edited record", tree.folder / "units.parquet", "small", wanted, found)
    path = tree.folder / "record.json"
    today = derive(tree.project, tree.stage, as_configured(tree, record), units.keys)
    if today.keys_fit and today.prepared is not None:
        wanted, found = told(json_differences(record_of(today.prepared, record), record))
        return problem(tree, "edited record", path, "small", wanted, found)
    counted = f"{len(other)} of {len(units)} unit keys do not follow from it"
    return problem(tree, "edited record", path, "small", "parameters from which the unit keys follow", counted)


def as_configured(tree: Tree, record: Mapping[str, Any] | None) -> dict[str, Any]:
    """A record with the parameters of params.yaml in place of its own: what an edited one may have been."""
    project = tree.project
    params = json.loads(project.params[tree.name].model_dump_json())
    overrides = [
        {"region": o.region, "box_vx": list(o.box.flat()), "params": dict(o.values)}
        for o in project.overrides.get(tree.name, ())
    ]
    known = record or {"format": FORMAT, "code_digest": stage_code(tree.stage)}
    return {**known, "params": params, "overrides": overrides, "voxel_nm": list(project.voxel_nm)}


def bad_shards(store: Store, stage: str) -> list[Path]:
    """Shards of unit records that cannot be read."""
    bad = []
    for path in sorted((store.root / "shards" / stage).glob("*.parquet")):
        try:
            for _ in pq.ParquetFile(path).iter_batches(1 << 16, columns=["key", "record"]):
                pass
        except (pa.ArrowException, OSError):
            bad.append(path)
    return bad


def check_ledgers(tree: Tree) -> list[Problem]:
    """Every seal of the stage against its own name, and its copy of the units against the seal."""
    out = []
    for folder in ledger.folders(tree.project.store, tree.name):
        try:
            one = ledger.read_ledger(folder)
        except StoreError as e:
            out.append(problem(tree, "edited record", folder / "seal.json", "ledger", "a seal", str(e)))
            continue
        if not one.sealed:
            found = "a seal with another digest"
            out.append(problem(tree, "edited record", folder / "seal.json", "ledger", f"sha256 {folder.name}…", found))
        elif not one.whole:
            wanted, found = f"sha256 {one.files.get('units.parquet')}", _units_there(one.units)
            out.append(problem(tree, "edited record", one.units, "ledger", wanted, found))
        for run in one.runs:
            if not one.provenance_whole(run):
                path = one.provenance_seal(run)
                out.append(problem(tree, "edited record", path, "ledger", "a seal with its checksum", "another"))
    return out


def _units_there(path: Path) -> str:
    data = read(path)
    if data is None:
        return "nothing"
    try:
        return f"{len(parse_units(data))} units, of other content"
    except StoreError as e:
        return str(e)

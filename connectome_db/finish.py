"""Make `data/<stage>/` and `provenance/<stage>/` from the store: the only door through which output appears.

`data/<stage>/` is a pure function of the inputs. What differs from run to run goes to `provenance/<stage>/`.
"""

from __future__ import annotations

import json
import platform
import shutil
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from connectome_db import companions, ids, ledger, tables, volumes
from connectome_db.config import Project
from connectome_db.environment import code_facts, environment_facts, host_facts, require_git
from connectome_db.errors import RunError, StoreError
from connectome_db.parts import Parts
from connectome_db.plans import FAR
from connectome_db.prepare import Prepared, core, name, params_digest, prepare
from connectome_db.provenance import FORMAT, table_digest
from connectome_db.rawparts import source_facts
from connectome_db.runner import Outcome, done_units, now, warn
from connectome_db.spec import Plan, Rows, Volume
from connectome_db.store import Output, Record, Store, check_links
from connectome_db.unitfiles import as_recorded

BOX = ("z0", "y0", "x0", "z1", "y1", "x1")
REQUIRED = ("git_commit", "git_dirty", "environment", "run_id", "started", "host")
"""What every execution record must say, beside digests, parameters and model, which the keys guarantee."""


def _complete(prepared: Prepared, records: Mapping[str, Record]) -> list[Record]:
    """Records in plan order. Raises RunError when a unit is missing or its record lacks one of the six facts."""
    missing = [i for i, k in enumerate(prepared.keys) if k not in records]
    if missing:
        shown = ", ".join(name(prepared, i) for i in missing[:3])
        raise RunError(
            f"stage {prepared.stage.name} is not complete: {len(missing)} of {len(prepared.keys)} units are not done "
            f"({shown}{', ...' if len(missing) > 3 else ''}). Run `connectome run {prepared.stage.name}`."
        )
    ordered = [records[k] for k in prepared.keys]
    for i, r in enumerate(ordered):
        lacking = [f for f in REQUIRED if r.execution.get(f) in (None, "")]
        wanted = {o.name for o in prepared.stage.outputs}
        if lacking or set(r.outputs) != wanted:
            raise RunError(
                f"{name(prepared, i)}: its provenance record is incomplete "
                f"(lacks {lacking or sorted(wanted - set(r.outputs))}); finish refuses. Run the stage again."
            )
    return ordered


def _rehash(prepared: Prepared, store: Store, records: Sequence[Record]) -> list[int]:
    """Units whose stored files do not decode to the recorded content (`strict`)."""
    bad = []
    for i, record in enumerate(records):
        for o in prepared.stage.outputs:
            out = record.outputs[o.name]
            files = {f: (store.blob(out.blob) / f).read_bytes() for f, _ in out.files}
            layout = prepared.layout(o) if isinstance(o, Volume) else None
            same = as_recorded(files, out.digest, layout, core(prepared.plan, i))
            if not same:
                warn(f"{name(prepared, i)}: stored {o.name} is not what was recorded ({store.blob(out.blob)})")
                bad.append(i)
                break
    return bad


def section_parts(output: Rows, table: pa.Table) -> tuple[Parts, list[int]]:
    """Parts of a `once` table that changes by section: digest, box and row count per section."""
    unit = table["unit"].to_numpy()
    codes, first = np.unique(unit, return_index=True)
    last = np.append(first[1:], len(unit))[: len(codes)]  # of no rows there is no section
    boxes, digests, rows = [], [], []
    for code, a, b in zip(codes, first.tolist(), last.tolist(), strict=True):
        mine = table.slice(a, b - a).combine_chunks()
        z = ids.position_of(int(code))[0]
        low, high = [-FAR, -FAR], [FAR, FAR]
        if output.extent:
            values = [mine[c].to_numpy() for c in output.extent]
            low = [int(np.floor(v.min())) for v in values]
            high = [int(np.ceil(v.max())) for v in values]
        boxes.append([z, *low, z + 1, *high])
        digests.append(table_digest(mine))
        rows.append(b - a)
    return Parts(codes, np.asarray(boxes, dtype=np.int64).reshape(-1, 6), tuple(digests)), rows


def _write_volume(prepared: Prepared, store: Store, o: Volume, records: Sequence[Record], folder: Path) -> None:
    layout = prepared.layout(o)
    target = folder / o.name
    for scale in layout.scales:
        (target / scale.key).mkdir(parents=True)
    (target / "info").write_bytes(volumes.info(layout))
    for i, record in enumerate(records):
        out, box = record.outputs[o.name], core(prepared.plan, i)
        for file, _ in out.files:
            store.link(out.blob, file, target / volumes.absolute_name(layout, box, file))


def _boxes(values: npt.NDArray[np.int64], prefix: str = "") -> dict[str, pa.Array]:
    return {f"{prefix}{c}": pa.array(values[:, k], type=pa.int64()) for k, c in enumerate(BOX)}


def units_table(prepared: Prepared) -> pa.Table:
    """units.parquet: every unit with its place, core box, key, parameters and model, ascending by code."""
    plan = prepared.plan
    pos, axis = ids.unpack(plan.codes)
    per_variant = [params_digest(p) for p in prepared.variants]
    models = [prepared.model_of(p) for p in prepared.variants]
    return pa.table(
        {
            "unit": pa.array(plan.codes, type=pa.uint64()),
            "kind": pa.array([plan.kind] * len(plan)),
            **{c: pa.array(pos[:, k], type=pa.int32()) for k, c in enumerate("zyx")},
            "axis": pa.array(axis, type=pa.int32()),
            **_boxes(plan.cores, "core_"),
            "unit_key": pa.array(prepared.keys),
            "params_digest": pa.array([per_variant[v] for v in prepared.variant]),
            "model_id": pa.array([m.id if (m := models[v]) else None for v in prepared.variant], type=pa.string()),
        }
    )


def reads_table(prepared: Prepared) -> pa.Table:
    """What each unit reads: one row per unit and read box; boxes that read nothing are left out."""
    pieces = []
    for r in prepared.plan.reads:
        boxes = r.boxes
        if boxes is None:
            everything = prepared.inputs.parts[r.input].boxes
            hull = np.concatenate([everything[:, :3].min(axis=0), everything[:, 3:].max(axis=0)])
            boxes = np.repeat(hull[None], len(prepared.plan), axis=0)
        real = (boxes[:, 3:] > boxes[:, :3]).all(axis=1)
        n = int(real.sum())
        pieces.append(
            pa.table(
                {
                    "unit": pa.array(prepared.plan.codes[real], type=pa.uint64()),
                    "input": pa.array([r.input] * n, type=pa.string()),
                    **_boxes(boxes[real]),
                }
            )
        )
    return pa.concat_tables(pieces).combine_chunks()


def parts_table(output: str, parts: Parts, rows: Sequence[int]) -> pa.Table:
    """Rows of parts.parquet of one output; `rows` is -1 for a volume."""
    return pa.table(
        {
            "output": pa.array([output] * len(parts.codes), type=pa.string()),
            "unit": pa.array(parts.codes, type=pa.uint64()),
            **_boxes(parts.boxes),
            "digest": pa.array(parts.digests, type=pa.string()),
            "rows": pa.array(rows, type=pa.int64()),
        }
    )


def write_json(path: Path, value: Any) -> None:
    """Write a new JSON file that depends on nothing but the value."""
    path.write_text(json.dumps(value, sort_keys=True, indent=1) + "\n")


def stage_record(
    prepared: Prepared, outputs: Mapping[str, str], made: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """record.json; `outputs` has the Merkle digest of each output, `made` the SHA-256 of each companion's files."""
    stage, project = prepared.stage, prepared.project
    model = prepared.model_of(project.params[stage.name])
    return (
        {
            "stage": stage.name,
            "format": FORMAT,
            "units": len(prepared.plan),
            "bounds": list(prepared.plan.bounds.flat()),
            "block_vx": list(prepared.plan.block_vx) if prepared.plan.block_vx else None,
            "voxel_nm": list(project.voxel_nm),
            "code_digest": prepared.code_digest,
            "model_id": model.id if model else None,
            "model_digest": model.digest if model else None,
            "params": json.loads(project.params[stage.name].model_dump_json()),
            "overrides": [
                {"region": o.region, "box_vx": list(o.box.flat()), "params": dict(o.values)}
                for o in project.overrides.get(stage.name, ())
            ],
            "inputs": {n: p.merkle for n, p in sorted(prepared.inputs.parts.items())},
            "outputs": dict(sorted(outputs.items())),
        }
        | ({"companions": dict(sorted(made.items()))} if made else {})
        | source_facts(project, stage.inputs)
    )


def write_data(
    prepared: Prepared, store: Store, records: Sequence[Record], folder: Path, *, chunks: bool = True
) -> None:
    """Fill a new folder with the stage's outputs and its hashed record; without `chunks`, volumes have only `info`."""
    plan, merkles, parts_tables = prepared.plan, {}, []
    for o in prepared.stage.outputs:
        outs: list[Output] = [r.outputs[o.name] for r in records]
        parts = Parts(plan.codes, plan.cores, tuple(out.digest for out in outs))
        rows = [out.rows for out in outs]
        if isinstance(o, Volume):
            _write_volume(prepared, store, o, records if chunks else (), folder)
        else:
            path = folder / f"{o.name}.parquet"
            blobs = [store.blob(out.blob) / "rows.parquet" for out in outs]
            tables.write_sorted(o, blobs, path, rows_in_all=sum(rows))
            if o.part == "section":
                parts, rows = section_parts(o, tables.read_units(path, None))
        merkles[o.name] = parts.merkle
        parts_tables.append(parts_table(o.name, parts, rows))
    tables.write_small(units_table(prepared), folder / "units.parquet")
    tables.write_small(reads_table(prepared), folder / "reads.parquet")
    tables.write_small(pa.concat_tables(parts_tables).combine_chunks(), folder / "parts.parquet")
    made = companions.make(prepared.stage.outputs, folder, prepared.project.state / "tmp")
    write_json(folder / "record.json", stage_record(prepared, merkles, made))


def executions_table(plan: Plan, records: Sequence[Record], run_id: str) -> pa.Table:
    """executions.parquet: the original execution of every unit; `reused` when that was in another run than `run_id`."""
    executions = [r.execution for r in records]
    codes = pa.array(plan.codes, type=pa.uint64())
    columns: dict[str, pa.Array] = {"unit": codes, "unit_key": pa.array([r.key for r in records])}
    columns["run_id"] = pa.array([e["run_id"] for e in executions])
    columns["reused"] = pa.array([e["run_id"] != run_id for e in executions])
    columns["rank"] = pa.array([int(e["rank"]) for e in executions], type=pa.int32())
    columns["seconds"] = pa.array([float(e["seconds"]) for e in executions], type=pa.float64())
    for field in ("started", "host", "git_commit", "environment"):
        columns[field] = pa.array([str(e[field]) for e in executions], type=pa.string())
    columns["git_dirty"] = pa.array([bool(e["git_dirty"]) for e in executions], type=pa.bool_())
    columns["git_diff"] = pa.array([e["git_diff"] for e in executions], type=pa.string())
    return pa.table(columns)


def _write_provenance(
    prepared: Prepared, store: Store, records: Sequence[Record], outcome: Outcome, folder: Path
) -> None:
    """Fill a new folder with who, when, where: the original execution of every unit, and this run."""
    executions = [r.execution for r in records]
    tables.write_small(executions_table(prepared.plan, records, outcome.run_id), folder / "executions.parquet")
    here = store.put_environment(environment_facts())
    used = sorted({e["environment"] for e in executions} | {here})
    write_json(folder / "environments.json", {d: store.environment(d) for d in used})
    if len({e["environment"] for e in executions}) > 1:
        warn(
            f"stage {prepared.stage.name}: its units were made in {len(used)} different environments; "
            "`same_environment: true` in launch.yaml recomputes the others"
        )
    git = require_git(prepared.project.root)
    diff = git.pop("diff")
    if diff:
        (folder / "diff.patch").write_text(diff)
    facts = environment_facts()
    run = {
        "run_id": outcome.run_id,
        "stage": outcome.stage,
        "started": outcome.started,
        "ended": now(),
        "seconds": round(outcome.seconds, 3),
        "git": git,
        "code": code_facts(),
        **host_facts(),
        **{k: facts[k] for k in ("os", "cpu", "gpus", "container", "packages")},
        "python": platform.python_version(),
        "environment": here,
        "mpi": {"library": mpi_version(), "ranks": outcome.workers} if outcome.executor == "mpi" else None,
        "executor": outcome.executor,
        "workers": outcome.workers,
        "argv": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "units_total": outcome.total,
        "units_computed": outcome.computed,
        "units_reused": outcome.reused,
    }
    write_json(folder / "run.json", run)


def mpi_version() -> str:
    """The MPI implementation that ranks are started with, as its package says."""
    found = environment_facts()["packages"]
    return ", ".join(f"{n} {found[n]}" for n in ("mpich", "openmpi", "impi-rt", "mpi4py") if n in found)


def _swap(new: Path, final: Path, trash: Path) -> None:
    """Put a finished folder in its place in one rename; an old one is moved aside first."""
    final.parent.mkdir(parents=True, exist_ok=True)
    if final.exists():
        final.rename(trash)
    new.rename(final)
    if trash.exists():
        shutil.rmtree(trash)


def is_current(prepared: Prepared) -> bool:
    """True when data/ and provenance/ already hold exactly these units, and all their files.

    A `dvc checkout` that was killed leaves files out; one of a single folder leaves provenance/ of other units. Files
    are counted and measured here, not read: `connectome verify` reads them.
    """
    data, provenance = (f(prepared.stage.name) for f in (prepared.project.data, prepared.project.provenance))
    try:
        keys = [
            pq.read_table(p, columns=["unit_key"])["unit_key"].to_pylist()
            for p in (data / "units.parquet", provenance / "executions.parquet")
        ]
        record = json.loads((data / "record.json").read_text())
        wanted = stage_record(prepared, record["outputs"], record.get("companions"))
        same = keys == [prepared.keys] * 2 and record == wanted
        return same and (provenance / "run.json").is_file() and _all_there(prepared, data)
    except (OSError, pa.ArrowInvalid, ValueError, KeyError):
        return False


def _all_there(prepared: Prepared, data: Path) -> bool:
    """Every table has its rows, every volume as many files and bytes as the records of its units say."""
    parts = pq.read_table(data / "parts.parquet", columns=["output", "rows"]).group_by("output")
    sums = parts.aggregate([("rows", "sum")])
    rows = dict(zip(sums["output"].to_pylist(), sums["rows_sum"].to_pylist(), strict=True))
    for o in prepared.stage.outputs:
        if isinstance(o, Rows) and pq.read_metadata(data / f"{o.name}.parquet").num_rows != rows.get(o.name, 0):
            return False
    if not all((data / n).is_file() for n in companions.expected(prepared.stage.outputs, data)):
        return False
    chunked = [o for o in prepared.stage.outputs if isinstance(o, Volume)]
    records = Store(prepared.project.store).lookup(prepared.stage.name, prepared.keys) if chunked else {}
    for o in chunked:
        here = [p.stat().st_size for p in (data / o.name).glob("*/*")]
        wanted = [size for r in records.values() for _, size in r.outputs[o.name].files]
        if len(records) == len(prepared.keys) and (len(here), sum(here)) != (len(wanted), sum(wanted)):
            return False
        if (data / o.name / "info").read_bytes() != volumes.info(prepared.layout(o)):
            return False
    return True


def only_damaged(project: Project, stage: str) -> None:
    """Raise RunError when units were never computed: `finish` mends damage, it does not start a stage."""
    prepared = prepare(project, project.stage(stage))
    store = Store(project.store)
    known = store.lookup(stage, prepared.keys)
    never = [i for i, k in enumerate(prepared.keys) if k not in known]
    if never:
        raise RunError(
            f"stage {stage} is not complete: {len(never)} of {len(prepared.keys)} units were never computed "
            f"(e.g. {name(prepared, never[0])}). Run `connectome run {stage}`, or the missing --part."
        )


def finish(prepared: Prepared, outcome: Outcome) -> None:
    """Assemble a complete stage. Raises RunError when units are missing, StoreError when one is damaged.

    With `strict`, a dirty git tree is refused, and every unit is decoded and hashed again before it is linked.
    """
    project, stage = prepared.project, prepared.stage
    store = Store(project.store)
    if project.launch.strict and require_git(project.root)["dirty"]:
        raise RunError(f"{project.root}: uncommitted changes, and `strict` is set: commit them first")
    check_links(project.store, project.root / "data")
    records = _complete(prepared, done_units(prepared, store))
    if project.launch.strict and (bad := _rehash(prepared, store, records)):
        keys = [prepared.keys[i] for i in bad]
        for i in bad:
            for out in records[i].outputs.values():
                store.discard(out.blob)
        store.forget(stage.name, keys)
        raise StoreError(
            f"stage {stage.name}: {len(bad)} stored units were altered ({name(prepared, bad[0])}, ...); they were "
            f"dropped from the store. Run `connectome run {stage.name}` to compute them again."
        )
    tmp = project.state / "tmp" / f"{stage.name}-{uuid.uuid4().hex}"
    try:
        for part in ("data", "provenance"):
            (tmp / part).mkdir(parents=True)
        try:
            write_data(prepared, store, records, tmp / "data")
            _write_provenance(prepared, store, records, outcome, tmp / "provenance")
            ledger.write(project.store, stage.name, tmp / "data", tmp / "provenance", outcome.run_id)
        except OSError as e:
            raise StoreError(f"stage {stage.name}: cannot write its output: {e}. Units are kept: run again.") from e
        _swap(tmp / "data", project.data(stage.name), tmp / "old-data")
        _swap(tmp / "provenance", project.provenance(stage.name), tmp / "old-provenance")
    finally:
        if tmp.exists():
            shutil.rmtree(tmp)
    store.gather(stage.name)

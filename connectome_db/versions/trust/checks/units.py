"""Units: does what the store holds of each decode to what its records say, and does data/ hold the same?"""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from connectome_db.errors import StoreError
from connectome_db.finish import REQUIRED
from connectome_db.provenance import table_digest
from connectome_db.spec import Volume
from connectome_db.store import Output, Record, checksum, parse_record
from connectome_db.unitfiles import ROWS, unpack_rows
from connectome_db.versions.trust.checks.bench import (
    Bench,
    Difference,
    Entry,
    Reader,
    UnitChecked,
    choose,
    extra_files,
    sizes,
)
from connectome_db.versions.trust.checks.chunks import check_volume

EXECUTION = ("run_id", "rank", "seconds", "started", "host", "git_commit", "environment", "git_dirty", "git_diff")
"""The facts of an execution, in the store's record and in executions.parquet alike."""


def check_unit(bench: Bench, i: int, entry: Entry | None, *, deep: bool) -> UnitChecked:
    """Check the `i`-th unit; `entry` is None when the store has no record of it.

    Not `deep` looks at sizes and links only; a unit without a readable record is always decoded.
    """
    done = UnitChecked()
    record, differences = _read_record(bench, i, entry, done)
    for o in bench.tree.stage.outputs:
        known = record.outputs.get(o.name) if record else None
        if isinstance(o, Volume):
            if o.name in bench.tree.layouts:  # else record.json is lost, and said to be
                differences += check_volume(bench, i, o.name, known, done, deep=deep or record is None)
        elif deep or record is None:
            differences += _check_rows(bench, i, o.name, known, done)
        elif known:
            done.problems += sizes(bench, i, o.name, known, done)
    if entry is None:
        path = bench.store.root / "keys" / bench.tree.name / f"{bench.units.keys[i]}.json"
        row = bench.problem(i, "missing unit", path, "key", wanted="a record in the store", found="none")
        done.problems.insert(0, row)
    elif differences or done.altered:
        differences = differences or [("check", "the checksum of the rest", "another")]
        wanted = "; ".join(f"{what} = {w}".lstrip(" =") for what, w, _ in differences)
        found = "; ".join(f for _, _, f in differences)
        done.problems.insert(0, bench.problem(i, "edited record", entry[1], "key", wanted=wanted, found=found))
    return done


def _read_record(
    bench: Bench, i: int, entry: Entry | None, done: UnitChecked
) -> tuple[Record | None, list[Difference]]:
    """The record as far as it can be read, and its fields that differ from what other records say."""
    if entry is None:
        return None, []
    try:
        record = parse_record(entry[0], altered=True)
    except StoreError as e:
        return None, [("", "a record that can be read", str(e))]
    value: dict[str, Any] = json.loads(entry[0])
    done.made_in = str(record.execution.get("environment", ""))
    done.unchecked = "check" not in value
    done.altered = not done.unchecked and value["check"] != checksum(value)
    out: list[Difference] = []
    if record.key != bench.units.keys[i]:
        out.append(("key", bench.units.keys[i], record.key))
    if record.unit != int(bench.units.codes[i]):
        out.append(("unit", str(bench.units.codes[i]), str(record.unit)))
    declared = sorted(o.name for o in bench.tree.stage.outputs)
    if sorted(record.outputs) != declared:
        out.append(("outputs", ", ".join(declared), ", ".join(sorted(record.outputs))))
    lacking = [f for f in REQUIRED if record.execution.get(f) in (None, "")]
    out += [(f"execution.{f}", "a value", "none") for f in lacking]
    if bench.executions is not None:
        row = bench.executions[i]
        differ = [f for f in EXECUTION if f not in lacking and record.execution.get(f) != row[f]]
        done.remade = "run_id" in differ and not done.altered
        if not done.remade:
            out += [(f"execution.{f}", str(row[f]), str(record.execution.get(f))) for f in differ]
    return record, out


def _check_rows(bench: Bench, i: int, name: str, known: Output | None, done: UnitChecked) -> list[Difference]:
    reader = Reader(done)

    def decoded(digest: str) -> str | None:
        data = reader(bench.store.blob(digest) / ROWS)
        try:
            return table_digest(unpack_rows(data)) if data is not None else None
        except StoreError:
            return None

    digest, out = choose(bench, i, name, known, done, decoded, lambda: bench.in_data[name][i])
    if digest is None:
        return out
    if known and known.blob != digest:
        out.append((f"outputs.{name}.blob", digest, known.blob))
    path = bench.store.blob(digest) / ROWS
    say = partial(bench.problem, i, output=name, wanted=f"content {digest}")
    data = reader(path)
    if data is None:
        gone = path if path.parent.is_dir() else path.parent
        done.problems.append(say("missing unit", gone, "blob", found="nothing"))
        return out
    size = dict(known.files).get(ROWS, -1) if known else -1
    found = decoded(digest)
    if found is None:
        what = "truncated table" if len(data) < size else "damaged table"
        done.problems.append(say(what, path, "blob", found=f"{len(data)} bytes that cannot be read"))
    elif found != digest:
        row = say("damaged table", path, "blob", found=f"content {found}", digests=(digest, found))
        done.problems.append(row)
    elif known and (size != len(data) or known.rows != unpack_rows(data).num_rows):
        out.append((f"outputs.{name}.files", f"{len(data)} bytes", f"{size} bytes, {known.rows} rows"))
    done.problems += extra_files(bench, i, path.parent, [ROWS])
    return out

"""Lists, annotations and skeletons as typed tables; what cannot be used is named by row, never rounded or dropped."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from connectome_db.errors import SourceError, nearest
from connectome_db.lists import annotated, swc
from connectome_db.lists.files import Source, open_source
from connectome_db.lists.matrix import open_matrix, present
from connectome_db.lists.names import Mask, Names
from connectome_db.lists.report import Report
from connectome_db.lists.specs import NM_PER, AnnotationList, SkeletonFolder, SynapseList
from connectome_db.lists.values import Fault, as_text, labels, numbers, own_names, places, weights
from connectome_db.schema.imported import LISTED_SYNAPSE, REJECTED_ROW

BLOCK_ROWS = 1 << 20
"""Rows of the source in a block."""
REMEDY = "Correct the file, or import without these rows by --set-aside: they then go to the table rejected_row."
SEEN = 50
"""Values of a filtered column that are remembered, to say what there is when none fits."""

Seen = dict[str, set[str]]
"""Values of each filtered column."""
Blocks = Iterator[tuple[pa.Table, pa.Table]]


def open_list(spec: SynapseList, root: Path) -> Source:
    """The file of a list, its columns checked. Raises SourceError."""
    path = (root / spec.file).resolve()
    if spec.matrix:
        source = open_matrix(path, spec.sheet, (root / spec.names).resolve() if spec.names else None)
    else:
        source = open_source(path, spec.sheet)
    source.need(columns_of(spec))
    if spec.position and set(spec.position) not in ({"x", "y", "z"}, {"xyz"}):
        raise SourceError(
            f"{path}: places need the columns x, y and z, or one column xyz; got {', '.join(spec.position)}"
        )
    if spec.position and spec.unit is None:
        raise SourceError(f"{path}: the unit of the places is not said; give --unit nm, um or vx (with --voxel-nm)")
    return source


def columns_of(spec: SynapseList) -> list[str]:
    """The columns of a list that are read, each once."""
    single = (spec.pre, spec.post, spec.weight, spec.synapse, spec.size, spec.confidence, spec.roi)
    named = [
        *(c for c in single if c),
        *(["value"] if spec.matrix else []),
        *(str(c) for c in spec.position.values()),
        *spec.where,
    ]
    return list(dict.fromkeys(named))


def batches(spec: SynapseList, root: Path, *, block_rows: int = BLOCK_ROWS, report: Report | None = None) -> Blocks:
    """Rows of `listed_synapse` and of `rejected_row`, a pair per `block_rows` rows of the file, in file order.

    Memory is bounded by a few blocks, whatever the size of a file that can be streamed (see `files`). Without
    `spec.set_aside`, rows that cannot be used end in SourceError once the whole file is read, so that it counts all of
    them; what was yielded before is then void. `report` is filled meanwhile.
    """
    source = open_list(spec, root)
    report = report if report is not None else Report()
    names = Names(mixed=spec.mixed_names)
    seen: Seen = {c: set() for c in spec.where}
    first = 1
    for table in source.blocks(columns_of(spec), block_rows):
        rows, rejected = _block(spec, source, table, first, names, report, seen)
        first += table.num_rows
        if spec.set_aside or not report.faults:
            yield rows, rejected
    if not spec.set_aside:
        report.refuse(source.path, REMEDY)
    _refuse_nothing(source.path, report, spec, seen)


def _block(
    spec: SynapseList,
    source: Source,
    table: pa.Table,
    first: int,
    names: Names,
    report: Report,
    seen: Seen,
) -> tuple[pa.Table, pa.Table]:
    row = np.arange(first, first + table.num_rows, dtype=np.uint64)
    keep = _wanted(spec, table, seen)
    report.rows += table.num_rows
    if keep is not None:
        table, row = table.filter(pa.array(keep)), row[keep]
        if not spec.matrix:
            report.left_out += int((~keep).sum())
    columns, faults = _typed(spec, source.path, table, names, report)
    bad = np.zeros(len(row), bool)
    for f in faults:
        bad |= f.rows
    rejected = _rejected(faults, table, row, report)
    rows = pa.table([row, *(columns[f.name] for f in list(LISTED_SYNAPSE.arrow())[1:])], schema=LISTED_SYNAPSE.arrow())
    if bad.any():
        rows = rows.filter(pa.array(~bad))
    report.rejected += int(bad.sum())
    report.kept += rows.num_rows
    report.synapses += pc.sum(rows["synapses"]).as_py() or 0
    return rows, rejected


def _wanted(spec: SynapseList, table: pa.Table, seen: Seen) -> Mask | None:
    """Rows that `where` and the cells of a matrix leave; None: all."""
    keep = np.ones(table.num_rows, bool) if spec.where or spec.matrix else None
    for column, value in spec.where.items():
        text = as_text(table[column])
        if len(seen[column]) < SEEN:
            seen[column] |= {str(v) for v in pc.unique(text.drop_null()).to_pylist()[:SEEN]}
        keep &= np.asarray(pc.fill_null(pc.equal(text, value.strip()), False))
    if spec.matrix:
        keep &= np.asarray(present(table["value"]))
    return keep


def _typed(
    spec: SynapseList, path: Path, table: pa.Table, names: Names, report: Report
) -> tuple[dict[str, Any], list[Fault]]:
    """The columns of `listed_synapse` but its key, and what is wrong with them."""
    n = table.num_rows
    columns: dict[str, Any] = {}
    faults: list[Fault] = []
    for side, column in (("pre", spec.pre), ("post", spec.post)):
        try:
            found = names.resolve(column, table[column])
        except SourceError as e:
            raise SourceError(f"{path}: {e}") from e
        columns[side], columns[f"{side}_name"] = found.ids, found.names
        faults += [Fault(column, reason, mask) for reason, mask in found.faults]
        for what, count in found.notes.items():
            report.notes[f"column {column!r}: {what}"] += count
    columns["synapses"] = np.ones(n, np.int64)
    if spec.weight:
        columns["synapses"], wrong = weights(spec.weight, table[spec.weight])
        faults += wrong
    columns["source_id"] = pa.nulls(n, pa.string())
    if spec.synapse:
        columns["source_id"], wrong = own_names(spec.synapse, table[spec.synapse])
        faults += wrong
    for name, measured in (("size", spec.size), ("confidence", spec.confidence)):
        columns[name] = pa.nulls(n, pa.float64())
        if measured:
            values, wrong = numbers(measured, table[measured])
            columns[name] = pa.array(values, from_pandas=True)
            faults += wrong
    columns["roi"] = labels(table[spec.roi]) if spec.roi else pa.nulls(n, pa.string())
    columns |= {f"{axis}_vx": pa.nulls(n, pa.float64()) for axis in "zyx"}
    if spec.position:
        where, wrong = places(spec.position, table, NM_PER.get(spec.unit or "", 1.0))
        columns |= {f"{axis}_vx": pa.array(v, from_pandas=True) for axis, v in where.items()}
        faults += wrong
    return columns, faults


def _rejected(faults: Sequence[Fault], table: pa.Table, row: Any, report: Report) -> pa.Table:
    """Rows of `rejected_row`: of each (row, column), its first fault."""
    parts = []
    told: dict[str, Mask] = {}
    for f in faults:
        new = f.rows & ~told.get(f.column, np.zeros(len(row), bool))
        told[f.column] = new | told.get(f.column, np.zeros(len(row), bool))
        count = int(new.sum())
        if not count:
            continue
        text = as_text(table[f.column].filter(pa.array(new)))
        parts.append(
            pa.table(
                [row[new], [f.column] * count, pc.fill_null(text, ""), [f.reason] * count], schema=REJECTED_ROW.arrow()
            )
        )
        named = zip(row[new][:10].tolist(), pc.fill_null(text, "").slice(0, 10).to_pylist(), strict=True)
        report.fault(f.column, f.reason).add(named, count)
    if not parts:
        return REJECTED_ROW.arrow().empty_table()
    return pa.concat_tables(parts).sort_by([("row", "ascending"), ("column", "ascending")]).combine_chunks()


def _refuse_nothing(path: Path, report: Report, spec: SynapseList, seen: Seen) -> None:
    """Raise SourceError when no row is left to import."""
    if report.kept:
        return
    if report.rows and report.left_out == report.rows:
        column, value = next(iter(spec.where.items()))
        wanted = ", ".join(f"{c}={v}" for c, v in spec.where.items())
        raise SourceError(f"{path}: no row has {wanted}{nearest(value, seen[column])}")
    raise SourceError(f"{path}: has no row that can be imported ({report.rows:,} rows read)")


def annotation_rows(specs: Sequence[AnnotationList], root: Path) -> pa.Table:
    """Rows of `annotation` from all annotation lists, sorted by key; see `annotated.read`."""
    return annotated.read(specs, root)


def skeleton_rows(spec: SkeletonFolder | None, root: Path) -> pa.Table:
    """Rows of `skeleton_node`, sorted by key; none without a folder. Raises SourceError naming file and line."""
    return swc.read(spec, root)


def source_files(spec: SynapseList | AnnotationList | SkeletonFolder, root: Path) -> list[Path]:
    """Every file that a source is read from, in a fixed order. Raises SourceError for a folder without skeletons."""
    if isinstance(spec, SkeletonFolder):
        return swc.files(spec, root)
    extra = [spec.names] if isinstance(spec, SynapseList) and spec.names else []
    return [(root / name).resolve() for name in (spec.file, *extra)]


def sha256_of(path: Path) -> str:
    """The digest of a file."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def source_facts(
    spec: SynapseList | AnnotationList | SkeletonFolder, root: Path, *, sha256: Callable[[Path], str] = sha256_of
) -> dict[str, Any]:
    """What a record says of a source: its path, bytes and digest, the columns used, and its origin as far as known.

    A folder's digest is that of the lines `sha256  name` of its files, sorted by name.
    """
    facts: dict[str, Any] = spec.model_dump(mode="json")
    if isinstance(spec, SkeletonFolder):
        files = swc.files(spec, root)
        lines = "".join(f"{sha256(f)}  {f.name}\n" for f in files)
        size = sum(f.stat().st_size for f in files)
        return {**facts, "files": len(files), "bytes": size, "sha256": hashlib.sha256(lines.encode()).hexdigest()}
    path = (root / spec.file).resolve()
    facts |= {"bytes": path.stat().st_size, "sha256": sha256(path)}
    if isinstance(spec, AnnotationList):
        return facts | annotated.facts(spec, root)
    if spec.names:
        facts["names_sha256"] = sha256((root / spec.names).resolve())
    return facts | {"columns": columns_of(spec)}

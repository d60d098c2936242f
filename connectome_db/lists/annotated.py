"""Tables that say something about neurons -> rows (neuron, kind, value)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from connectome_db.errors import SourceError
from connectome_db.lists.files import Source, open_source
from connectome_db.lists.names import Mask, Names
from connectome_db.lists.report import Report
from connectome_db.lists.specs import AnnotationList
from connectome_db.lists.values import labels
from connectome_db.schema.imported import ANNOTATION

BLOCK_ROWS = 1 << 18
REMEDY = "Correct the file, or leave these rows out by --set-aside: record.json then lists them."
ROI_INFO = "roiInfo"
"""neuPrint's column of counts per region, in JSON; its regions become annotations of the kind `roi`."""


def open_annotations(spec: AnnotationList, root: Path) -> tuple[Source, tuple[str, ...]]:
    """The file, and the columns that are kinds of annotation. Raises SourceError."""
    path = (root / spec.file).resolve()
    is_graph = path.name.lower().endswith(".graphml")
    source = open_source(path, spec.sheet or ("nodes" if is_graph else None))
    source.need([spec.neuron, *spec.columns])
    return source, spec.columns or tuple(c for c in source.columns if c != spec.neuron)


def read(specs: Sequence[AnnotationList], root: Path) -> pa.Table:
    """Rows of `annotation`, sorted by key. What two files say alike is kept once, of the first of them.

    Empty values make no row. A neuron of which nothing is said has one row, whose kind is the column of the neuron and
    whose value is its name there. Raises SourceError that names the rows whose neuron cannot be used.
    """
    parts = [part for spec in specs for part in _read(spec, root, Report())]
    table = pa.concat_tables(parts) if parts else ANNOTATION.arrow().empty_table()
    order = pa.array(np.arange(table.num_rows))
    key = [("neuron", "ascending"), ("kind", "ascending"), ("value", "ascending"), ("order", "ascending")]
    table = table.append_column("order", order).sort_by(key).drop_columns("order").combine_chunks()
    if table.num_rows < 2:
        return table
    before, after = table.slice(0, table.num_rows - 1), table.slice(1)
    same = np.ones(table.num_rows - 1, bool)
    for name in ("neuron", "kind", "value"):
        same &= np.asarray(pc.equal(after[name], before[name]))
    return table.filter(pa.array(np.append(True, ~same))).combine_chunks()


def facts(spec: AnnotationList, root: Path) -> dict[str, Any]:
    """What a record says besides the file's digest: the columns used, and the rows that were set aside."""
    _, kinds = open_annotations(spec, root)
    report = Report()
    if spec.set_aside:
        list(_read(spec, root, report))
    told = {"set_aside_rows": report.rejected, "set_aside_reasons": report.lines()} if report.rejected else {}
    return {"columns": [spec.neuron, *kinds]} | told


def check(spec: AnnotationList, root: Path) -> Report:
    """Read a list to the end: how many rows and annotations (`kept`) it has. Raises SourceError as `read` does."""
    report = Report()
    report.kept = sum(part.num_rows for part in _read(spec, root, report))
    return report


def _read(spec: AnnotationList, root: Path, report: Report) -> list[pa.Table]:
    source, kinds = open_annotations(spec, root)
    names = Names(mixed=spec.mixed_names)
    parts: list[pa.Table] = []
    for table in source.blocks([spec.neuron, *kinds], BLOCK_ROWS):
        try:
            found = names.resolve(spec.neuron, table[spec.neuron])
        except SourceError as e:
            raise SourceError(f"{source.path}: {e}") from e
        bad = np.zeros(table.num_rows, bool)
        written = labels(table[spec.neuron])
        for reason, mask in found.faults:
            bad |= mask
            some = np.flatnonzero(mask)
            rows = [(report.rows + k + 1, written[k].as_py() or "") for k in some[:10].tolist()]
            report.fault(spec.neuron, reason).add(rows, len(some))
        report.rows += table.num_rows
        report.rejected += int(bad.sum())
        said = np.zeros(table.num_rows, bool)
        for kind in kinds:
            values = labels(table[kind])
            here = np.asarray(pc.is_valid(values)) & ~bad
            said |= here
            parts.append(_rows(found.ids, found.names, here, kind, values, spec.file))
            if kind == ROI_INFO:
                parts.append(_regions(found.ids, found.names, here, values, spec.file, source.path))
        parts.append(_rows(found.ids, found.names, ~said & ~bad, spec.neuron, written, spec.file))
    if not spec.set_aside:
        report.refuse(source.path, REMEDY)
    return parts


def _rows(ids: Any, names: pa.Array, here: Mask, kind: str, values: pa.ChunkedArray, file: str) -> pa.Table:
    n = int(here.sum())
    mask = pa.array(here)
    columns = [ids[here], pa.array([kind]).take(pa.array(np.zeros(n, np.int64))), values.filter(mask)]
    source = pa.array([Path(file).name]).take(pa.array(np.zeros(n, np.int64)))
    return pa.table([*columns, source, names.filter(mask)], schema=ANNOTATION.arrow())


def _regions(ids: Any, names: pa.Array, here: Mask, values: pa.ChunkedArray, file: str, path: Path) -> pa.Table:
    """The regions that `roiInfo` names, as annotations of the kind `roi`."""
    index: list[int] = []
    regions: list[str] = []
    for k in np.flatnonzero(here).tolist():
        try:
            info = json.loads(values[k].as_py())
        except json.JSONDecodeError as e:
            raise SourceError(f"{path}: column {ROI_INFO!r} of neuron {ids[k]} is not valid JSON: {e}") from e
        for region in info if isinstance(info, dict) else ():
            index.append(k)
            regions.append(region)
    every = np.ones(len(index), bool)
    chosen = names.take(pa.array(index, pa.int64()))
    return _rows(
        ids[np.asarray(index, np.int64)], chosen, every, "roi", pa.chunked_array([pa.array(regions, pa.string())]), file
    )

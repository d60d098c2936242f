"""The imported lists of a project as raw inputs: `raw.synapses` and its kin, in parts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from connectome_db import ids, rawlists, synapselists
from connectome_db.codedigest import code_digest
from connectome_db.config import Project
from connectome_db.errors import RunError
from connectome_db.parts import Parts
from connectome_db.provenance import digest
from connectome_db.rawlists import Batch, Decoded, Kind
from connectome_db.schema.imported import ANNOTATION, LISTED_SYNAPSE, REJECTED_ROW, SKELETON_NODE
from connectome_db.spec import ANNOTATIONS, LISTED, REJECTED, SKELETONS, Table

_SYNAPSES = {LISTED: Kind(LISTED_SYNAPSE, "synapse"), REJECTED: Kind(REJECTED_ROW, "row")}


@dataclass(frozen=True)
class Listed:
    """One raw input of an imported project: its parts, and their rows. Part `k` is the k-th block of rows."""

    name: str
    table: Table
    decoded: Decoded
    parts: Parts

    def read(self, codes: npt.NDArray[np.uint64]) -> pa.Table:
        """Rows of the parts with these codes, in the order of the source."""
        found = np.searchsorted(self.parts.codes, codes).tolist()
        blocks = [self.decoded.read(self.name, k) for k in found]
        return pa.concat_tables(blocks) if blocks else self.table.arrow().empty_table()


def open_list(project: Project, name: str) -> Listed:
    """A raw input of a project, decoded now if it was not yet. Raises SourceError for a list that cannot be read."""
    if name in _SYNAPSES:
        rows = int(getattr(project.params["listing"], "block_rows", 1 << 20))
        found = _synapses(project, rows)
        return Listed(name, _SYNAPSES[name].table, found, _parts(found, name, rows))
    table = {ANNOTATIONS: ANNOTATION, SKELETONS: SKELETON_NODE}[name]
    found = _apart(project, name, table)
    return Listed(name, table, found, _parts(found, name, 1))


def _parts(found: Decoded, name: str, step: int) -> Parts:
    n = len(found.digests(name))
    k = np.arange(n, dtype=np.int64)
    zero, one = np.zeros_like(k), np.ones_like(k)
    boxes = np.stack([k * step, zero, zero, (k + 1) * step, one, one], axis=1)
    return Parts(ids.pack(np.stack([k, zero, zero], axis=1)), boxes, found.digests(name))


def _synapses(project: Project, block_rows: int) -> Decoded:
    spec = project.dataset.synapses
    if spec is None:
        raise RunError("params.yaml: dataset.synapses: is missing: it says which list is imported, with which columns")
    files = [(project.root / spec.file).resolve()]
    key = digest("list", [
        rawlists.source_digest(files, project.state), spec.model_dump(mode="json", exclude={"file"}),
        block_rows, list(project.voxel_nm), code_digest("synapselists"),
    ])  # fmt: skip

    def batches() -> Iterator[Batch]:
        rows = synapselists.read_list(spec, project.root)
        yield {LISTED: rows, REJECTED: REJECTED_ROW.arrow().empty_table()}

    return rawlists.decoded(project.state, key, _SYNAPSES, batches, block_rows)


def _apart(project: Project, name: str, table: Table) -> Decoded:
    key = digest("list", [name, "none"])

    def batches() -> Iterable[Batch]:
        yield {name: table.arrow().empty_table()}

    return rawlists.decoded(project.state, key, {name: Kind(table)}, batches, None)


def source_files(project: Project) -> list[Path]:
    """Every file that the lists of a project are read from."""
    spec = project.dataset.synapses
    return [(project.root / spec.file).resolve()] if spec else []

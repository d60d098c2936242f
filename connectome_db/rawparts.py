"""The imported lists of a project as raw inputs: `raw.synapses` and its kin, in parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from connectome_db import ids, rawlists
from connectome_db.codedigest import code_digest
from connectome_db.config import Project
from connectome_db.errors import RunError
from connectome_db.lists import read
from connectome_db.lists.specs import AnnotationList, Origin, SkeletonFolder, SynapseList
from connectome_db.parts import Parts
from connectome_db.provenance import digest
from connectome_db.rawlists import Batch, Decoded, Kind
from connectome_db.schema.imported import ANNOTATION, LISTED_SYNAPSE, REJECTED_ROW, SKELETON_NODE
from connectome_db.spec import ANNOTATIONS, LISTED, REJECTED, SKELETONS, Table

Spec = SynapseList | AnnotationList | SkeletonFolder
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


def _key(project: Project, specs: Sequence[Spec], *more: object) -> str:
    """Digest of everything that decides the rows: the files' bytes, what is read from them, and the code that does."""
    files = [f for spec in specs for f in read.source_files(spec, project.root)]
    said = [spec.model_dump(mode="json", exclude={"file", "folder", *Origin.model_fields}) for spec in specs]
    known = rawlists.source_digest(files, project.state)
    return digest("list", [known, said, list(more), code_digest("lists.read")])


def _synapses(project: Project, block_rows: int) -> Decoded:
    spec = project.dataset.synapses
    if spec is None:
        raise RunError("params.yaml: dataset.synapses: is missing: it says which list is imported, with which columns")

    def batches() -> Iterator[Batch]:
        for rows, rejected in read.batches(spec, project.root):
            yield {LISTED: rows, REJECTED: rejected}

    return rawlists.decoded(project.state, _key(project, [spec], block_rows), _SYNAPSES, batches, block_rows)


def _apart(project: Project, name: str, table: Table) -> Decoded:
    """Annotations or skeletons: one block, without rows where the project has none."""
    specs = _specs(project, name)

    def batches() -> Iterator[Batch]:
        if name == ANNOTATIONS:
            yield {name: read.annotation_rows(project.dataset.annotations, project.root)}
        else:
            yield {name: read.skeleton_rows(project.dataset.skeletons, project.root)}

    return rawlists.decoded(project.state, _key(project, specs, name), {name: Kind(table)}, batches, None)


def _specs(project: Project, name: str) -> list[Spec]:
    """What params.yaml says of the files of a raw input."""
    d = project.dataset
    if name == ANNOTATIONS:
        return list(d.annotations)
    one = d.skeletons if name == SKELETONS else d.synapses
    return [one] if one is not None else []


def source_facts(project: Project, inputs: Sequence[str]) -> dict[str, Any]:
    """What record.json says of the files behind the inputs of a stage: "source" of a list, "sources" of the others."""
    found: dict[str, Any] = {}
    for name in (LISTED, ANNOTATIONS, SKELETONS):
        if name not in inputs:
            continue
        facts = [
            read.source_facts(spec, project.root, sha256=lambda path: rawlists.file_sha256(path, project.state))
            for spec in _specs(project, name)
        ]
        found |= {"source": facts[0]} if name == LISTED and facts else {"sources": facts}
    return found

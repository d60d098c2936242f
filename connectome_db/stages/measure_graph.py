"""measure_graph: the quality of objects and of the graph, by cell of the volume.

Tables alone are read, no voxels: the whole volume of a supervoxel counts in the cell that its centroid lies in.
Supervoxels are small against a cell, so this blurs the cells' borders a little and loses nothing; "tissue" here is what
has a supervoxel. An object counts in each cell by the share of its volume that lies there, so that it counts 1 in all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from connectome_db import plans
from connectome_db.errors import StageError
from connectome_db.kernels.cells import Cells
from connectome_db.kernels.quality_rows import quality_rows
from connectome_db.kernels.union_find import locate
from connectome_db.schema.quality import QUALITY_GRAPH
from connectome_db.spec import Block, Found, Params, Plan, Result, Rows, Stage

SUPERVOXEL, MEMBER, OBJECT = "segment.supervoxel", "agglomerate.member", "agglomerate.object"
BORDERLINE, SYNAPSE = "agglomerate.borderline", "synapses.synapse"
LINK, NEURON = "graph.link", "graph.neuron"

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
Bool = npt.NDArray[np.bool_]
Extent = Annotated[int, Field(ge=1)]


class MeasureGraphParams(Params):
    """Parameters of `measure_graph`."""

    cell_vx: tuple[Extent, Extent, Extent] = (8, 64, 64)
    """Voxels (z, y, x) of a cell, on the lattice of the origin; equal to measure_volume.cell_vx."""
    orphan_um3: Annotated[float, Field(ge=0)] = 0.01
    """An object below this volume that ends inside the volume and has no counted synapse is an orphan."""
    min_tissue: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Cells in which supervoxels fill less than this part have no values."""


def plan(found: Found, params: MeasureGraphParams) -> Plan:  # noqa: ARG001  # the signature of every plan
    """One unit that reads all of the tables."""
    whole = plans.once(found.inputs[SUPERVOXEL].bounds)
    names = (SUPERVOXEL, MEMBER, OBJECT, BORDERLINE, SYNAPSE, LINK, NEURON)
    return plans.reading(whole, *((name, None) for name in names))


@dataclass(frozen=True)
class _Tissue:
    """Supervoxels (n) with the cell of their centroid, their volume and the row of their object; objects (m)."""

    cells: Cells
    place_vx: F64
    cell: I64
    um3: F64
    owner: I64
    objects: U64
    object_um3: F64
    touches: Bool

    def total(self, of_object: F64) -> F64:
        """Sum over supervoxels of volume times a value (m,) of their object, per cell."""
        return self.cells.tally(self.cell, self.um3 * of_object[self.owner])

    def centre_vx(self) -> F64:
        """Centroid (m, 3) of each object, weighted by volume."""
        n = len(self.objects)
        sums = [np.bincount(self.owner, self.um3 * self.place_vx[:, k], n) for k in range(3)]
        return np.stack(sums, axis=1) / np.bincount(self.owner, self.um3, n)[:, None]


def compute(block: Block[MeasureGraphParams]) -> Result:
    """The values of all cells."""
    tissue = _read(block)
    boxes = tissue.cells.boxes()
    um3 = tissue.cells.tally(tissue.cell, tissue.um3)
    cell_um3 = np.prod(boxes[:, 3:] - boxes[:, :3], axis=1) * _voxel_um3(block)
    um3 = np.where(um3 >= block.params.min_tissue * cell_um3, um3, 0.0)
    values = [
        (name, boxes, value, np.where(um3 > 0, weight, 0.0))
        for name, value, weight in (*_objects(block, tissue, um3), *_wiring(block, tissue, um3))
    ]
    return {"quality_graph": quality_rows(values, block.voxel_nm, QUALITY_GRAPH.arrow())}


def _voxel_um3(block: Block[MeasureGraphParams]) -> float:
    return float(np.prod(block.voxel_nm)) * 1e-9


def _read(block: Block[MeasureGraphParams]) -> _Tissue:
    atoms = block.tables[SUPERVOXEL].sort_by("supervoxel")
    member = block.tables[MEMBER].sort_by("supervoxel")
    objects = block.tables[OBJECT].sort_by("object")
    names: U64 = objects["object"].to_numpy()
    try:
        of_member = locate(member["supervoxel"].to_numpy(), atoms["supervoxel"].to_numpy(), "supervoxel")
        owner = locate(names, member["object"].to_numpy()[of_member], "object")
    except KeyError as error:
        raise StageError(f"agglomerate does not fit segment: {error.args[0]}; run agglomerate again") from error
    cells = Cells(block.unit.core, block.params.cell_vx)
    place = np.stack([atoms[f"{axis}_vx"].to_numpy() for axis in "zyx"], axis=1)
    um3 = atoms["size_vx"].to_numpy() * _voxel_um3(block)
    return _Tissue(
        cells=cells,
        place_vx=place,
        cell=cells.of(place),
        um3=um3,
        owner=owner,
        objects=names,
        object_um3=np.bincount(owner, um3, len(names)).astype(np.float64),
        touches=objects["touches_border"].to_numpy(zero_copy_only=False),
    )


def _objects(block: Block[MeasureGraphParams], tissue: _Tissue, um3: F64) -> Iterator[tuple[str, F64, F64]]:
    """Objects: how many, how large, and how many of them end nowhere."""
    volume = tissue.object_um3
    yield "object_density", _share(tissue.total(1.0 / volume), um3), um3
    yield "object_size", _share(tissue.total(np.log10(volume)), um3), um3
    link = block.tables[LINK].filter(block.tables[LINK]["counted"])
    wired = np.isin(tissue.objects, np.concatenate([link[side].to_numpy() for side in ("pre", "post")]))
    orphan = ~tissue.touches & ~wired & (volume < block.params.orphan_um3)
    yield "orphan_fraction", _share(tissue.total(orphan.astype(np.float64)), um3), um3
    pairs = block.tables[BORDERLINE]
    a, b = (locate(tissue.objects, pairs[side].to_numpy(), "object") for side in ("a", "b"))
    smaller = np.where(volume[b] < volume[a], b, a)
    place = tissue.cells.of(tissue.centre_vx()[smaller])
    yield "borderline", _share(tissue.cells.tally(place), um3), um3


def _wiring(block: Block[MeasureGraphParams], tissue: _Tissue, um3: F64) -> Iterator[tuple[str, F64, F64]]:
    """Synapses by whether they count, and the neurons that run through each cell."""
    cells = tissue.cells
    synapse = block.tables[SYNAPSE].sort_by("synapse")
    link = block.tables[LINK].sort_by("synapse")
    at = locate(synapse["synapse"].to_numpy(), link["synapse"].to_numpy(), "synapse")
    place = cells.of(np.stack([synapse[f"{axis}_vx"].to_numpy()[at] for axis in "zyx"], axis=1))
    counted = link["counted"].to_numpy(zero_copy_only=False)
    number, good = cells.tally(place), cells.tally(place[counted])
    yield "connection_density", _share(good, um3), um3
    yield "uncounted", _share(number - good, number), number
    neuron = block.tables[NEURON]
    row = locate(tissue.objects, neuron["neuron"].to_numpy(), "object")
    is_neuron, partners = np.zeros(len(tissue.objects)), np.zeros(len(tissue.objects))
    is_neuron[row] = 1.0
    partners[row] = neuron["partners_in"].to_numpy() + neuron["partners_out"].to_numpy()
    within = tissue.total(is_neuron)
    yield "degree", _share(tissue.total(partners), within), within
    yield "border_cut", _share(tissue.total(is_neuron * tissue.touches), um3), um3


def _share(part: F64, whole: F64) -> F64:
    """part / whole, NaN where there is no whole."""
    out = np.full(len(whole), np.nan)
    np.divide(part, whole, out=out, where=whole > 0)
    return out


STAGE = Stage(
    name="measure_graph",
    summary="Quality of the objects and of the graph, by cell.",
    params=MeasureGraphParams,
    inputs=(SUPERVOXEL, MEMBER, OBJECT, BORDERLINE, SYNAPSE, LINK, NEURON),
    outputs=(Rows(QUALITY_GRAPH),),
    plan=plan,
    compute=compute,
)

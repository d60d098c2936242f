"""Imported skeletons (SWC) -> their nodes, and one row per skeleton."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from connectome_db import plans
from connectome_db.schema.imported import SKELETON, SKELETON_NODE
from connectome_db.spec import SKELETONS, Block, Found, Params, Plan, Result, Rows, Stage


class SkeletonsParams(Params):
    """Parameters of `skeletons`: none; which files are read stands under `dataset`."""


def plan(found: Found, params: SkeletonsParams) -> Plan:  # noqa: ARG001  # the signature of every plan
    """One unit that reads all skeletons."""
    return plans.reading(plans.once(found.inputs[SKELETONS].bounds), (SKELETONS, None))


def compute(block: Block[SkeletonsParams]) -> Result:
    """The nodes as they stand in the files, and the length of each skeleton."""
    nodes = block.tables[SKELETONS].sort_by([("neuron", "ascending"), ("node", "ascending")]).combine_chunks()
    return {"skeleton_node": nodes, "skeleton": lengths(nodes)}


def lengths(nodes: pa.Table) -> pa.Table:
    """One row per neuron of `nodes`, which are sorted by (neuron, node)."""
    neuron = nodes["neuron"].to_numpy()
    first: npt.NDArray[np.int64] = np.flatnonzero(np.diff(neuron, prepend=neuron[:1] + np.uint64(1)))
    names = nodes["name"].take(pa.array(first))
    edge = _edge_nm(nodes)
    return pa.table(
        {
            "neuron": neuron[first],
            "nodes": np.diff(first, append=len(neuron)),
            "cable_nm": np.add.reduceat(edge, first) if len(first) else edge,
            "name": names,
        },
        schema=SKELETON.arrow(),
    )


def _edge_nm(nodes: pa.Table) -> npt.NDArray[np.float64]:
    """The distance of each node to its parent, float64[N]; 0 for roots and for parents that are not in the file."""
    neuron, node, parent = (nodes[n].to_numpy() for n in ("neuron", "node", "parent"))
    place = np.stack([nodes[f"{a}_nm"].to_numpy() for a in "zyx"], axis=1)
    _, dense = np.unique(neuron, return_inverse=True)
    low, span = (int(node.min()), int(node.max()) - int(node.min()) + 1) if len(node) else (0, 1)
    key = dense * span + (node - low)
    wanted = dense * span + (parent - low)
    at = np.minimum(np.searchsorted(key, wanted), max(len(key) - 1, 0))
    known = (parent >= low) & (parent < low + span)
    if len(key):
        known &= key[at] == wanted
    return np.where(known, np.sqrt(((place - place[at]) ** 2).sum(axis=1)), 0.0)


STAGE = Stage(
    name="skeletons",
    summary="Imported skeletons of neurons.",
    params=SkeletonsParams,
    inputs=(SKELETONS,),
    outputs=(Rows(table=SKELETON_NODE), Rows(table=SKELETON)),
    plan=plan,
    compute=compute,
)

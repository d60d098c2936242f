"""Synapses and objects -> neurons and connections.

Supervoxels are bound to objects here and not before, so that a change of the agglomeration redoes no synapse. Every
synapse has a row that says which connection it counts in, or why in none: its two sides are one object (autapse), or
it is another block's sight of the same cleft (duplicate).
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from connectome_db import plans
from connectome_db.errors import StageError
from connectome_db.kernels.duplicates import duplicates
from connectome_db.kernels.union_find import locate
from connectome_db.schema import companions
from connectome_db.schema.wiring import CONNECTION, LINK, NEURON
from connectome_db.spec import Array, Block, Found, Params, Plan, Result, Rows, Stage

SYNAPSE, MEMBER, OBJECT = "synapses.synapse", "agglomerate.member", "agglomerate.object"
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]


class GraphParams(Params):
    """Parameters of `graph`."""

    min_volume_nm3: Annotated[float, Field(ge=0)] = 1.0e7
    """Objects from this volume on are neurons even without a synapse."""
    duplicate_nm: Annotated[float, Field(ge=0)] = 200.0
    """Synapses of the same two objects that are closer than this are one."""
    min_confidence: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Synapses below this confidence are not counted."""


def plan(found: Found, params: GraphParams) -> Plan:  # noqa: ARG001  # the signature of every plan
    """One unit that reads all synapses, members and objects."""
    whole = plans.once(found.inputs[SYNAPSE].bounds)
    return plans.reading(whole, (SYNAPSE, None), (MEMBER, None), (OBJECT, None))


def compute(block: Block[GraphParams]) -> Result:
    """Links, neurons and connections."""
    params = block.params
    synapse = block.tables[SYNAPSE].sort_by("synapse")
    objects = block.tables[OBJECT].sort_by("object")
    member = block.tables[MEMBER].sort_by("supervoxel")
    pre, post = (_bind(member, synapse[f"{side}_supervoxel"].to_numpy()) for side in ("pre", "post"))
    names: U64 = synapse["synapse"].to_numpy()
    place = np.stack([synapse[f"{axis}_vx"].to_numpy() for axis in "zyx"], axis=1) * np.asarray(block.voxel_nm)
    size: I64 = synapse["size_vx"].to_numpy()
    repeats = duplicates(names, place, size, pre, post, params.duplicate_nm)
    reason = np.full(len(names), "counted", dtype=object)
    reason[synapse["confidence"].to_numpy() < params.min_confidence] = "low confidence"
    reason[repeats >= 0] = "duplicate"
    reason[pre == post] = "autapse"
    counted = reason == "counted"
    link = {
        "synapse": names,
        "pre": pre,
        "post": post,
        "counted": counted.astype(np.bool_),
        "reason": reason.tolist(),
        "duplicate_of": pa.array(names[np.maximum(repeats, 0)] if len(names) else names, mask=reason != "duplicate"),
    }
    counts = synapse.filter(pa.array(counted))
    return {
        "link": pa.table(link, schema=LINK.arrow()),
        "neuron": _neurons(objects, pre, post, counted.astype(np.bool_), params.min_volume_nm3),
        "connection": _connections(objects, pre[counted], post[counted], counts),
    }


def _bind(member: pa.Table, supervoxel: U64) -> U64:
    """The object of each supervoxel."""
    try:
        at = locate(member["supervoxel"].to_numpy(), supervoxel, "supervoxel")
    except KeyError as error:
        raise StageError(f"a synapse names a supervoxel that no object has: {error.args[0]}") from error
    return np.asarray(member["object"].to_numpy()[at], dtype=np.uint64)


def _neurons(objects: pa.Table, pre: U64, post: U64, counted: Array, min_volume_nm3: float) -> pa.Table:
    """Objects that are large, or that a synapse names (also one that does not count, so that its row has a target)."""
    names: U64 = objects["object"].to_numpy()
    keep = objects["volume_nm3"].to_numpy() >= min_volume_nm3
    keep |= np.isin(names, np.concatenate([pre, post]))
    kept = objects.filter(pa.array(keep))
    names = kept["object"].to_numpy()
    edges = np.unique(np.stack([pre[counted], post[counted]], axis=1), axis=0)
    return pa.table(
        {
            "neuron": names,
            "size_vx": kept["size_vx"],
            "volume_nm3": kept["volume_nm3"],
            "synapses_out": _count(names, pre[counted]),
            "synapses_in": _count(names, post[counted]),
            "partners_out": _count(names, edges[:, 0]),
            "partners_in": _count(names, edges[:, 1]),
            "touches_border": kept["touches_border"],
        },
        schema=NEURON.arrow(),
    )


def _count(names: U64, seen: U64) -> I64:
    """How often each of the ascending `names` is in `seen`."""
    return np.bincount(np.searchsorted(names, seen), minlength=len(names)).astype(np.int64)


def _connections(objects: pa.Table, pre: U64, post: U64, synapse: pa.Table) -> pa.Table:
    """One row per ordered pair of neurons with a counted synapse."""
    pairs, index = np.unique(np.stack([pre, post], axis=1), axis=0, return_inverse=True)
    index = index.ravel()
    n = len(pairs)
    count = np.bincount(index, minlength=n)
    names: U64 = objects["object"].to_numpy()
    weakest = objects["weakest_merge"].to_numpy()
    ends = [weakest[np.searchsorted(names, pairs[:, k])] for k in range(2)]
    return pa.table(
        {
            "pre": pairs[:, 0],
            "post": pairs[:, 1],
            "synapses": count.astype(np.int64),
            "size_vx": np.bincount(index, synapse["size_vx"].to_numpy(), n).astype(np.int64),
            "confidence": np.bincount(index, synapse["confidence"].to_numpy(), n) / np.maximum(count, 1),
            "weakest_merge": np.minimum(*ends),
        },
        schema=CONNECTION.arrow(),
    )


STAGE = Stage(
    name="graph",
    summary="Neurons and connections.",
    params=GraphParams,
    inputs=(SYNAPSE, MEMBER, OBJECT),
    outputs=(
        Rows(table=LINK, companions=companions.LINK),
        Rows(table=NEURON),
        Rows(table=CONNECTION, companions=companions.CONNECTION),
    ),
    plan=plan,
    compute=compute,
)

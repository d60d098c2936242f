"""Fragments -> objects: mean-affinity agglomeration, every merge a row with its score.

Supervoxels are collapsed to fragments, contacts that recur in several blocks are pooled by area, and pairs are merged
from the highest mean affinity down to the threshold (`kernels.merge`).

In a pipeline with `flood`, the mean affinity of a pair that `resegment` filled once more is moved towards the share of
the one that a filling from the other had. A low share says nothing where a filling did not even get back the body that
it began in.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from connectome_db import plans
from connectome_db.errors import StageError
from connectome_db.geometry import Box
from connectome_db.kernels.merge import Agglomeration, agglomerate, pool
from connectome_db.kernels.union_find import locate
from connectome_db.schema.segmentation import BORDERLINE, MEMBER, MERGE, OBJECT
from connectome_db.spec import NM3, Block, Found, Params, Plan, Read, Result, Rows, Stage

SUPERVOXEL, FRAGMENT, CONTACT = "segment.supervoxel", "reconcile.fragment", "score.contact"
RESEGMENTATION = "resegment.resegmentation"
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
Fraction = Annotated[float, Field(ge=0, le=1)]


class AgglomerateParams(Params):
    """Parameters of `agglomerate`."""

    threshold: Fraction = 0.45
    """Groups are merged while their mean affinity is at least this: raise it when objects merge wrongly."""
    dust_vx: Annotated[int, Field(ge=0)] = 500
    """Groups below this size are dust and join their best neighbour more easily."""
    dust_threshold: Fraction = 0.3
    """Mean affinity from which dust joins."""
    ambiguous: Fraction = 0.1
    """Pairs left apart whose score is less than this below the threshold are listed as borderline."""
    resegmented: Fraction = 0.7
    """In a pipeline with `resegment`: how far the score of a pair is moved to what that says of it; 0 goes by affinity
    alone, 1 by resegmentation alone where there is any."""
    resegmented_own: Fraction = 0.5
    """Resegmentation lowers a score only if both fillings have at least this share of the body they began in."""


def plan(found: Found, params: AgglomerateParams) -> Plan:  # noqa: ARG001  # the signature of every plan
    """One unit that reads all supervoxels, fragments and contacts."""
    whole = plans.once(found.inputs[SUPERVOXEL].bounds)
    return plans.reading(whole, (SUPERVOXEL, None), (FRAGMENT, None), (CONTACT, None))


def plan_flooded(found: Found, params: AgglomerateParams) -> Plan:
    """As `plan`, and all that was filled once more."""
    first = plan(found, params)
    return replace(first, reads=(*first.reads, Read(RESEGMENTATION, None)))


def compute(block: Block[AgglomerateParams]) -> Result:
    """Merges in order, members, objects and borderline pairs."""
    params = block.params
    atoms = block.tables[SUPERVOXEL].sort_by("supervoxel")
    names: U64 = atoms["supervoxel"].to_numpy()
    size: I64 = atoms["size_vx"].to_numpy()
    fragment = _fragments(block, names)
    # Nodes are fragments in ascending order of their names, so a lower node is a lower name.
    nodes, node = np.unique(fragment, return_inverse=True)
    node_size = _sum(node, size, len(nodes))
    contact = block.tables[CONTACT]
    area = contact["area_nm2"].to_numpy()
    ends = [node[_locate(names, contact[side].to_numpy(), "contact")] for side in ("a", "b")]
    low, high, area, weighted = pool(ends[0], ends[1], area, area * contact["affinity"].to_numpy())
    if RESEGMENTATION in block.tables:
        weighted = _weighed(low, high, area, weighted, block, names, node)
    done = agglomerate(
        node_size,
        low,
        high,
        area,
        weighted,
        threshold=params.threshold,
        dust_size=params.dust_vx,
        dust_threshold=min(params.dust_threshold, params.threshold),
    )
    group = done.group[node]
    member = {"supervoxel": names, "fragment": fragment, "object": nodes[group]}
    return {
        "merge": _merges(done, nodes),
        "member": pa.table(member, schema=MEMBER.arrow()),
        "object": _objects(atoms, group, done, nodes, block.unit.core, block.voxel_nm),
        "borderline": _borderline(done, nodes, params),
    }


def _fragments(block: Block[AgglomerateParams], names: U64) -> U64:
    """The fragment of each supervoxel."""
    rows = block.tables[FRAGMENT].sort_by("supervoxel")
    if not np.array_equal(rows["supervoxel"].to_numpy(), names):
        raise StageError(
            f"reconcile.fragment: wanted one row for each of the {len(names)} supervoxels, got {len(rows)} rows "
            "or other supervoxels; run reconcile again"
        )
    return np.asarray(rows["fragment"].to_numpy(), dtype=np.uint64)


def _weighed(
    low: I64, high: I64, area: F64, weighted: F64, block: Block[AgglomerateParams], names: U64, node: I64
) -> F64:
    """`weighted` of pooled pairs of nodes with the scores moved to what resegmentation says: the mean over the blocks
    that judged a pair."""
    params, rows = block.params, block.tables[RESEGMENTATION]
    ends = [node[_locate(names, rows[side].to_numpy(), "resegmentation")] for side in ("a", "b")]
    n = int(node.max(initial=0)) + 1
    known = low * n + high  # ascending, as the pairs are
    key = np.minimum(*ends) * n + np.maximum(*ends)
    at = np.minimum(np.searchsorted(known, key), max(len(known) - 1, 0))
    found = np.flatnonzero(known[at] == key) if len(known) else np.zeros(0, np.int64)  # not what is one node by now
    at = at[found]
    affinity = weighted[at] / area[at]
    got = np.maximum(rows["a_other"].to_numpy(), rows["b_other"].to_numpy())[found]
    own = np.minimum(rows["a_own"].to_numpy(), rows["b_own"].to_numpy())[found]
    counts = (got >= affinity) | (own >= params.resegmented_own)
    said = np.where(counts, got, affinity)
    times = np.bincount(at, minlength=len(known))
    moved = np.bincount(at, said - affinity, len(known)) / np.maximum(times, 1)
    return np.asarray(weighted + params.resegmented * moved * area, np.float64)


def _locate(names: U64, wanted: U64, table: str) -> I64:
    try:
        return locate(names, wanted, "supervoxel")
    except KeyError as error:
        raise StageError(f"{table} names a supervoxel that segment did not make: {error.args[0]}") from error


def _merges(done: Agglomeration, nodes: U64) -> pa.Table:
    return pa.table(
        {
            "a": nodes[done.kept],
            "b": nodes[done.joined],
            "score": done.score,
            "area_nm2": done.area,
            "rank": np.arange(len(done.kept), dtype=np.int64),
        },
        schema=MERGE.arrow(),
    )


def _borderline(done: Agglomeration, nodes: U64, params: AgglomerateParams) -> pa.Table:
    near = done.left_score >= params.threshold - params.ambiguous
    return pa.table(
        {
            "a": nodes[done.left_a[near]],
            "b": nodes[done.left_b[near]],
            "score": done.left_score[near],
            "area_nm2": done.left_area[near],
        },
        schema=BORDERLINE.arrow(),
    )


def _objects(atoms: pa.Table, group: I64, done: Agglomeration, nodes: U64, bounds: Box, voxel_nm: NM3) -> pa.Table:
    """One row per object; `group` is the lowest node of each supervoxel's object."""
    kept, index = np.unique(group, return_inverse=True)
    n = len(kept)
    size = _sum(index, atoms["size_vx"].to_numpy(), n)
    weakest = np.ones(len(nodes))
    np.minimum.at(weakest, done.group[done.kept], done.score)
    columns: dict[str, npt.NDArray[np.generic]] = {
        "object": nodes[kept],
        "supervoxels": np.bincount(index, minlength=n).astype(np.int64),
        "fragments": np.bincount(done.group, minlength=len(nodes))[kept].astype(np.int64),
        "size_vx": size,
        "volume_nm3": size * float(np.prod(voxel_nm)),
        "weakest_merge": weakest[kept],
    }
    touches = np.zeros(n, np.bool_)
    for k, axis in enumerate("zyx"):
        low = np.full(n, np.iinfo(np.int32).max, np.int64)
        high = np.full(n, np.iinfo(np.int32).min, np.int64)
        np.minimum.at(low, index, atoms[f"{axis}0_vx"].to_numpy())
        np.maximum.at(high, index, atoms[f"{axis}1_vx"].to_numpy())
        touches |= (low <= bounds.lo[k]) | (high >= bounds.hi[k])
        columns[f"{axis}0_vx"], columns[f"{axis}1_vx"] = low, high
    columns["touches_border"] = touches
    schema = OBJECT.arrow()
    return pa.table([pa.array(columns[name]).cast(schema.field(name).type) for name in schema.names], schema=schema)


def _sum(index: I64, values: I64, n: int) -> I64:
    """Exact sums of whole numbers per index (below 2**53)."""
    return np.bincount(index, values, n).astype(np.int64)


STAGE = Stage(
    name="agglomerate",
    summary="Fragments merged into objects by mean affinity.",
    params=AgglomerateParams,
    inputs=(SUPERVOXEL, FRAGMENT, CONTACT),
    outputs=(Rows(table=MERGE), Rows(table=MEMBER), Rows(table=OBJECT), Rows(table=BORDERLINE)),
    plan=plan,
    compute=compute,
)

FLOODED = replace(
    STAGE,
    summary="Fragments merged into objects by mean affinity and resegmentation.",
    inputs=(*STAGE.inputs, RESEGMENTATION),
    plan=plan_flooded,
)
"""The same stage in a pipeline that has `flood`."""

"""Imported lists -> neurons and connections, as stage `graph` of the imported pipeline.

A neuron named by a whole number keeps it as its id; any other name gets the first 62 bits of its SHA-256, so that a
neuron has one id in every list that calls it by the same name, and versions of a connectome can be compared. Works on
arrays throughout: a brain has 10^7 pairs and more.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from connectome_db import plans
from connectome_db.errors import StageError
from connectome_db.schema.companions import CONNECTION as ORDERS
from connectome_db.schema.imported import IMPORTED_CONNECTION, IMPORTED_NEURON, NEURON_NAME
from connectome_db.spec import Block, Found, Params, Plan, Result, Rows, Stage

EDGES, NAMES = "listing.listed_edge", "listing.listed_name"
SAID, SKELETON = "annotations.annotation", "skeletons.skeleton"
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]


class WiringParams(Params):
    """Parameters of `graph` for imported lists."""

    min_synapses: Annotated[int, Field(ge=1)] = 1
    """Connections of fewer synapses are left out (their rows stay in `link`, with the reason)."""


def plan(found: Found, params: WiringParams) -> Plan:  # noqa: ARG001  # the signature of every plan
    """One unit that reads the sums of all blocks, and which neurons are annotated or have a skeleton."""
    whole = plans.once(found.inputs[EDGES].bounds)
    return plans.reading(whole, *((name, None) for name in (EDGES, NAMES, SAID, SKELETON)))


def compute(block: Block[WiringParams]) -> Result:
    """Neurons, their names, and connections."""
    listed, apart = block.tables[EDGES], [block.tables[SAID], block.tables[SKELETON]]
    seen = [listed["pre"], listed["post"], *(t["neuron"] for t in apart)]
    neuron: U64 = np.unique(np.concatenate([pc.unique(column).to_numpy() for column in seen]))
    pre, post, total = sums(listed, neuron)
    strong = total >= block.params.min_synapses
    pre, post, total = pre[strong], post[strong], total[strong]
    n = len(neuron)
    return {
        "neuron": _table(
            IMPORTED_NEURON.arrow(),
            neuron=neuron,
            synapses_out=np.bincount(pre, total, n).astype(np.int64),
            synapses_in=np.bincount(post, total, n).astype(np.int64),
            partners_out=np.bincount(pre, minlength=n).astype(np.int64),
            partners_in=np.bincount(post, minlength=n).astype(np.int64),
        ),
        "neuron_name": _names(neuron, [block.tables[NAMES], *apart]),
        "connection": _table(IMPORTED_CONNECTION.arrow(), pre=neuron[pre], post=neuron[post], synapses=total),
    }


def sums(listed: pa.Table, neuron: U64) -> tuple[I64, I64, I64]:
    """Synapses per pair over all blocks: (index of pre, index of post, synapses), ascending; indices into `neuron`."""
    key = np.empty(listed.num_rows, dtype=np.uint64)
    at = 0
    for batch in listed.select(["pre", "post"]).to_batches():
        pre, post = (np.searchsorted(neuron, batch[c].to_numpy()).astype(np.uint64) for c in ("pre", "post"))
        key[at : at + batch.num_rows] = (pre << np.uint64(32)) | post
        at += batch.num_rows
    order = np.argsort(key, kind="stable")
    key = key[order]
    first = np.flatnonzero(np.diff(key, prepend=~key[:1]))
    total = np.add.reduceat(listed["synapses"].to_numpy()[order], first) if len(first) else np.zeros(0, np.int64)
    pairs = key[first]
    pre, post = (pairs >> np.uint64(32)).astype(np.int64), (pairs & np.uint64(0xFFFFFFFF)).astype(np.int64)
    return pre, post, total.astype(np.int64)


def _names(neuron: U64, tables: list[pa.Table]) -> pa.Table:
    """One name per neuron: that of a list, or its number. Raises StageError when two names share one id."""
    named = pa.concat_tables([t.select(["neuron", "name"]).cast(NAMED) for t in tables])
    named = named.filter(pc.is_valid(named["name"])).group_by(["neuron", "name"], use_threads=False).aggregate([])
    named = named.sort_by([("neuron", "ascending"), ("name", "ascending")]).combine_chunks()
    ids: U64 = named["neuron"].to_numpy()
    if len(ids) > 1 and (twice := ids[1:] == ids[:-1]).any():
        i = int(np.argmax(twice))
        a, b = named["name"][i].as_py(), named["name"][i + 1].as_py()
        raise StageError(f"neurons {a!r} and {b!r} would both have the id {ids[i]}; rename one")
    name = pa.array(neuron).cast(pa.string())
    if len(ids):
        has = np.isin(neuron, ids, assume_unique=True)
        name = pc.replace_with_mask(name, pa.array(has), named["name"].combine_chunks())
    return pa.table([pa.array(neuron), name], schema=NEURON_NAME.arrow())


NAMED = pa.schema([pa.field("neuron", pa.uint64()), pa.field("name", pa.string())])


def _table(schema: pa.Schema, **columns: npt.NDArray[np.generic]) -> pa.Table:
    """A table of `schema`; columns that the list does not say are null."""
    rows = len(columns[next(iter(columns))])
    return pa.table([columns[f.name] if f.name in columns else pa.nulls(rows, f.type) for f in schema], schema=schema)


STAGE = Stage(
    name="graph",
    summary="Neurons and connections of an imported list.",
    params=WiringParams,
    inputs=(EDGES, NAMES, SAID, SKELETON),
    outputs=(
        Rows(table=IMPORTED_NEURON),
        Rows(table=NEURON_NAME),
        Rows(table=IMPORTED_CONNECTION, companions=ORDERS),
    ),
    plan=plan,
    compute=compute,
)

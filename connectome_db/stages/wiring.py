"""An imported list of synapses -> neurons and connections, as stage `graph` of the imported pipeline.

A neuron named by a whole number keeps it as its id; any other name gets the first 62 bits of its SHA-256, so that a
neuron has one id in every list that calls it by the same name, and versions of a connectome can be compared.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from connectome_db import plans
from connectome_db.errors import StageError
from connectome_db.schema.imported import IMPORTED_CONNECTION, IMPORTED_LINK, IMPORTED_NEURON, NEURON_NAME
from connectome_db.spec import Block, Found, Params, Plan, Result, Rows, Stage

LISTED_ROWS = "listing.listed_synapse"
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]


class WiringParams(Params):
    """Parameters of `graph` for imported lists."""

    min_synapses: int = 1
    """Connections of fewer synapses are left out (their rows stay in `link`, with the reason)."""


def plan(found: Found, params: WiringParams) -> Plan:  # noqa: ARG001  # the signature of every plan
    """One unit that reads all rows."""
    return plans.reading(plans.once(found.inputs[LISTED_ROWS].bounds), (LISTED_ROWS, None))


def compute(block: Block[WiringParams]) -> Result:
    """Links, neurons, their names, and connections."""
    rows = block.tables[LISTED_ROWS].sort_by("synapse")
    names = pa.concat_arrays([rows[c].combine_chunks() for c in ("pre_name", "post_name")]).unique().to_pylist()
    known = neuron_ids(names)
    pre, post = (np.asarray([known[n] for n in rows[c].to_pylist()], np.uint64) for c in ("pre_name", "post_name"))
    weight: I64 = rows["synapses"].to_numpy()
    pairs, index = np.unique(np.stack([pre, post], axis=1), axis=0, return_inverse=True)
    index = index.ravel()
    total = np.bincount(index, weight, len(pairs)).astype(np.int64)
    strong = total >= block.params.min_synapses
    counted = strong[index]
    edges, total = pairs[strong], total[strong]
    neuron = np.asarray(sorted(known.values()), np.uint64)
    name_of = {i: n for n, i in known.items()}
    return {
        "link": _table(
            IMPORTED_LINK.arrow(),
            synapse=rows["synapse"],
            pre=pre,
            post=post,
            counted=counted,
            reason=np.where(counted, "counted", "too few synapses").tolist(),
        ),
        "neuron": _table(
            IMPORTED_NEURON.arrow(),
            neuron=neuron,
            synapses_out=_sum(neuron, edges[:, 0], total),
            synapses_in=_sum(neuron, edges[:, 1], total),
            partners_out=_sum(neuron, edges[:, 0], np.ones_like(total)),
            partners_in=_sum(neuron, edges[:, 1], np.ones_like(total)),
        ),
        "neuron_name": _table(NEURON_NAME.arrow(), neuron=neuron, name=[name_of[i] for i in neuron.tolist()]),
        "connection": _table(IMPORTED_CONNECTION.arrow(), pre=edges[:, 0], post=edges[:, 1], synapses=total),
    }


def neuron_ids(names: list[str]) -> dict[str, int]:
    """The id of each name. Raises StageError for a number that is no id, and when two names would share one."""
    found: dict[str, int] = {}
    owner: dict[int, str] = {}
    for name in names:
        if name.isascii() and name.isdigit():
            number = int(name)
            if not 0 < number < 1 << 63 or str(number) != name:
                raise StageError(
                    f"neuron {name!r}: wanted a whole number from 1 to 2**63 - 1 without leading zeros, or a name; "
                    "it would be another neuron if it were rounded"
                )
        else:
            digest = hashlib.sha256(b"neuron\0" + name.encode()).digest()
            number = int.from_bytes(digest[:8], "big") >> 2 or 1
        if owner.setdefault(number, name) != name:
            raise StageError(f"neurons {owner[number]!r} and {name!r} would both have the id {number}; rename one")
        found[name] = number
    return found


def _sum(neuron: U64, seen: U64, weight: I64) -> I64:
    """Sum of `weight` over the rows of each of the ascending `neuron`."""
    return np.bincount(np.searchsorted(neuron, seen), weight, len(neuron)).astype(np.int64)


def _table(schema: pa.Schema, **columns: object) -> pa.Table:
    """A table of `schema`; columns that the list does not say are null."""
    rows = len(columns[next(iter(columns))])  # type: ignore[arg-type]
    return pa.table([columns[f.name] if f.name in columns else pa.nulls(rows, f.type) for f in schema], schema=schema)


STAGE = Stage(
    name="graph",
    summary="Neurons and connections of an imported list.",
    params=WiringParams,
    inputs=(LISTED_ROWS,),
    outputs=(
        Rows(table=IMPORTED_LINK),
        Rows(table=IMPORTED_NEURON),
        Rows(table=NEURON_NAME),
        Rows(table=IMPORTED_CONNECTION),
    ),
    plan=plan,
    compute=compute,
)

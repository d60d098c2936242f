"""An imported list of synapses -> its rows as a table, and their sums by pair: the raw data of a connectome.

A unit is a block of rows of the list, in file order. `graph` reads the sums and never the wide rows.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from connectome_db import plans
from connectome_db.schema.companions import LISTED_SYNAPSE as ORDERS
from connectome_db.schema.imported import LISTED_EDGE, LISTED_NAME, LISTED_SYNAPSE, REJECTED_ROW
from connectome_db.spec import LISTED, REJECTED, Block, Found, Params, Plan, Result, Rows, Stage


class ListingParams(Params):
    """Parameters of `listing`; which file and columns are read stands under `dataset`."""

    block_rows: Annotated[int, Field(ge=1)] = 1 << 20
    """Rows of the list in one unit of work. Bounds the memory of a worker."""


def plan(found: Found, params: ListingParams) -> Plan:
    """One unit per block of rows; z of a box is a row of the list, counted from 0."""
    grid = plans.grid(found.inputs[LISTED].bounds, (params.block_rows, 1, 1))
    return plans.reading(grid, (LISTED, grid.cores), (REJECTED, grid.cores))


def compute(block: Block[ListingParams]) -> Result:
    """The rows as they stand in the list, those that were set aside, and the sums of the block."""
    rows = block.tables[LISTED]
    return {
        "listed_synapse": rows,
        "rejected_row": block.tables[REJECTED],
        "listed_edge": edges(rows),
        "listed_name": names(rows),
    }


def edges(rows: pa.Table) -> pa.Table:
    """Rows and synapses per pair of neurons, ascending by (pre, post)."""
    sums = rows.select(["pre", "post", "synapses"]).group_by(["pre", "post"], use_threads=False)
    found = sums.aggregate([("synapses", "count"), ("synapses", "sum")])
    table = pa.table([found[n] for n in ("pre", "post", "synapses_count", "synapses_sum")], schema=LISTED_EDGE.arrow())
    order = np.lexsort([table["post"].to_numpy(), table["pre"].to_numpy()])
    return table.take(pa.array(order))


def names(rows: pa.Table) -> pa.Table:
    """Neurons with a name that is not their number, each once."""
    sides = [rows.select([s, f"{s}_name"]).rename_columns(["neuron", "name"]) for s in ("pre", "post")]
    both = pa.concat_tables(sides)
    both = both.filter(pc.is_valid(both["name"]))
    found = both.group_by(["neuron", "name"], use_threads=False).aggregate([])
    return pa.table([found["neuron"], found["name"]], schema=LISTED_NAME.arrow())


STAGE = Stage(
    name="listing",
    summary="Rows of an imported list of synapses.",
    params=ListingParams,
    inputs=(LISTED, REJECTED),
    outputs=(
        Rows(table=LISTED_SYNAPSE, companions=ORDERS),
        Rows(table=REJECTED_ROW),
        Rows(table=LISTED_EDGE),
        Rows(table=LISTED_NAME),
    ),
    plan=plan,
    compute=compute,
)

"""An imported list of synapses -> its rows as a table: the raw data of a connectome made elsewhere."""

from __future__ import annotations

from connectome_db import plans
from connectome_db.schema.imported import LISTED_SYNAPSE
from connectome_db.spec import LISTED, Block, Found, Params, Plan, Result, Rows, Stage


class ListingParams(Params):
    """Parameters of `listing`: none; which file and columns are read stands under `dataset`."""


def plan(found: Found, params: ListingParams) -> Plan:  # noqa: ARG001  # the signature of every plan
    """One unit that reads the list."""
    return plans.reading(plans.once(found.inputs[LISTED].bounds), (LISTED, None))


def compute(block: Block[ListingParams]) -> Result:
    """The rows as they stand in the file."""
    return {"listed_synapse": block.tables[LISTED]}


STAGE = Stage(
    name="listing",
    summary="Rows of an imported list of synapses.",
    params=ListingParams,
    inputs=(LISTED,),
    outputs=(Rows(table=LISTED_SYNAPSE),),
    plan=plan,
    compute=compute,
)

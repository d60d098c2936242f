"""Imported lists of neurons -> what they say of each neuron, as a table."""

from __future__ import annotations

from connectome_db import plans
from connectome_db.schema.imported import ANNOTATION
from connectome_db.spec import ANNOTATIONS, Block, Found, Params, Plan, Result, Rows, Stage


class AnnotationsParams(Params):
    """Parameters of `annotations`: none; which files and columns are read stands under `dataset`."""


def plan(found: Found, params: AnnotationsParams) -> Plan:  # noqa: ARG001  # the signature of every plan
    """One unit that reads all lists."""
    return plans.reading(plans.once(found.inputs[ANNOTATIONS].bounds), (ANNOTATIONS, None))


def compute(block: Block[AnnotationsParams]) -> Result:
    """The rows as they stand in the lists; none for a connectome without annotations."""
    return {"annotation": block.tables[ANNOTATIONS]}


STAGE = Stage(
    name="annotations",
    summary="What imported lists say of neurons: types, classes, sides.",
    params=AnnotationsParams,
    inputs=(ANNOTATIONS,),
    outputs=(Rows(table=ANNOTATION),),
    plan=plan,
    compute=compute,
)

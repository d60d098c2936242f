"""Every table of the database, by the stage that makes it. A plain list: what is not here does not exist."""

from __future__ import annotations

from collections.abc import Mapping

from connectome_db.schema.alignment import (
    ALIGNMENT_RESIDUAL,
    IMAGE_PLANE,
    IMAGE_SOURCE,
    MASK_AREA,
    PAIR_AFFINE,
    SECTION_MATCH,
    SECTION_POSE,
    SECTION_TRANSFORM,
)
from connectome_db.schema.imaging import ILLUMINATION, TILE, TILE_ISSUE, TILE_MATCH, TILE_TRANSFORM
from connectome_db.schema.segmentation import (
    APRON,
    BORDERLINE,
    CONTACT,
    FRAGMENT,
    MEMBER,
    MERGE,
    OBJECT,
    OVERLAP,
    SUPERVOXEL,
)
from connectome_db.schema.wiring import CONNECTION, LINK, NEURON, SYNAPSE
from connectome_db.spec import Table

OUTPUTS: Mapping[str, tuple[Table, ...]] = {
    "ingest": (TILE, TILE_ISSUE),
    "montage": (TILE_MATCH, TILE_TRANSFORM, ILLUMINATION),
    "match": (PAIR_AFFINE, SECTION_MATCH),
    "align": (SECTION_TRANSFORM, ALIGNMENT_RESIDUAL, SECTION_POSE),
    "render": (IMAGE_PLANE, IMAGE_SOURCE),
    "mask": (MASK_AREA,),
    "segment": (SUPERVOXEL, APRON),
    "overlap": (OVERLAP,),
    "reconcile": (FRAGMENT,),
    "score": (CONTACT,),
    "agglomerate": (MERGE, MEMBER, OBJECT, BORDERLINE),
    "synapses": (SYNAPSE,),
    "graph": (LINK, NEURON, CONNECTION),
}
"""Stage name -> the tables it makes, in the order of the pipeline."""

STAGE_OF: Mapping[str, str] = {table.name: stage for stage, tables in OUTPUTS.items() for table in tables}
"""Table name -> the stage that makes it."""

TABLES: Mapping[str, Table] = {table.name: table for tables in OUTPUTS.values() for table in tables}
"""Table name -> its declaration."""

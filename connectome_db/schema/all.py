"""Every table of the database, by the stage that makes it. A plain list: what is not here does not exist."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from connectome_db.schema import quality_views
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
from connectome_db.schema.companions import sorted_tables
from connectome_db.schema.flooding import (
    FLOOD_APRON,
    FLOOD_BODY,
    FLOOD_OBJECT,
    FLOOD_OVERLAP,
    FLOOD_SKIP,
    RESEGMENTATION,
    SUPERVOXEL_BODY,
)
from connectome_db.schema.function import Function
from connectome_db.schema.graph_functions import GRAPH_FUNCTIONS
from connectome_db.schema.imaging import ILLUMINATION, TILE, TILE_ISSUE, TILE_MATCH, TILE_TRANSFORM
from connectome_db.schema.imported import (
    ANNOTATION,
    IMPORTED_CONNECTION,
    IMPORTED_LINK,
    IMPORTED_NEURON,
    IMPORTED_SYNAPSE,
    LISTED_EDGE,
    LISTED_NAME,
    LISTED_SYNAPSE,
    NEURON_NAME,
    REJECTED_ROW,
    SKELETON,
    SKELETON_NODE,
)
from connectome_db.schema.quality import FLAG, QUALITY_GRAPH, QUALITY_RAW, QUALITY_VOLUME
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
    "measure_raw": (QUALITY_RAW,),
    "measure_volume": (QUALITY_VOLUME,),
    "measure_graph": (QUALITY_GRAPH,),
    "flag": (FLAG,),
}
"""Stage name -> the tables it makes, in the order of the pipeline."""

FLOODED: Mapping[str, tuple[Table, ...]] = {
    "flood": (FLOOD_BODY, FLOOD_OBJECT, FLOOD_OVERLAP, FLOOD_SKIP, FLOOD_APRON),
    **OUTPUTS,
    "segment": (*OUTPUTS["segment"], SUPERVOXEL_BODY),
    "resegment": (RESEGMENTATION,),
}
"""The same for the pipeline with a flood-filling network."""

IMPORTED: Mapping[str, tuple[Table, ...]] = {
    "listing": (LISTED_SYNAPSE, REJECTED_ROW, LISTED_EDGE, LISTED_NAME),
    "annotations": (ANNOTATION,),
    "skeletons": (SKELETON_NODE, SKELETON),
    "graph": (IMPORTED_NEURON, NEURON_NAME, IMPORTED_CONNECTION),
}
"""The same for a connectome that was made elsewhere and imported as a list of synapses."""

IMPORTED_VIEWS: tuple[Table, ...] = (IMPORTED_SYNAPSE, IMPORTED_LINK)
"""Shown for an imported connectome as views of `listed_synapse`, so that what is asked of a reconstruction works."""


def outputs_of(stages: Collection[str]) -> Mapping[str, tuple[Table, ...]]:
    """The tables of the pipeline to which these stages belong."""
    return IMPORTED if "listing" in stages else FLOODED if "flood" in stages else OUTPUTS


STAGE_OF: Mapping[str, str] = {table.name: stage for stage, tables in OUTPUTS.items() for table in tables}
"""Table name -> the stage that makes it."""

TABLES: Mapping[str, Table] = {table.name: table for tables in OUTPUTS.values() for table in tables}
"""Table name -> its declaration."""

_MADE = (
    *TABLES.values(),
    *FLOODED["flood"],
    SUPERVOXEL_BODY,
    RESEGMENTATION,
    *(table for tables in IMPORTED.values() for table in tables),
)

SORTED: Mapping[str, Table] = {shown.name: shown for table in _MADE for _, shown in sorted_tables(table)}
"""Tables in another order (`connection_by_post`), of both pipelines."""

SCIENCE = frozenset({*(table.name for table in _MADE), *SORTED})
"""Names of the tables that stages make, of both pipelines; their views have the column `unit` in front."""

FUNCTIONS: Mapping[str, Function] = {**quality_views.FUNCTIONS, **GRAPH_FUNCTIONS}
"""Functions of SQL that the database has beside DuckDB's own, by name."""

DECLARED: Mapping[str, Table] = {**TABLES, **SORTED, **{name: f.table for name, f in FUNCTIONS.items()}}
"""What can stand in FROM, there yet or not -> its columns."""

READ_BY: Mapping[str, tuple[str, ...]] = {
    **{name: quality_views.READS[name] for name in quality_views.FUNCTIONS},
    **dict.fromkeys(GRAPH_FUNCTIONS, ("connection",)),
}
"""Function -> the tables of stages that it reads."""

"""The pipeline of a connectome made elsewhere: its lists, and the graph."""

from __future__ import annotations

from connectome_db.spec import AnyStage
from connectome_db.stages.annotations import STAGE as ANNOTATIONS
from connectome_db.stages.listing import STAGE as LISTING
from connectome_db.stages.skeletons import STAGE as SKELETONS
from connectome_db.stages.wiring import STAGE as GRAPH

STAGES: tuple[AnyStage, ...] = (LISTING, ANNOTATIONS, SKELETONS, GRAPH)

"""The pipeline: every stage, in order. A new stage is one file and one line here."""

from __future__ import annotations

from connectome_db.spec import AnyStage
from connectome_db.stages.agglomerate import STAGE as AGGLOMERATE
from connectome_db.stages.align import STAGE as ALIGN
from connectome_db.stages.flag import STAGE as FLAG
from connectome_db.stages.graph import STAGE as GRAPH
from connectome_db.stages.ingest import STAGE as INGEST
from connectome_db.stages.mask import STAGE as MASK
from connectome_db.stages.match import STAGE as MATCH
from connectome_db.stages.measure_graph import STAGE as MEASURE_GRAPH
from connectome_db.stages.measure_raw import STAGE as MEASURE_RAW
from connectome_db.stages.measure_volume import STAGE as MEASURE_VOLUME
from connectome_db.stages.montage import STAGE as MONTAGE
from connectome_db.stages.overlap import STAGE as OVERLAP
from connectome_db.stages.reconcile import STAGE as RECONCILE
from connectome_db.stages.render import STAGE as RENDER
from connectome_db.stages.score import STAGE as SCORE
from connectome_db.stages.segment import STAGE as SEGMENT
from connectome_db.stages.synapses import STAGE as SYNAPSES

STAGES: tuple[AnyStage, ...] = (
    INGEST,
    MONTAGE,
    MATCH,
    ALIGN,
    RENDER,
    MASK,
    SEGMENT,
    OVERLAP,
    RECONCILE,
    SCORE,
    AGGLOMERATE,
    SYNAPSES,
    GRAPH,
    MEASURE_RAW,
    MEASURE_VOLUME,
    MEASURE_GRAPH,
    FLAG,
)

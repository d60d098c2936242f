"""The pipeline with a flood-filling network: as the usual one, and `segment` starts from the bodies of `flood`, and
`agglomerate` weighs what `resegment` found."""

from __future__ import annotations

from connectome_db.spec import AnyStage
from connectome_db.stages.agglomerate import FLOODED as AGGLOMERATE
from connectome_db.stages.flood import STAGE as FLOOD
from connectome_db.stages.pipeline import STAGES as USUAL
from connectome_db.stages.resegment import STAGE as RESEGMENT
from connectome_db.stages.score import FLOODED as SCORE
from connectome_db.stages.segment import FLOODED as SEGMENT


def _stages() -> tuple[AnyStage, ...]:
    changed: dict[str, tuple[AnyStage, ...]] = {
        SEGMENT.name: (FLOOD, SEGMENT),
        SCORE.name: (SCORE, RESEGMENT),
        AGGLOMERATE.name: (AGGLOMERATE,),
    }
    return tuple(stage for usual in USUAL for stage in changed.get(usual.name, (usual,)))


STAGES: tuple[AnyStage, ...] = _stages()

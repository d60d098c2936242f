"""The pipeline with a flood-filling network: as the usual one, and `segment` starts from the bodies of `flood`."""

from __future__ import annotations

from connectome_db.spec import AnyStage
from connectome_db.stages.flood import STAGE as FLOOD
from connectome_db.stages.pipeline import STAGES as USUAL
from connectome_db.stages.segment import FLOODED as SEGMENT


def _stages() -> tuple[AnyStage, ...]:
    place = [stage.name for stage in USUAL].index(SEGMENT.name)
    return (*USUAL[:place], FLOOD, SEGMENT, *USUAL[place + 1 :])


STAGES: tuple[AnyStage, ...] = _stages()

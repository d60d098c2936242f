"""What stages that ask a flood-filling network share: how it is asked, and what it is shown."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from connectome_db.errors import StageError
from connectome_db.kernels.bridge import bridge
from connectome_db.kernels.flood_types import FloodOptions, Stepped
from connectome_db.kernels.local_contrast import equalise
from connectome_db.spec import Params, Window

Probability = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=0)]


class FillingParams(Params):
    """Parameters of all that a flood-filling network fills."""

    networks: ClassVar[tuple[str, ...]] = ("model",)

    model: str = "fib25-ffn"
    """Name of the flood-filling network."""
    step_vx: tuple[Count, Count, Count] = (0, 0, 0)
    """Step (z, y, x) from one window to the next; (0, 0, 0) is the network's own. Cost falls with its third power."""
    bridge_sections: Count = 2
    """Up to this many missing sections are filled with the nearest one, so that neurites go on; 0 = never."""
    equalise_px: Annotated[float, Field(ge=0)] = 0.0
    """Bring every neighbourhood of this size to the same contrast before the network sees it; 0 leaves the image as it
    is."""
    init_activation: Probability = 0.95
    """What the mask says at the seed."""
    pad_value: Probability = 0.05
    """What the mask says where no window has been."""
    move_threshold: Probability = 0.9
    """The window moves to a voxel of at least this: raise it when bodies merge."""
    segment_threshold: Probability = 0.6
    """Voxels of at least this belong to the body."""
    disco_seed_threshold: Annotated[float, Field(ge=-1, le=1)] = 0.0
    """Where more than this share of a window is active, a voxel that was background is not raised again; negative:
    never."""

    def options(self, **more: Any) -> FloodOptions:
        """The parameters as the engine takes them, with `more` of its own; contradictions are a StageError."""
        return FloodOptions(
            init_activation=self.init_activation,
            pad_value=self.pad_value,
            move_threshold=self.move_threshold,
            segment_threshold=self.segment_threshold,
            disco_seed_threshold=self.disco_seed_threshold,
            **more,
        )

    def stepped(self, network: Window, stage: str) -> Window:
        """The network with the step that is asked for; a step that is too wide for its window is a StageError."""
        if self.step_vx == (0, 0, 0):
            return network
        if any(not 0 <= step <= extent // 2 for step, extent in zip(self.step_vx, network.fov_vx, strict=True)):
            raise StageError(
                f"{stage}.step_vx {self.step_vx}: wanted at most half the window {network.fov_vx} of "
                f"{network.model_id} (z, y, x); (0, 0, 0) takes the network's own step"
            )
        return Stepped(network, self.step_vx)

    def shown(
        self, image: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8]
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
        """Image and mask classes, (z, y, x) -> the image as the network sees it, and what is tissue there."""
        image, tissue = bridge(image, mask, self.bridge_sections)
        return (equalise(image, self.equalise_px) if self.equalise_px else image), tissue

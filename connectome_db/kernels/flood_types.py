"""What `kernels.flood` takes and gives: options, and what became of each seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from connectome_db.errors import StageError
from connectome_db.geometry import Vec3
from connectome_db.spec import Window

Reason = Literal["complete", "limit", "weak", "hopeless", "small"]
Skip = Literal["border", "no_tissue", "taken", "close"]


@dataclass(frozen=True)
class Stepped:
    """A network that moves by another step."""

    network: Window
    deltas_vx: Vec3
    """Step (z, y, x)."""

    @property
    def model_id(self) -> str:
        """That of the network."""
        return self.network.model_id

    @property
    def fov_vx(self) -> Vec3:
        """That of the network."""
        return self.network.fov_vx

    @property
    def batch(self) -> int:
        """That of the network."""
        return self.network.batch

    def predict(self, images: npt.NDArray[np.uint8], masks: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """As the network does."""
        return self.network.predict(images, masks)


@dataclass(frozen=True)
class FloodOptions:
    """How objects are filled and kept; the defaults are those published for FIB-25. Probabilities within (0, 1)."""

    init_activation: float = 0.95
    """What the mask says at the seed."""
    pad_value: float = 0.05
    """What the mask says where no window has been."""
    move_threshold: float = 0.9
    """The window moves to a voxel of at least this; a seed that falls below it ends its object."""
    segment_threshold: float = 0.6
    """Voxels of at least this belong to the object."""
    disco_seed_threshold: float = 0.0
    """Where more than this share of a window is active, a voxel that was background (below 0.5) is not raised again;
    this splits what is only seen to be connected late. Negative: never."""
    min_boundary_dist_vx: Vec3 = (1, 1, 1)
    """A seed with an earlier object within this box (z, y, x) is not used."""
    min_segment_vx: int = 1000
    """Objects with fewer voxels of their own are dropped."""
    probe_moves: int = 0
    """After this many moves an object must have `probe_voxels`, or it is given up; 0 = never. Not in the published
    code."""
    probe_voxels: int = 0
    """See `probe_moves`."""
    max_moves: int = 0
    """An object is cut off after this many moves and kept as it is; 0 = never. Not in the published code."""

    def __post_init__(self) -> None:
        for name in ("init_activation", "pad_value", "move_threshold", "segment_threshold"):
            if not 0 < getattr(self, name) < 1:
                raise StageError(f"{name}: wanted a probability between 0 and 1, got {getattr(self, name)}")
        if self.init_activation < self.move_threshold:
            raise StageError(
                f"init_activation {self.init_activation}: wanted at least move_threshold {self.move_threshold}, or no "
                "object would make its first move; raise it or lower move_threshold"
            )
        if min(self.min_boundary_dist_vx) < 0:
            raise StageError(f"min_boundary_dist_vx: wanted three numbers from 0 on, got {self.min_boundary_dist_vx}")
        for name in ("min_segment_vx", "probe_moves", "probe_voxels", "max_moves"):
            if getattr(self, name) < 0:
                raise StageError(f"{name}: wanted a number from 0 on, got {getattr(self, name)}")


@dataclass(frozen=True)
class FloodObject:
    """What became of one seed at which the network was asked."""

    label: int
    """Its voxels in `Flooded.labels`; 0 if it was not kept."""
    seed: Vec3
    moves: int
    voxels: int
    """Voxels of its own; also of one that is too small to be kept. 0 if the seed was given up."""
    overlaps: tuple[tuple[int, int], ...]
    """(label of an earlier object, voxels that both claimed), by label; the earlier one has them."""
    reason: Reason
    """Why it stopped: no move is left ("complete"), `max_moves` ("limit"), the seed fell below the move threshold
    ("weak"), `probe_moves` ("hopeless"); "small" if it was complete and then dropped."""
    low: int
    """Moves not made because the voxel had fallen below the move threshold by then."""
    border: int
    """Moves not made because the window would have left the image."""
    no_tissue: int
    """Moves not made because there is no tissue."""
    taken: int
    """Moves not made because an earlier object is there."""


@dataclass
class Work:
    """What it cost. Depends on the batch and on nothing else that matters: no part of the result."""

    calls: int = 0
    """Calls of the network."""
    moves: int = 0
    """Rows that it answered."""
    redone: int = 0
    """Rows of fills that were thrown away because an earlier object came to lie there."""


@dataclass(frozen=True, eq=False)
class Flooded:
    """Labels and how each came about."""

    labels: npt.NDArray[np.uint32]
    """(z, y, x), 0 = no object; numbered in the order in which they were settled."""
    objects: tuple[FloodObject, ...]
    """In the order of their seeds, those that were not kept as well."""
    skipped: dict[Skip, int]
    """Seeds never tried: window beyond the image, no tissue, inside an earlier object, next to one."""
    work: Work

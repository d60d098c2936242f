"""The parts of an input: which exist, where, and what is in them as digests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from connectome_db.provenance import merkle


@dataclass(frozen=True)
class Parts:
    """The parts of one input: unit codes (ascending), boxes int64[P, 6] and content digests."""

    codes: npt.NDArray[np.uint64]
    boxes: npt.NDArray[np.int64]
    digests: tuple[str, ...]

    @property
    def merkle(self) -> str:
        """One digest for all of it."""
        return merkle(self.codes, self.digests)

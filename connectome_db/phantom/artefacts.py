"""Known artefacts: what can go wrong on purpose, and where it was put."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from connectome_db.errors import ConfigError

F32 = npt.NDArray[np.float32]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StainingGradient(_Frozen):
    """Poor staining in one corner of the tissue, in every section: membranes lose contrast towards it."""

    corner: tuple[int, int] = (1, 1)
    """0 or 1 for (y, x): (0, 0) is the top left corner."""
    reach: float = Field(default=0.5, gt=0, le=1)
    """Share of each edge over which it fades out."""
    strength: float = Field(default=0.75, ge=0, le=1)
    """Share of the contrast lost in the corner itself."""


class TileName(_Frozen):
    """One tile, by section number and place in the grid."""

    section: int
    row: int
    col: int


class Fold(_Frozen):
    """A straight fold: tissue of some width hidden under a dark line, both sides drawn together."""

    section: int
    offset_px: float = 30.0
    """Distance of its line from the window's centre."""
    angle_deg: float = 70.0
    """Direction of its normal, from the x axis."""
    width_px: float = Field(default=14.0, gt=0, le=60)
    """Width of hidden tissue."""
    softness_px: float = Field(default=5.0, gt=0)
    """Half width of the dark line."""


class Artefacts(_Frozen):
    """Which known artefacts to add; none by default. Sections are given by number."""

    staining: StainingGradient | None = None
    missing_tiles: tuple[TileName, ...] = ()
    """Listed in the manifest, absent on disk."""
    fold: Fold | None = None
    defocused_section: int | None = None
    defocus_px: float = Field(default=2.2, gt=0)
    """Standard deviation of the blur of the defocused section."""
    blank_section: int | None = None
    """A section imaged without tissue: empty resin."""

    def check(self, sections: tuple[int, int], grid: tuple[int, int]) -> None:
        """Raise ConfigError if an artefact names a section outside [first, last] or a tile outside the grid."""
        first, last = sections
        named = [self.defocused_section, self.blank_section, self.fold.section if self.fold else None]
        for section in [*named, *(tile.section for tile in self.missing_tiles)]:
            if section is not None and not first <= section <= last:
                raise ConfigError(f"artefact in section {section}: sections are {first} to {last}; name one of these")
        for tile in self.missing_tiles:
            if not (0 <= tile.row < grid[0] and 0 <= tile.col < grid[1]):
                raise ConfigError(f"missing tile {tile}: the grid has {grid[0]} rows and {grid[1]} columns from 0")


def stain_weight(gradient: StainingGradient, shape_yx: tuple[int, int]) -> F32:
    """(y, x) share of the contrast lost, smooth, `strength` in the corner and 0 beyond `reach`."""
    axes: list[npt.NDArray[np.float64]] = []
    for size, end in zip(shape_yx, gradient.corner, strict=True):
        away = np.arange(size) / max(1, size - 1)
        axes.append((1 - away if end else away) / gradient.reach)
    distance = np.sqrt(axes[0][:, None] ** 2 + axes[1] ** 2)
    ramp = np.clip(1 - distance, 0, 1)
    out: F32 = np.asarray(gradient.strength * ramp * ramp * (3 - 2 * ramp), np.float32)
    return out


def fade(plane: F32, weight: F32) -> F32:
    """Lose contrast by `weight` (y, x): grey values move towards their neighbourhood's mean."""
    mean: F32 = cv2.GaussianBlur(plane, (0, 0), 12.0)
    out: F32 = plane + weight * (mean - plane)
    return out


def stain_box(gradient: StainingGradient, shape_vx: tuple[int, int, int]) -> tuple[list[int], list[int]]:
    """Tissue box (lo, hi) in voxels (z, y, x) outside which the gradient does nothing."""
    lo, hi = [0], [shape_vx[0]]
    for size, end in zip(shape_vx[1:], gradient.corner, strict=True):
        span = int(np.ceil(gradient.reach * size))
        lo.append(max(0, size - span) if end else 0)
        hi.append(size if end else min(size, span))
    return lo, hi

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
    plateau: float = Field(default=0.0, ge=0, lt=1)
    """Share of the reach over which all of the strength is lost, before it fades out."""


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


class Area(_Frozen):
    """A part of the window, as shares of its height and width."""

    y: tuple[float, float] = (0.0, 1.0)
    """From, to."""
    x: tuple[float, float] = (0.0, 1.0)
    """From, to."""

    def box_px(self, shape_yx: tuple[int, int]) -> tuple[int, int, int, int]:
        """(y0, x0, y1, x1), half open."""
        (y0, y1), (x0, x1) = self.y, self.x
        height, width = shape_yx
        return round(y0 * height), round(x0 * width), round(y1 * height), round(x1 * width)


class _Run(_Frozen):
    """Something that happens in a run of sections."""

    sections: tuple[int, int]
    """First and last."""

    def holds(self, section: int) -> bool:
        """Whether a section is one of the run."""
        return self.sections[0] <= section <= self.sections[1]


class Session(_Run):
    """A run of sections imaged on a bad day: a weak, noisy beam."""

    contrast: float = Field(default=0.45, gt=0, le=1)
    """Share of the usual contrast."""
    noise_grey: float = Field(default=9.0, ge=0)
    """Standard deviation of the noise, in place of the usual one."""
    offset_grey: float = -20.0
    """Brightness moves by this."""


class Defocus(_Run):
    """Out of focus in part of a run of sections, with a soft rim."""

    sigma_px: float = Field(default=2.5, gt=0)
    """Standard deviation of the blur."""
    area: Area = Area()


class Wrinkles(_Run):
    """Tissue that was crumpled in part of a run of sections, each in its own way: nothing fits onto its neighbour."""

    amplitude_px: float = Field(default=7.0, gt=0)
    """Standard deviation of the displacement along each axis."""
    wavelength_px: float = Field(default=56.0, gt=8)
    """About the distance over which it changes its sign twice."""
    area: Area = Area()


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
    session: Session | None = None
    defocus: Defocus | None = None
    wrinkles: Wrinkles | None = None

    def check(self, sections: tuple[int, int], grid: tuple[int, int]) -> None:
        """Raise ConfigError if an artefact names a section outside [first, last] or a tile outside the grid."""
        first, last = sections
        named = [self.defocused_section, self.blank_section, self.fold.section if self.fold else None]
        runs = [n for run in (self.session, self.defocus, self.wrinkles) if run is not None for n in run.sections]
        for section in [*named, *runs, *(tile.section for tile in self.missing_tiles)]:
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
    ramp = np.clip((1 - distance) / (1 - gradient.plateau), 0, 1)
    out: F32 = np.asarray(gradient.strength * ramp * ramp * (3 - 2 * ramp), np.float32)
    return out


def fade(plane: F32, weight: F32) -> F32:
    """Lose contrast by `weight` (y, x): grey values move towards their neighbourhood's mean."""
    mean: F32 = cv2.GaussianBlur(plane, (0, 0), 12.0)
    out: F32 = plane + weight * (mean - plane)
    return out


def disturb(plane: F32, art: Artefacts, section: int, fading: F32 | None, seed: int) -> F32:
    """What happens to the tissue of a section (y, x) before it is imaged: staining, wrinkles, focus.

    `fading` is the staining's share of lost contrast, made once for all sections.
    """
    if fading is not None:
        plane = fade(plane, fading)
    if art.wrinkles is not None and art.wrinkles.holds(section):
        plane = wrinkle(plane, art.wrinkles, (seed, 0x371E, section))
    if section == art.defocused_section:
        plane = np.asarray(cv2.GaussianBlur(plane, (0, 0), art.defocus_px), np.float32)
    if art.defocus is not None and art.defocus.holds(section):
        plane = defocus_plane(plane, art.defocus)
    return plane


def run_boxes(art: Artefacts, first: int, shape_yx: tuple[int, int]) -> list[tuple[str, list[int], list[int], _Run]]:
    """Kind, tissue box (lo, hi) in voxels and parameters of what happens in runs of sections."""
    out: list[tuple[str, list[int], list[int], _Run]] = []
    for kind, run, area in (
        ("session", art.session, Area()),
        ("defocus", art.defocus, art.defocus.area if art.defocus else Area()),
        ("misalignment", art.wrinkles, art.wrinkles.area if art.wrinkles else Area()),
    ):
        if run is not None:
            y0, x0, y1, x1 = area.box_px(shape_yx)
            out.append((kind, [run.sections[0] - first, y0, x0], [run.sections[1] - first + 1, y1, x1], run))
    return out


def defocus_plane(plane: F32, art: Defocus) -> F32:
    """Blur (y, x) within the area; its rim is soft over 12 px."""
    blurred: F32 = np.asarray(cv2.GaussianBlur(plane, (0, 0), art.sigma_px), np.float32)
    weight = _soft(plane.shape[:2], art.area, 12.0)
    out: F32 = plane + weight * (blurred - plane)
    return out


def wrinkle(plane: F32, art: Wrinkles, seed: tuple[int, ...]) -> F32:
    """Displace the pixels of a plane (y, x) by a smooth random field that fades out at the area's rim.

    `seed` names the section, so that another run of sections changes no other section's field.
    """
    rng = np.random.default_rng(seed)
    sigma = art.wavelength_px / 4.0
    weight = _soft(plane.shape[:2], art.area, 16.0)
    at = np.stack(np.meshgrid(*(np.arange(n) for n in plane.shape), indexing="ij")).astype(np.float32)
    for axis in range(2):
        field = cv2.GaussianBlur(rng.standard_normal(plane.shape, dtype=np.float32), (0, 0), sigma)
        at[axis] += weight * field * np.float32(art.amplitude_px / float(field.std()))
    moved = cv2.remap(plane, at[1], at[0], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(moved, np.float32)


def _soft(shape_yx: tuple[int, ...], area: Area, rim_px: float) -> F32:
    """(y, x) 1 inside the area, 0 outside, smooth over the rim; a side on the plane's own edge has no rim."""
    y0, x0, y1, x1 = area.box_px((shape_yx[0], shape_yx[1]))
    inside = np.zeros(shape_yx, np.float32)
    inside[y0:y1, x0:x1] = 1
    out: F32 = np.asarray(cv2.GaussianBlur(inside, (0, 0), rim_px, borderType=cv2.BORDER_REPLICATE), np.float32)
    return out


def stain_box(gradient: StainingGradient, shape_vx: tuple[int, int, int]) -> tuple[list[int], list[int]]:
    """Tissue box (lo, hi) in voxels (z, y, x) outside which the gradient does nothing."""
    lo, hi = [0], [shape_vx[0]]
    for size, end in zip(shape_vx[1:], gradient.corner, strict=True):
        span = int(np.ceil(gradient.reach * size))
        lo.append(max(0, size - span) if end else 0)
        hi.append(size if end else min(size, span))
    return lo, hi

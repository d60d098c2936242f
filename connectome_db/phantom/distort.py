"""How a section's own plane lies on the tissue: rotation, shift, smooth warp, a fold. Exact both ways.

A section's plane is the frame in which its true tile positions are given; its origin is the top left of the imaged
window. All points are (y, x) pixel centres; a pixel of the plane is as large as one of the tissue.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from connectome_db.errors import QueryError

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

_INVERSE_PX = 1e-9
_INVERSE_STEPS = 400


@dataclass(frozen=True)
class SectionMaps:
    """The maps of n sections. Waves and folds are functions, so that nothing is interpolated."""

    section: I64
    """(n,) section numbers, ascending; row k shows plane k of the tissue."""
    rotation_rad: F64
    """(n,)"""
    shift_px: F64
    """(n, 2) where the plane's centre falls, from the tissue's centre."""
    wave_px: F64
    """(n, waves, 2) amplitude y, x."""
    wave_per_px: F64
    """(n, waves, 2) wave vector in radians per px."""
    wave_phase: F64
    """(n, waves)"""
    fold: F64
    """(n, 5): point y, x on the fold's line, angle of its normal (rad), hidden width, softness (px). Width 0: none."""
    plane_centre_px: F64
    """(2,) centre of the imaged window in the plane."""
    tissue_centre_px: F64
    """(2,)"""

    def row(self, section: int) -> int:
        """Which plane of the tissue a section shows."""
        k = int(np.searchsorted(self.section, section))
        if k == len(self.section) or self.section[k] != section:
            raise QueryError(
                f"no section {section} in the truth: it has sections {self.section[0]} to {self.section[-1]}; "
                "give one of these"
            )
        return k

    def section_to_tissue(self, section: int, yx: npt.ArrayLike) -> F64:
        """(..., 2) points of a section's plane -> tissue (y, x)."""
        return self._forward(self.row(section), np.asarray(yx, np.float64))

    def tissue_to_section(self, section: int, yx: npt.ArrayLike) -> F64:
        """(..., 2) tissue points -> the section's plane, to 1e-9 px.

        Raises:
            QueryError: the map does not invert there (a fold wider than its softness allows).
        """
        k = self.row(section)
        target = np.asarray(yx, np.float64)
        turn = _rotation(self.rotation_rad[k])
        # A fold stretches by up to 1 + width / (2 softness) across its line; steps that much shorter cannot overshoot.
        step = 1.0 / (1.0 + self.fold[k, 3] / (2 * self.fold[k, 4]))
        point: F64 = (target - self.tissue_centre_px - self.shift_px[k]) @ turn + self.plane_centre_px
        for _ in range(_INVERSE_STEPS):
            miss = (target - self._forward(k, point)) @ turn
            point = point + step * miss
            if miss.size == 0 or float(np.abs(miss).max()) < _INVERSE_PX:
                return point
        raise QueryError(f"section {section}: the map did not invert at some point; is it far outside the tissue?")

    def fold_darkness(self, section: int, yx: npt.ArrayLike) -> F64:
        """(...) how deep in the fold points of the plane lie, 0 to 1."""
        fold = self.fold[self.row(section)]
        if fold[3] == 0:
            return np.zeros(np.asarray(yx).shape[:-1])
        out: F64 = np.exp(-((_across(fold, np.asarray(yx, np.float64)) / fold[4]) ** 2))
        return out

    def _forward(self, k: int, yx: F64) -> F64:
        waves = np.cos(yx @ self.wave_per_px[k].T + self.wave_phase[k]) @ self.wave_px[k]
        flat = yx - self.plane_centre_px
        fold = self.fold[k]
        if fold[3] > 0:
            normal = np.array([np.sin(fold[2]), np.cos(fold[2])])
            flat = flat + 0.5 * fold[3] * np.tanh(_across(fold, yx) / fold[4])[..., None] * normal
        out: F64 = flat @ _rotation(self.rotation_rad[k]).T + self.tissue_centre_px + self.shift_px[k] + waves
        return out

    def save(self, path: Path) -> None:
        """Write as an uncompressed npz."""
        np.savez(path, **{name: getattr(self, name) for name in self.__dataclass_fields__})

    @classmethod
    def load(cls, path: Path) -> SectionMaps:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as found:
            return cls(**{name: found[name] for name in cls.__dataclass_fields__})


def _rotation(angle_rad: float) -> F64:
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    return np.array([[c, -s], [s, c]])


def _across(fold: F64, yx: F64) -> F64:
    """Signed distance in px from the fold's line."""
    out: F64 = (yx - fold[:2]) @ np.array([np.sin(fold[2]), np.cos(fold[2])])
    return out


def random_maps(
    rng: np.random.Generator,
    section: I64,
    *,
    shift_px: float,
    rotation_deg: float,
    warp_px: float,
    wavelength_px: tuple[float, float],
    drift_px_per_section: tuple[float, float],
    plane_centre_px: F64,
    tissue_centre_px: F64,
    waves: int = 6,
) -> SectionMaps:
    """Draw maps: independent shifts up to 0.6 `shift_px` on a bounded random walk of 0.4, rotation, `warp_px` waves.

    `warp_px` is about the largest displacement of the warp along an axis (1.7 standard deviations of the sum of waves).
    """
    n = len(section)
    walk = np.clip(np.cumsum(rng.normal(0, 0.12 * shift_px, (n, 2)), axis=0), -0.4 * shift_px, 0.4 * shift_px)
    drift = (np.arange(n) - 0.5 * (n - 1))[:, None] * np.asarray(drift_px_per_section)
    length = rng.uniform(*wavelength_px, (n, waves))
    heading = rng.uniform(0, 2 * np.pi, (n, waves))
    lean = rng.uniform(0, 2 * np.pi, (n, waves))
    size = 1.2 * warp_px / np.sqrt(waves)
    return SectionMaps(
        section=np.asarray(section, np.int64),
        rotation_rad=np.deg2rad(rng.uniform(-rotation_deg, rotation_deg, n)),
        shift_px=rng.uniform(-0.6, 0.6, (n, 2)) * shift_px + walk + drift,
        wave_px=size * np.stack([np.sin(lean), np.cos(lean)], axis=-1),
        wave_per_px=(2 * np.pi / length)[..., None] * np.stack([np.sin(heading), np.cos(heading)], axis=-1),
        wave_phase=rng.uniform(0, 2 * np.pi, (n, waves)),
        fold=np.tile([0.0, 0.0, 0.0, 0.0, 1.0], (n, 1)),
        plane_centre_px=plane_centre_px,
        tissue_centre_px=tissue_centre_px,
    )

"""Boxes of voxels. A box is six integers and nothing else.

Axes are (z, y, x); boxes are half-open: `lo` is inside, `hi` is not.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

Vec3 = tuple[int, int, int]


@dataclass(frozen=True, order=True, slots=True)
class Box:
    """A half-open box of voxels, `lo <= (z, y, x) < hi`. Boxes of no volume are allowed (`empty`)."""

    lo: Vec3
    hi: Vec3

    @property
    def shape(self) -> Vec3:
        """Extent (z, y, x) in voxels."""
        return (self.hi[0] - self.lo[0], self.hi[1] - self.lo[1], self.hi[2] - self.lo[2])

    @property
    def size_vx(self) -> int:
        """Number of voxels; 0 when empty."""
        z, y, x = self.shape
        return 0 if self.empty else z * y * x

    @property
    def empty(self) -> bool:
        """True when some axis has no extent."""
        return any(n <= 0 for n in self.shape)

    def grow(self, halo_vx: Vec3) -> Box:
        """The box with `halo_vx` (z, y, x) added on both sides of each axis; negative shrinks."""
        return Box(
            (self.lo[0] - halo_vx[0], self.lo[1] - halo_vx[1], self.lo[2] - halo_vx[2]),
            (self.hi[0] + halo_vx[0], self.hi[1] + halo_vx[1], self.hi[2] + halo_vx[2]),
        )

    def clip(self, other: Box) -> Box:
        """The intersection; may be empty."""
        return Box(
            (max(self.lo[0], other.lo[0]), max(self.lo[1], other.lo[1]), max(self.lo[2], other.lo[2])),
            (min(self.hi[0], other.hi[0]), min(self.hi[1], other.hi[1]), min(self.hi[2], other.hi[2])),
        )

    def touches(self, other: Box) -> bool:
        """True when the boxes share at least one voxel."""
        return not self.clip(other).empty

    def contains(self, other: Box) -> bool:
        """True when every voxel of `other` is in this box."""
        return other.empty or self.clip(other) == other

    def shift(self, by_vx: Vec3) -> Box:
        """The box moved by (z, y, x) voxels."""
        return Box(
            (self.lo[0] + by_vx[0], self.lo[1] + by_vx[1], self.lo[2] + by_vx[2]),
            (self.hi[0] + by_vx[0], self.hi[1] + by_vx[1], self.hi[2] + by_vx[2]),
        )

    def slices(self, origin: Vec3 = (0, 0, 0)) -> tuple[slice, slice, slice]:
        """Slices that cut this box out of an array whose first voxel is `origin`."""
        return (
            slice(self.lo[0] - origin[0], self.hi[0] - origin[0]),
            slice(self.lo[1] - origin[1], self.hi[1] - origin[1]),
            slice(self.lo[2] - origin[2], self.hi[2] - origin[2]),
        )

    def snap(self, step_vx: Vec3) -> Box:
        """The smallest box that holds this one and whose faces lie on multiples of `step_vx`."""
        lo = tuple(a // s * s for a, s in zip(self.lo, step_vx, strict=True))
        hi = tuple(-(-b // s) * s for b, s in zip(self.hi, step_vx, strict=True))
        return Box((lo[0], lo[1], lo[2]), (hi[0], hi[1], hi[2]))

    def flat(self) -> tuple[int, int, int, int, int, int]:
        """(z0, y0, x0, z1, y1, x1)."""
        return (*self.lo, *self.hi)

    def __str__(self) -> str:
        return f"z {self.lo[0]}:{self.hi[0]}, y {self.lo[1]}:{self.hi[1]}, x {self.lo[2]}:{self.hi[2]}"


def box_of(six: Iterable[int]) -> Box:
    """A `Box` from (z0, y0, x0, z1, y1, x1)."""
    z0, y0, x0, z1, y1, x1 = (int(v) for v in six)
    return Box((z0, y0, x0), (z1, y1, x1))


def hull(boxes: Iterable[Box]) -> Box:
    """The smallest box that holds all `boxes`. Raises ValueError when there are none."""
    kept = list(boxes)
    if not kept:
        raise ValueError("hull() of no boxes: at least one is needed")
    lo = tuple(min(b.lo[i] for b in kept) for i in range(3))
    hi = tuple(max(b.hi[i] for b in kept) for i in range(3))
    return Box((lo[0], lo[1], lo[2]), (hi[0], hi[1], hi[2]))

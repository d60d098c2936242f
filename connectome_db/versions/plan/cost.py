"""What flood-filling a volume costs on a machine: hours of devices and nodes, jobs, and bytes. Arithmetic only.

    voxels to fill  =  voxels x overlap x passes
    overlap         =  voxels of a subvolume / voxels of a step from one to the next
    passes          =  1, or coarse-to-fine: 1 / voxels of the coarse voxel + share that the coarse pass leaves
    device-hours    =  voxels to fill / voxels filled per hour

Every voxel is taken as filled once by each pass, so background that is never entered makes it cheaper, and moves in
vain dearer. A range goes through all steps from end to end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from connectome_db.errors import ConfigError
from connectome_db.geometry import Vec3
from connectome_db.versions.plan.forecast import Span
from connectome_db.versions.plan.machine import Kind, Machine, Speed


@dataclass(frozen=True)
class Extent:
    """How large the volume is: a number of voxels, and its shape (z, y, x) where that is known."""

    voxels: int
    shape_vx: Vec3 | None = None


@dataclass(frozen=True)
class Tiling:
    """Subvolumes (z, y, x), one a job, that overlap their neighbours. Raises ConfigError when they cannot."""

    subvolume_vx: Vec3 = (256, 256, 256)
    overlap_vx: Vec3 = (16, 32, 32)

    def __post_init__(self) -> None:
        if any(not 0 <= o < s for o, s in zip(self.overlap_vx, self.subvolume_vx, strict=True)):
            raise ConfigError(
                f"--overlap {_text(self.overlap_vx)}: wanted at least 0 and less than --subvolume "
                f"{_text(self.subvolume_vx)} on every axis (z, y, x)"
            )

    @property
    def step_vx(self) -> Vec3:
        """From one subvolume to the next."""
        z, y, x = (s - o for s, o in zip(self.subvolume_vx, self.overlap_vx, strict=True))
        return z, y, x

    def jobs(self, extent: Extent) -> int:
        """Subvolumes. Without a shape: as if their steps filled the volume without a rest."""
        if extent.shape_vx is None:
            return -(-extent.voxels // math.prod(self.step_vx))
        return math.prod(self._along(extent.shape_vx))

    def overlap_factor(self, extent: Extent) -> float:
        """Voxels of all subvolumes over those of the volume. Those at the border are cut where the shape is known."""
        if extent.shape_vx is None:
            return math.prod(self.subvolume_vx) / math.prod(self.step_vx)
        many = self._along(extent.shape_vx)
        # n along an axis share n - 1 overlaps
        sides = (s + (n - 1) * o for s, n, o in zip(extent.shape_vx, many, self.overlap_vx, strict=True))
        return math.prod(sides) / extent.voxels

    def _along(self, shape: Vec3) -> list[int]:
        axes = zip(shape, self.overlap_vx, self.step_vx, strict=True)
        return [max(1, -(-(side - o) // step)) for side, o, step in axes]


@dataclass(frozen=True)
class CoarseToFine:
    """A first pass at lower resolution, which leaves only what it did not fill to the second."""

    factor: Vec3
    """Voxels (z, y, x) of the volume in a coarse voxel."""
    filled: float
    """Share of the volume that the first pass fills, 0-1. An assumption until it is measured."""

    @property
    def passes(self) -> float:
        """Voxels filled by both, over those of one fine pass: a step of 2 that fills 80 % costs 1/8 + 1/5."""
        return 1 / math.prod(self.factor) + 1 - self.filled


@dataclass(frozen=True)
class Work:
    """What there is to do, whatever the machine."""

    extent: Extent
    tiling: Tiling
    coarse: CoarseToFine | None

    @property
    def jobs(self) -> int:
        """Subvolumes of one pass."""
        return self.tiling.jobs(self.extent)

    @property
    def overlap_factor(self) -> float:
        """Voxels of all subvolumes over those of the volume."""
        return self.tiling.overlap_factor(self.extent)

    @property
    def passes(self) -> float:
        """1, or what both passes of coarse-to-fine fill."""
        return 1.0 if self.coarse is None else self.coarse.passes

    @property
    def voxels_to_fill(self) -> float:
        """Voxels that the network fills in all subvolumes and passes."""
        return self.extent.voxels * self.overlap_factor * self.passes


@dataclass(frozen=True)
class Pace:
    """One device in one precision: what it does per unit of time. The share of the peak is None without a peak."""

    moves_per_s: Span
    voxels_per_h: Span
    flop_per_s: Span
    share_of_peak: Span | None


@dataclass(frozen=True)
class Cost:
    """One machine in one precision."""

    machine: str
    device: str
    precision: str
    kind: Kind
    """What its speed rests on."""
    pace: Pace
    bare_h: Span
    """Device-hours of the voxels themselves: no overlap, one pass."""
    device_h: Span
    node_h: Span
    """With all devices of a node at work."""
    clock_h: Span | None
    """With the given number of devices, which take whole jobs; None without a number."""
    price: Span | None
    """Of all device-hours; None without a price."""


def pace_of(machine: Machine, speed: Speed) -> Pace:
    """Moves, voxels and FLOP per device, from whichever of them the machine file gives."""
    flop, voxels = machine.flop_per_move, machine.voxels_per_move.span
    if speed.moves_per_s is not None:
        moves = speed.moves_per_s.span
    elif speed.voxels_per_h is not None:
        moves = _over(_times(speed.voxels_per_h.span, 1 / 3600), voxels)
    else:
        assert speed.share_of_peak is not None
        assert speed.peak_flop_per_s is not None
        peak, share = speed.peak_flop_per_s.span, speed.share_of_peak.span
        moves = Span(peak.low * share.low / flop, peak.high * share.high / flop)
    if speed.voxels_per_h is not None:
        filled = speed.voxels_per_h.span
    else:
        filled = Span(3600 * moves.low * voxels.low, 3600 * moves.high * voxels.high)
    flops = _times(moves, flop)
    share_of = speed.share_of_peak.span if speed.share_of_peak else None
    if share_of is None and speed.peak_flop_per_s is not None:
        share_of = _over(flops, speed.peak_flop_per_s.span)
    return Pace(moves, filled, flops, share_of)


def costs(machine: Machine, work: Work, *, devices: int | None, price_per_hour: float | None) -> list[Cost]:
    """The cost of `work` on a machine, one entry per speed. `price_per_hour` is that of a device."""
    return [_cost(machine, speed, work, devices, price_per_hour) for speed in machine.speeds]


def _cost(machine: Machine, speed: Speed, work: Work, devices: int | None, price_per_hour: float | None) -> Cost:
    pace = pace_of(machine, speed)
    device_h = _over(Span(work.voxels_to_fill, work.voxels_to_fill), pace.voxels_per_h)
    clock_h = None
    if devices is not None:
        rounds = -(-work.jobs // devices)
        clock_h = _times(device_h, float(Fraction(rounds, work.jobs)))
    return Cost(
        machine=machine.name,
        device=machine.device,
        precision=speed.precision,
        kind=speed.figure.kind,
        pace=pace,
        bare_h=_over(Span(work.extent.voxels, work.extent.voxels), pace.voxels_per_h),
        device_h=device_h,
        node_h=_times(device_h, 1 / (machine.devices_per_node.value or 1)),
        clock_h=clock_h,
        price=None if price_per_hour is None else _times(device_h, price_per_hour),
    )


def _times(span: Span, factor: float) -> Span:
    return Span(span.low * factor, span.high * factor)


def _over(span: Span, by: Span) -> Span:
    return Span(span.low / by.high, span.high / by.low)


def _text(three: Vec3) -> str:
    return ",".join(str(v) for v in three)

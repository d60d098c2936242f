"""`connectome plan --machine`: what flood-filling a volume of a given size costs. Reads the words, asks and prints."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from connectome_db.cli.console import OUT, open_project
from connectome_db.errors import ConfigError

if TYPE_CHECKING:
    from connectome_db.geometry import Vec3
    from connectome_db.versions.plan.bytes_and_hours import Measured
    from connectome_db.versions.plan.cost import CoarseToFine, Extent, Tiling

LARGEST_VX = 10**21


@dataclass(frozen=True)
class Asked:
    """The options of this way of `plan`, as they were typed; None where they were not."""

    machines: Sequence[str]
    voxels: str | None
    subvolume: str | None
    overlap: str | None
    coarse: str | None
    filled: float | None
    devices: int | None

    def without_machine(self) -> list[str]:
        """Options that mean nothing without --machine."""
        rest = {
            "--voxels": self.voxels,
            "--subvolume": self.subvolume,
            "--overlap": self.overlap,
            "--coarse": self.coarse,
            "--coarse-filled": self.filled,
            "--devices": self.devices,
        }
        return [name for name, value in rest.items() if value is not None]


def refuse_mixed(asked: Asked, others: Mapping[str, object]) -> None:
    """Raise ConfigError when options of both ways of `plan` are given; `others` are those of the other way."""
    if not asked.machines:
        if alone := asked.without_machine():
            raise ConfigError(
                f"{', '.join(alone)}: only with --machine, which tells what a volume of any size would cost; "
                "without it, plan tells what a run of this project would compute"
            )
    elif mixed := [name for name, value in others.items() if value]:
        raise ConfigError(
            f"{', '.join(mixed)}: not together with --machine, which is about a volume of any size and not about the "
            "units of this project; leave one of them out"
        )


def show(asked: Asked, project: Path | None, price: float | None, as_json: bool) -> None:
    """Print what it costs."""
    from connectome_db.versions.plan import cost_report
    from connectome_db.versions.plan.cost import Work, costs
    from connectome_db.versions.plan.machine import read_machine

    if price is not None and not math.isfinite(price):
        raise ConfigError(f"--price {price}: wanted a number, the price of a device per hour")
    machines = [read_machine(name) for name in asked.machines]
    work = Work(_extent(asked.voxels), _tiling(asked), _coarse(asked))
    known = _measured(project)
    found = [c for m in machines for c in costs(m, work, devices=asked.devices, price_per_hour=price)]
    if as_json:
        answer = cost_report.to_json(machines, work, found, known, asked.devices)
        sys.stdout.write(json.dumps(answer, indent=1, ensure_ascii=False) + "\n")
        return
    for line in cost_report.work_text(work):
        OUT.print(line, highlight=False, markup=False, soft_wrap=True)
    OUT.print(cost_report.paces(found))
    OUT.print(cost_report.hours(found, asked.devices))
    OUT.print(cost_report.storage(work, known))
    if known is not None:
        OUT.print(cost_report.stages(work, known))
    for line in cost_report.notes(machines, known):
        OUT.print(line, highlight=False, markup=False, soft_wrap=True)


def _extent(text: str | None) -> Extent:
    from connectome_db.versions.plan.cost import Extent

    wanted = "a number of voxels, like 1e15, or a shape z,y,x, like 8000,20000,20000"
    if text is None:
        raise ConfigError(f"--machine needs --voxels: {wanted}")
    if "," in text:
        shape = _three(text, "--voxels", 1, wanted)
        return Extent(math.prod(shape), shape)
    try:
        value = float(text)
    except ValueError as e:
        raise ConfigError(f"--voxels {text!r}: wanted {wanted}") from e
    if not 1 <= value <= LARGEST_VX or value % 1:  # NaN is not between
        raise ConfigError(f"--voxels {text!r}: wanted {wanted}; whole, from 1 to {LARGEST_VX:.0e}")
    return Extent(int(text) if text.strip().isdecimal() else int(value))


def _tiling(asked: Asked) -> Tiling:
    from connectome_db.versions.plan.cost import Tiling

    usual = Tiling()
    side = usual.subvolume_vx
    if asked.subvolume is not None:
        side = _three(asked.subvolume, "--subvolume", 1)
    over = usual.overlap_vx
    if asked.overlap is not None:
        over = _three(asked.overlap, "--overlap", 0)
    return Tiling(side, over)


def _coarse(asked: Asked) -> CoarseToFine | None:
    from connectome_db.versions.plan.cost import CoarseToFine

    if (asked.coarse is None) != (asked.filled is None):
        raise ConfigError(
            "--coarse and --coarse-filled go together: voxels z,y,x in a coarse voxel, like 2,2,2, and the share of "
            "the volume that the coarse pass fills, like 0.8"
        )
    if asked.coarse is None or asked.filled is None:
        return None
    factor = _three(asked.coarse, "--coarse", 1)
    if math.prod(factor) == 1:
        raise ConfigError(f"--coarse {asked.coarse}: wanted at least 2 on one axis; leave it out for one pass")
    return CoarseToFine(factor, asked.filled)


def _three(text: str, option: str, least: int, wanted: str | None = None) -> Vec3:
    parts = [p.strip() for p in text.strip("[]() ").split(",")]
    wanted = wanted or f"three whole numbers z,y,x of at least {least}"
    if len(parts) != 3 or not all(p.isdecimal() and int(p) >= least for p in parts):
        raise ConfigError(f"{option} {text!r}: wanted {wanted}")
    z, y, x = (int(p) for p in parts)
    return z, y, x


def _measured(folder: Path | None) -> Measured | None:
    """What the project here tells; None where there is none, unless one was asked for."""
    from connectome_db.config import find_root
    from connectome_db.versions.plan.bytes_and_hours import measured

    if folder is None:
        try:
            find_root(Path.cwd())
        except ConfigError:
            return None
    found = measured(open_project(folder))
    if found is None and folder is not None:
        raise ConfigError(
            f"{folder}: has no image in data/render, so it tells nothing of storage and stages; run it, or leave "
            "--project out"
        )
    return found

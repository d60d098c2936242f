"""The cost of flood-filling a volume, for people (tables) and for programs (JSON)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table

from connectome_db.versions.plan.bytes_and_hours import Layer, Measured, assumed
from connectome_db.versions.plan.cost import Cost, Work
from connectome_db.versions.plan.forecast import Span
from connectome_db.versions.plan.machine import Figure, Machine

PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def amount(value: float) -> str:
    """Three digits and a prefix: 4.65, 80 M, 1.39 P."""
    for size, prefix in PREFIXES:
        if value >= size * 0.9995:
            return f"{float(f'{value / size:.3g}'):g} {prefix}"
    return f"{float(f'{value:.3g}'):g}"


def between(span: Span | None) -> str:
    """A range for people: 8.37–10 M, or one amount."""
    if span is None:
        return "?"
    low, high = amount(span.low), amount(span.high)
    if low == high:
        return low
    head, _, prefix = low.partition(" ")
    return f"{head}–{high}" if high.partition(" ")[2] == prefix else f"{low} – {high}"


def share(span: Span | None) -> str:
    """A share for people, in per cent."""
    if span is None:
        return "?"
    low, high = (f"{100 * v:.2g}" for v in (span.low, span.high))
    return f"{low} %" if low == high else f"{low}–{high} %"


def work_text(work: Work) -> list[str]:
    """What is computed on, in lines."""
    tiling, coarse = work.tiling, work.coarse
    extent = work.extent
    sides = "" if extent.shape_vx is None else f" ({_three(extent.shape_vx)})"
    lines = [
        f"{amount(extent.voxels)} voxels{sides}: {work.jobs:,} jobs of {_three(tiling.subvolume_vx)} that overlap by "
        f"{_three(tiling.overlap_vx)}, so {work.overlap_factor:.3f} times the voxels."
    ]
    if coarse is not None:
        lines.append(
            f"Coarse-to-fine: voxels of {_three(coarse.factor)} fill {coarse.filled:.0%} first (assumed), "
            f"so {work.passes:.3f} times the work."
        )
    return lines


def paces(found: Sequence[Cost]) -> Table:
    """What one device does: one line per machine and precision."""
    out = _table("machine", "speed is", right=("moves/s", "voxels/h", "FLOP/s", "of peak"))
    for c in found:
        cells = [between(v) for v in (c.pace.moves_per_s, c.pace.voxels_per_h, c.pace.flop_per_s)]
        out.add_row(f"{c.machine} {c.precision}", c.kind, *cells, share(c.pace.share_of_peak))
    return out


def hours(found: Sequence[Cost], devices: int | None) -> Table:
    """What the volume takes: one line per machine and precision. `devices` are those of the clock."""
    heads = ["bare", "device-h", "node-h"]
    if devices is not None:
        heads.append(f"hours on {devices:,}")
    if any(c.price is not None for c in found):
        heads.append("price")
    out = _table("machine", right=heads)
    for c in found:
        cells = [c.bare_h, c.device_h, c.node_h, *(v for v in (c.clock_h, c.price) if v is not None)]
        out.add_row(f"{c.machine} {c.precision}", *(between(v) for v in cells))
    return out


def _table(*left: str, right: Sequence[str]) -> Table:
    out = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    for i, head in enumerate(left):
        out.add_column(head, no_wrap=i > 0)  # in a narrow terminal names are wrapped, and numbers stay whole
    for head in right:
        out.add_column(head, justify="right", no_wrap=True)
    return out


def storage(work: Work, known: Measured | None) -> Table:
    """Bytes of every layer, and their sum."""
    layers = _layers(known)
    total = _sum([layer.bytes_per_voxel for layer in layers])
    voxels = work.extent.voxels
    out = Table(box=box.SIMPLE_HEAD, header_style="bold", show_footer=True, pad_edge=False, padding=(0, 1, 0, 0))
    out.add_column("layer", "total")
    out.add_column("bytes/voxel", _digits(total), justify="right")
    out.add_column("bytes", between(_times(total, voxels)), justify="right")
    out.add_column("measured" if known else "assumed")
    for layer in layers:
        per = layer.bytes_per_voxel
        out.add_row(layer.name, _digits(per), between(_times(per, voxels)), layer.why)
    return out


def stages(work: Work, known: Measured) -> Table:
    """Hours of workers of every stage, as the project's own units took."""
    out = _table("stage", right=("s/voxel", "worker-h", ""))
    for s in known.stages:
        worker_h = s.worker_s_per_voxel * work.extent.voxels / 3600
        out.add_row(s.stage, f"{s.worker_s_per_voxel:.2g}", amount(worker_h), "one unit" if s.units == 1 else "")
    return out


def notes(machines: Sequence[Machine], known: Measured | None) -> list[str]:
    """What the numbers rest on."""
    lines = ["bare: device-hours of every voxel once, without overlap, in one pass."]
    for m in machines:
        size = m.network
        network = f"{size.depth} deep, {size.features} features, window {_three(size.fov_vx)}"
        lines.append(
            f"{m.name}: {m.device}; network {network}: {amount(m.flop_per_move)}FLOP a move, "
            f"{between(m.voxels_per_move.span)} voxels a move ({m.voxels_per_move.kind}: {m.voxels_per_move.source})."
        )
        lines += [f"  {told}" for told in _sources(m)]
    if known:
        lines.append(
            f"Storage and stages: measured in {known.name}, {amount(known.voxels)} voxels, on the machine that ran it; "
            "a larger volume is taken to need as much per voxel. `segment` is as it was run there."
        )
    else:
        lines.append(
            "Storage: assumed, without raw tiles and tables; all levels of a pyramid, halved along three axes or two. "
            "In a project with data it is measured, and the hours of the other stages are told."
        )
    return lines


def _sources(machine: Machine) -> list[str]:
    nodes = machine.devices_per_node
    out = [f"devices a node {nodes.value:g}: {_source(nodes)}"]
    for speed in machine.speeds:
        out.append(f"{speed.precision}: {_source(speed.figure)}")
        if speed.peak_flop_per_s is not None:
            peak = speed.peak_flop_per_s
            out.append(f"{speed.precision}, peak {between(peak.span)}FLOP/s: {_source(peak)}")
    return out


def _source(figure: Figure) -> str:
    return f"{figure.kind}: {figure.source}"


def to_json(
    machines: Sequence[Machine], work: Work, found: Sequence[Cost], known: Measured | None, devices: int | None
) -> dict[str, Any]:
    """All of it as JSON values; a range is [low, high]."""
    voxels, tiling, coarse = work.extent.voxels, work.tiling, work.coarse
    layers = _layers(known)
    return {
        "voxels": voxels,
        "shape_vx": None if work.extent.shape_vx is None else list(work.extent.shape_vx),
        "subvolume_vx": list(tiling.subvolume_vx),
        "overlap_vx": list(tiling.overlap_vx),
        "jobs": work.jobs,
        "overlap_factor": work.overlap_factor,
        "coarse_to_fine": None if coarse is None else {"factor": list(coarse.factor), "filled": coarse.filled},
        "passes": work.passes,
        "voxels_to_fill": work.voxels_to_fill,
        "devices": devices,
        "costs": [_cost_json(c) for c in found],
        "storage": {
            "from": known.name if known else "assumed",
            "layers": [
                {
                    "layer": layer.name,
                    "bytes_per_voxel": _pair(layer.bytes_per_voxel),
                    "bytes": _pair(_times(layer.bytes_per_voxel, voxels)),
                    "why": layer.why,
                }
                for layer in layers
            ],
            "bytes": _pair(_times(_sum([layer.bytes_per_voxel for layer in layers]), voxels)),
        },
        "stages": None
        if known is None
        else [
            {
                "stage": s.stage,
                "worker_s_per_voxel": s.worker_s_per_voxel,
                "worker_h": s.worker_s_per_voxel * voxels / 3600,
                "units_measured": s.units,
            }
            for s in known.stages
        ],
        "machines": [m.model_dump(exclude_none=True) | {"flop_per_move": m.flop_per_move} for m in machines],
    }


def _cost_json(c: Cost) -> dict[str, Any]:
    return {
        "machine": c.machine,
        "device": c.device,
        "precision": c.precision,
        "speed_is": c.kind,
        "moves_per_s": _pair(c.pace.moves_per_s),
        "voxels_per_h": _pair(c.pace.voxels_per_h),
        "flop_per_s": _pair(c.pace.flop_per_s),
        "share_of_peak": _pair(c.pace.share_of_peak),
        "device_h_no_overlap": _pair(c.bare_h),
        "device_h": _pair(c.device_h),
        "node_h": _pair(c.node_h),
        "clock_h": _pair(c.clock_h),
        "price": _pair(c.price),
    }


def _layers(known: Measured | None) -> tuple[Layer, ...]:
    return known.layers if known else assumed()


def _sum(spans: Sequence[Span]) -> Span:
    return sum(spans, Span(0.0, 0.0))


def _times(span: Span, factor: float) -> Span:
    return Span(span.low * factor, span.high * factor)


def _pair(span: Span | None) -> list[float] | None:
    return None if span is None else [span.low, span.high]


def _digits(span: Span) -> str:
    low, high = (f"{v:.3g}" for v in (span.low, span.high))
    return low if low == high else f"{low}–{high}"


def _three(values: Sequence[int]) -> str:
    return " × ".join(f"{v:,}" for v in values)

"""Small charts as SVG: a profile along z, a dot with its whiskers, a line over versions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from connectome_db.diagnosis.pages.grids import Profile
from connectome_db.diagnosis.pages.html_tags import Markup, ends_of, join, number, tag

WIDTH, HEIGHT = 300.0, 96.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 58.0, 8.0, 8.0, 30.0


def profile(p: Profile, title: str) -> Markup:
    """A metric along z: the mean as a line, the middle half of the cells as a band."""
    low, high = float(np.min(p.low)), float(np.max(p.high))
    low, high = min(low, float(np.min(p.mean))), max(high, float(np.max(p.mean)))
    flat = high - low <= 1e-9 * max(abs(low), abs(high))
    if flat:
        low, high = low - 0.5, high + 0.5
    z0, z1 = float(p.z_nm[0]), float(p.z_nm[-1])

    def at(z: float, v: float) -> str:
        x = _LEFT + (z - z0) / (z1 - z0) * (WIDTH - _LEFT - _RIGHT)
        return f"{x:.1f} {HEIGHT - _BOTTOM - (v - low) / (high - low) * (HEIGHT - _TOP - _BOTTOM):.1f}"

    forth = [at(z, v) for z, v in zip(p.z_nm, p.high, strict=True)]
    back = [at(z, v) for z, v in zip(p.z_nm[::-1], p.low[::-1], strict=True)]
    line = [at(z, v) for z, v in zip(p.z_nm, p.mean, strict=True)]
    floor = HEIGHT - _BOTTOM
    ends = ends_of(low, high)
    marks = [(ends[1], _TOP + 8), (ends[0], floor)]
    if flat:
        marks = [(number((low + high) / 2), (_TOP + floor) / 2 + 4)]
    parts = [
        tag("title", title),
        tag("path", class_="axis", d=f"M{_LEFT:g} {_TOP:g}V{floor:g}H{WIDTH - _RIGHT:g}"),
        tag("path", class_="band", d=f"M{'L'.join(forth + back)}Z"),
        tag("path", class_="curve", d=f"M{'L'.join(line)}"),
        *(tag("text", text, x=_LEFT - 4, y=y, text_anchor="end") for text, y in marks),
        tag("text", f"{z0 / 1000:.3g}", x=_LEFT, y=floor + 13),
        tag("text", f"{z1 / 1000:.3g} µm", x=WIDTH - _RIGHT, y=floor + 13, text_anchor="end"),
        tag("text", "along z", class_="soft", x=(_LEFT + WIDTH - _RIGHT) / 2, y=floor + 13, text_anchor="middle"),
    ]
    return tag("svg", *parts, viewBox=f"0 0 {WIDTH:g} {HEIGHT:g}", role="img")


def span(values: Sequence[float]) -> tuple[float, float]:
    """An axis that holds some values and zero, with room at the ends."""
    well = [v for v in values if math.isfinite(v)]
    low, high = min([0.0, *well]), max([0.0, *well])
    room = 0.08 * ((high - low) or 1.0)
    return low - room, high + room


def whisker(
    value: float, ends: Sequence[float] | None, axis: tuple[float, float], title: str, *, bad: bool = False,
    ticks: Sequence[tuple[float, str]] = (), width: float = 260.0,
) -> Markup:  # fmt: skip
    """A dot at `value`, a line between `ends` (an interval), a tick at zero; `ticks` are (place, text)."""
    low, high = axis
    tall = 40.0 if ticks else 22.0

    def x(v: float) -> float:
        return round(6 + (min(max(v, low), high) - low) / (high - low) * (width - 12), 1)

    parts = [tag("title", title), tag("path", class_="grid", d=f"M6 12H{width - 6:g}")]
    parts.append(tag("path", class_="axis", d=f"M{x(0)} 2V22"))
    mark = []
    if ends is not None and all(math.isfinite(v) for v in ends):
        a, b = x(ends[0]), x(ends[1])
        mark.append(tag("path", class_="whisker", d=f"M{a} 12H{b}M{a} 7V17M{b} 7V17"))
    if math.isfinite(value):
        mark.append(tag("circle", class_="dot", cx=x(value), cy=12, r=5))
    parts.append(tag("g", *mark, class_="bad" if bad else None))
    for place, text in ticks:
        anchor = "start" if x(place) < 30 else "end" if x(place) > width - 30 else "middle"
        parts.append(tag("text", text, x=x(place), y=36, text_anchor=anchor))
    return tag("svg", *parts, viewBox=f"0 0 {width:g} {tall:g}", role="img", width=f"{width:g}")


def sparkline(values: Sequence[float | None], title: str) -> Markup:
    """Values over versions, the first at the left; gaps where there is none."""
    known = [v for v in values if v is not None and math.isfinite(v)]
    if len(known) < 2:
        return join([])
    low, high = min(known), max(known)
    room = (high - low) or abs(high) or 1.0
    points: list[tuple[float, float]] = []
    dots = []
    for k, v in enumerate(values):
        if v is not None and math.isfinite(v):
            at = (6 + k * 78 / max(1, len(values) - 1), 23 - (v - low) / room * 18)
            points.append(at)
            dots.append(tag("circle", class_="dot", cx=f"{at[0]:.1f}", cy=f"{at[1]:.1f}", r=2.5))
    line = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return tag("svg", tag("title", title), tag("path", class_="curve", d=f"M{line}"), *dots,
               viewBox="0 0 90 28", width="90", role="img")  # fmt: skip

"""Maps of metrics in the plane, as SVG that follows the page's colours, with the cells as a small PNG inside.

Colours are viridis of matplotlib (perceptually uniform), turned so that dark is always the end that costs quality.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.image
import numpy as np

from connectome_db.diagnosis.pages.grids import Plane
from connectome_db.diagnosis.pages.html_tags import Markup, data_uri, ends_of, join, number, tag, unit_of
from connectome_db.diagnosis.pages.measured import F64, Measured
from connectome_db.regional.neuroglancer import SixNm
from connectome_db.schema.quality import Worse

WIDTH = 300.0
CALM = 1.5
_LEFT, _TOP, _BAR, _BELOW = 8.0, 8.0, 84.0, 26.0
"""Margins: around, for the colour bar at the right, for the scale bar below."""
_TALLEST = 300.0


@dataclass(frozen=True)
class Outline:
    """A box to draw on a map: (z0, y0, x0, z1, y1, x1) in nm; `other` is dashed."""

    box_nm: SixNm
    says: str
    other: bool = False


def colour_map(worse: Worse) -> mpl.colors.Colormap:
    """Viridis with its dark end where quality is worse; as it is for metrics without a worse end."""
    return mpl.colormaps["viridis_r" if worse == "high" else "viridis"]


@dataclass(frozen=True)
class Usual:
    """What is usual among the cells of a metric: median, normal spread, least and greatest value."""

    median: float
    spread: float
    least: float
    greatest: float


def usual_of(m: Measured) -> Usual:
    """What is usual among the cells of a metric."""
    return Usual(m.quartiles[1], m.spread, float(m.value.min()), float(m.value.max()))


def limits(values: F64, usual: Usual | None = None) -> tuple[float, float]:
    """The range of colours: all but the outermost two percent at either end, so that one odd cell hides nothing.

    With `usual` it is at least CALM spreads to either side of the median, as far as there are cells of such values, so
    that a map of nothing but noise looks calm. Both ends are the same when all values are alike.
    """
    well = values[np.isfinite(values)]
    if not well.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.quantile(well, (0.02, 0.98)))
    if usual is not None:
        low = min(low, max(usual.median - CALM * usual.spread, usual.least))
        high = max(high, min(usual.median + CALM * usual.spread, usual.greatest))
    # Below this, differences are those of rounding: one colour.
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        return low, low
    return low, high


def picture(values: F64, worse: Worse, low: float, high: float) -> bytes:
    """(y, x) values -> PNG, one pixel per cell; cells without data are clear."""
    scaled = np.clip((values - low) / (high - low), 0, 1) if high > low else np.full(values.shape, 0.5)
    rgba = colour_map(worse)(np.nan_to_num(scaled))
    rgba[..., 3] = np.isfinite(values)
    return encoded(rgba)


def encoded(image: F64) -> bytes:
    """(y, x, 4) colours in [0, 1] -> PNG."""
    out = io.BytesIO()
    mpl.image.imsave(out, np.ascontiguousarray(image), format="png", metadata={"Software": ""})
    return out.getvalue()


def scale_bar_um(width_um: float) -> float:
    """A round length of about a quarter of the width: 1, 2 or 5 times a power of ten."""
    wanted = max(width_um / 4, 1e-6)
    power = 10.0 ** math.floor(math.log10(wanted))
    return max((k * power for k in (1.0, 2.0, 5.0) if k * power <= wanted * 1.0001), default=power)


def draw(
    plane: Plane,
    worse: Worse,
    measure: str,
    title: str,
    outlines: Sequence[Outline] = (),
    usual: Usual | None = None,
) -> Markup:
    """A map with colour bar, scale bar and outlines, as an SVG element. `title` is its text for screen readers.

    `usual`: see `limits`.
    """
    y0, x0, y1, x1 = plane.box_nm
    inner = WIDTH - _LEFT - _BAR
    per_nm = min(inner / (x1 - x0), _TALLEST / (y1 - y0))
    wide, high_px = (x1 - x0) * per_nm, (y1 - y0) * per_nm
    low, high = limits(plane.values, usual)
    address = data_uri(picture(plane.values, worse, low, high), "image/png")
    body = [
        tag("title", title),
        tag("rect", class_="hole", x=_LEFT, y=_TOP, width=_px(wide), height=_px(high_px)),
        tag("image", href=address, x=_LEFT, y=_TOP, width=_px(wide), height=_px(high_px),
            preserveAspectRatio="none"),
        *(_outline(o, plane, per_nm) for o in outlines),
        _scale(x1 - x0, per_nm, _TOP + high_px),
        _bar(worse, measure, (low, high), _LEFT + wide + 12, max(high_px, 60.0)),
    ]  # fmt: skip
    tall = _TOP + max(high_px, 60.0) + _BELOW
    return tag("svg", *body, viewBox=f"0 0 {WIDTH:g} {_px(tall)}", role="img")


def _outline(o: Outline, plane: Plane, per_nm: float) -> Markup:
    y0, x0, y1, x1 = plane.box_nm
    _, by0, bx0, _, by1, bx1 = o.box_nm
    left, top = max(bx0, x0), max(by0, y0)
    right, bottom = min(bx1, x1), min(by1, y1)
    if left >= right or top >= bottom:
        return join([])
    place = {
        "x": _px(_LEFT + (left - x0) * per_nm), "y": _px(_TOP + (top - y0) * per_nm),
        "width": _px((right - left) * per_nm), "height": _px((bottom - top) * per_nm),
    }  # fmt: skip
    name = "outline other" if o.other else "outline"
    return tag("g", tag("title", o.says), tag("rect", class_="halo", **place), tag("rect", class_=name, **place))


def _scale(width_nm: float, per_nm: float, bottom: float) -> Markup:
    length = scale_bar_um(width_nm / 1000)
    px, y = length * 1000 * per_nm, bottom + 10
    line = tag("path", class_="axis", d=f"M{_LEFT:g} {_px(y)}h{_px(px)}", stroke_width=3)
    return join([line, tag("text", f"{length:g} µm", x=_px(_LEFT + px + 6), y=_px(y + 4))])


def _bar(worse: Worse, measure: str, ends: tuple[float, float], x: float, tall: float) -> Markup:
    if ends[0] == ends[1]:
        said = f"all {number(ends[0])} {unit_of(measure)}".rstrip()
        return tag("text", said, x=_px(x), y=_px(_TOP + tall / 2 + 4))
    ramp = colour_map(worse)(np.linspace(1, 0, 64))[:, None, :]
    address = data_uri(encoded(ramp), "image/png")
    low, high = ends_of(*ends)
    parts = [
        tag("image", href=address, x=_px(x), y=_TOP, width=12, height=_px(tall), preserveAspectRatio="none"),
        tag("text", high, x=_px(x + 17), y=_TOP + 9),
        tag("text", low, x=_px(x + 17), y=_px(_TOP + tall - 1)),
    ]
    if unit := unit_of(measure):
        parts.append(tag("text", unit, class_="soft", x=_px(x + 17), y=_px(_TOP + tall / 2 + 4)))
    if worse != "either":
        y = _TOP + 23 if worse == "high" else _TOP + tall - 15
        parts.append(tag("text", "worse", class_="soft", x=_px(x + 17), y=_px(y)))
    return join(parts)


def _px(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")

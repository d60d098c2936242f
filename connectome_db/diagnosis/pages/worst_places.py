"""The worst places: where most layers are far from the median in the direction that costs quality, with pictures.

A place is a cell of the lattice on which most metrics are measured. Its score is, per layer, how many normal spreads
its worst metric lies from the median (at most MOST_SPREADS, so that one wild value does not decide alone), averaged
over the layers. This ranks places to look at; it tests nothing. Flags do that.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.image
import numpy as np
import numpy.typing as npt

from connectome_db.diagnosis.pages.flag_list import view_command, voxel_at
from connectome_db.diagnosis.pages.html_tags import Markup, box_um, command, data_uri, section, tag
from connectome_db.diagnosis.pages.measured import F64, Measured, Quality
from connectome_db.diagnosis.pages.trend import words
from connectome_db.errors import ConnectomeError
from connectome_db.geometry import Box
from connectome_db.regional.neuroglancer import SixNm
from connectome_db.viewing.place import read_box

I64 = npt.NDArray[np.int64]

SHOWN = 8
MOST_SPREADS = 6.0
TELLING = 2.0
"""Normal spreads from which a metric is named as a reason."""
MOST_CELLS = 4_000_000
LIGHTEST = 0.5
"""Cells that rest on less than this part of the metric's usual weight are not looked at, nor are places where most
metrics do: at the rim of the tissue everything is poor, because there is little of it."""
THUMB_PX = 240


@dataclass(frozen=True)
class Place:
    """A cell: its box in nm, its score, and (level, metric, normal spreads) of what is bad there, the worst first."""

    box_nm: SixNm
    score: float
    reasons: tuple[tuple[str, str, float], ...]


def worst_places(quality: Quality, n: int = SHOWN) -> list[Place]:
    """Up to `n` of the worst places that do not touch each other and have a reason, the worst first."""
    cell = _cell_nm(quality)
    hull = quality.hull_nm
    if cell is None or hull is None:
        return []
    low = np.asarray(hull[:3])
    shape = np.maximum(np.ceil((np.asarray(hull[3:]) - low) / cell - 1e-6), 1).astype(np.int64)
    while np.prod(shape) > MOST_CELLS:  # a volume larger than memory: coarser places
        cell, shape = cell * 2, (shape + 1) // 2
    supported = _support(quality, low, cell, shape) >= LIGHTEST
    layers: dict[str, F64] = {}
    grids: dict[str, F64] = {}
    for name, m in quality.metrics.items():
        if m.metric.worse == "either" or m.spread == 0:
            continue
        grids[name] = _grid(m, low, cell, shape)
        before = layers.get(m.level, np.zeros(tuple(shape)))
        layers[m.level] = np.maximum(before, np.clip(np.nan_to_num(grids[name]), 0, MOST_SPREADS))
    if not layers:
        return []
    score = np.where(supported, np.mean(list(layers.values()), axis=0), 0.0)
    found = []
    for at in _peaks(score, n):
        start = low + np.asarray(at) * cell
        box = np.concatenate([start, np.minimum(start + cell, hull[3:])]).tolist()
        why = [(quality.metrics[k].level, k, float(g[at])) for k, g in grids.items() if g[at] >= TELLING]
        if not why:
            continue
        z0, y0, x0, z1, y1, x1 = box
        found.append(Place((z0, y0, x0, z1, y1, x1), float(score[at]), tuple(sorted(why, key=lambda r: -r[2]))))
    return found


def _cell_nm(quality: Quality) -> F64 | None:
    """The size of the commonest cells of the volume (z, y, x) in nm."""
    sizes = [m.boxes[:, 3:] - m.boxes[:, :3] for m in quality.metrics.values() if m.level not in {"L1", "L2"}]
    sizes = sizes or [m.boxes[:, 3:] - m.boxes[:, :3] for m in quality.metrics.values()]
    if not sizes:
        return None
    kinds, count = np.unique(np.round(np.concatenate(sizes), 3), axis=0, return_counts=True)
    return np.asarray(kinds[int(np.argmax(count))], dtype=np.float64)


def _grid(m: Measured, low: F64, cell: F64, shape: I64) -> F64:
    """Badness of a metric per place: of the cells whose middle lies there, the weighted mean; NaN without any."""
    well = m.weight >= LIGHTEST * float(np.median(m.weight))
    flat, inside = _placed(m.boxes[well], low, cell, shape)
    weight = np.maximum(m.weight[well][inside], 1e-12)
    n = int(np.prod(shape))
    mass = np.bincount(flat, weight, minlength=n)
    total = np.bincount(flat, weight * m.badness()[well][inside], minlength=n)
    out = np.divide(total, mass, out=np.full(n, np.nan), where=mass > 0).reshape(tuple(shape))
    return np.asarray(out, dtype=np.float64)


def _placed(boxes: F64, low: F64, cell: F64, shape: I64) -> tuple[I64, npt.NDArray[np.bool_]]:
    """(The place that holds the middle of each box inside the lattice, which boxes these are)."""
    at = np.floor(((boxes[:, :3] + boxes[:, 3:]) / 2 - low) / cell).astype(np.int64)
    inside = np.asarray(((at >= 0) & (at < shape)).all(axis=1), dtype=np.bool_)
    return np.ravel_multi_index(tuple(at[inside].T), tuple(shape)).astype(np.int64), inside


def _support(quality: Quality, low: F64, cell: F64, shape: I64) -> F64:
    """Of what the metrics of a place usually rest on, the part that is there: the median over all metrics."""
    n = int(np.prod(shape))
    every = []
    for m in quality.metrics.values():
        flat, inside = _placed(m.boxes, low, cell, shape)
        total = np.bincount(flat, np.maximum(m.weight[inside], 0), minlength=n)
        usual = float(np.median(total[total > 0])) if (total > 0).any() else 0.0
        if usual:
            every.append(total / usual)
    out: F64 = np.median(every, axis=0).reshape(tuple(shape)) if every else np.zeros(tuple(shape))
    return out


def _peaks(score: F64, n: int) -> list[tuple[int, int, int]]:
    """Places of the highest scores, apart by a cell along z and two in the plane."""
    left = score.copy()
    found: list[tuple[int, int, int]] = []
    while len(found) < n and float(left.max()) > 0:
        z, y, x = (int(k) for k in np.unravel_index(int(np.argmax(left)), left.shape))
        found.append((z, y, x))
        left[max(z - 1, 0) : z + 2, max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3] = -1
    return found


def worst_section(quality: Quality) -> Markup:
    """The worst places, each with the section through its middle and those a cell above and below."""
    places = worst_places(quality)
    if not places:
        return section("worst", "Worst places", tag("p", "Nothing was measured that ranks places."))
    about = (
        "Cells far from the median in the direction that costs quality: per layer the worst metric, in normal spreads, "
        f"at most {MOST_SPREADS:g}; the mean over layers. Some cells are always the worst: this says where to look "
        "first, not that something is wrong. Pictures: the cell is outlined, its neighbours are around it."
    )
    cards = [_card(k, p, quality) for k, p in enumerate(places, 1)]
    return section("worst", "Worst places", tag("p", about), tag("div", *cards, class_="cards"))


def _card(number: int, place: Place, quality: Quality) -> Markup:
    reasons = [
        tag("li", f"{level} {words(metric)}: {spreads:.1f} normal spreads") for level, metric, spreads in place.reasons
    ]
    at = voxel_at(place.box_nm, quality)
    look = [command(view_command(at, quality))] if at else []
    return tag(
        "article",
        tag("h3", f"{number}. Score {place.score:.2f}"),
        tag("p", box_um(place.box_nm), class_="small"),
        thumbnails(quality, place.box_nm),
        tag("ul", *reasons[:6], class_="small"),
        *look,
        class_="card",
    )


def thumbnails(quality: Quality, box_nm: SixNm) -> Markup:
    """Three pictures of a cell and its neighbours: a cell above, through its middle, a cell below."""
    if quality.voxel_nm is None:
        return tag("p", "No image: stage render has no data.", class_="muted small")
    bounds = quality.records["render"]["bounds"]
    lo = [round(box_nm[k] / s) for k, s in enumerate(quality.voxel_nm)]
    hi = [max(round(box_nm[k + 3] / s), lo[k] + 1) for k, s in enumerate(quality.voxel_nm)]
    middle, thick = (lo[0] + hi[0] - 1) // 2, hi[0] - lo[0]
    wanted = [(a - (b - a), b + (b - a)) for a, b in zip(lo[1:], hi[1:], strict=True)]
    window = [(max(a, bounds[k + 1]), min(b, bounds[k + 4])) for k, (a, b) in enumerate(wanted)]
    rim = [(a - w[0], w[1] - b) for a, b, w in ((p[0], p[1], q) for p, q in zip(window, wanted, strict=True))]
    figures = []
    for z in (middle - thick, middle, middle + thick):
        inside = bounds[0] <= z < bounds[3]
        caption = tag("figcaption", f"section {z}" if inside else "outside")
        if not inside:
            figures.append(tag("figure", caption))
            continue
        box = Box((z, window[0][0], window[1][0]), (z + 1, window[0][1], window[1][1]))
        try:
            grey = np.pad(np.asarray(read_box(quality.revision, "render", "image", box)[0]), rim)
        except (ConnectomeError, OSError, ValueError) as e:  # a damaged or absent chunk costs one picture, not the page
            figures.append(tag("figure", tag("figcaption", f"section {z}: cannot be read ({type(e).__name__})")))
            continue
        frame = (lo[1] - wanted[0][0], lo[2] - wanted[1][0], hi[1] - wanted[0][0], hi[2] - wanted[1][0])
        alt = f"Image of section {z}, the cell outlined"
        figures.append(tag("figure", tag("img", src=data_uri(_jpeg(grey, frame), "image/jpeg"), alt=alt), caption))
    return tag("div", *figures, class_="thumbs")


def _jpeg(grey: npt.NDArray[np.generic], frame: tuple[int, int, int, int]) -> bytes:
    """(y, x) grey values 0-255 -> JPEG with a frame (y0, x0, y1, x1), at most about THUMB_PX wide."""
    step = max(1, -(-max(grey.shape) // THUMB_PX))
    rgb = np.repeat(np.asarray(grey[::step, ::step], dtype=np.uint8)[..., None], 3, axis=-1)
    y0, x0, y1, x1 = (v // step for v in frame)
    y1, x1 = min(y1, rgb.shape[0]) - 1, min(x1, rgb.shape[1]) - 1
    for colour, k in (
        ((0, 0, 0), 2),
        ((255, 208, 0), 0),
        ((255, 208, 0), 1),
    ):
        top, left, bottom, right = y0 + k, x0 + k, y1 - k, x1 - k
        rgb[[top, bottom], left : right + 1] = colour
        rgb[top : bottom + 1, [left, right]] = colour
    out = io.BytesIO()
    mpl.image.imsave(out, rgb, format="jpg", pil_kwargs={"quality": 82})
    return out.getvalue()

"""Where a normalised section shows no usable tissue: outside, resin, folds, cracks, blank, low signal.

All criteria are about one plane at a time, of an image whose sections have mean 128 and spread 32 (stage `render`).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]

cv2.setNumThreads(1)

TISSUE, OUTSIDE, RESIN, FOLD, CRACK, BLANK, LOW_SIGNAL = range(7)
CLASSES = ("tissue", "outside", "resin", "fold", "crack", "blank", "low_signal")

SHEATH_GREY = 20.0
"""Myelin is as dark as a fold on one side of its axon and brighter on others, by up to this many grey values."""

_IMMERKAER = np.asarray([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float32)


@dataclass(frozen=True)
class MaskRules:
    """Thresholds; see the parameters of `mask` with the same names."""

    window_px: float
    flat_structure: float
    flat_structure_to_noise: float
    flat_area_px: int
    resin_grey: float
    blank_fraction: float
    fold_grey: float
    fold_width_px: int
    fold_length_px: float
    crack_grey: float
    crack_width_px: int
    crack_length_px: float


def classify_plane(image: U8, rules: MaskRules) -> U8:
    """The class of each pixel of one plane (y, x) uint8, in which 0 is outside."""
    covered = image > 0
    out = np.where(covered, TISSUE, OUTSIDE).astype(np.uint8)
    if not covered.any():
        return out
    grey = fill_outside(image, covered)
    flat = flat_areas(grey, covered, rules)
    if float(flat.sum()) >= rules.blank_fraction * float(covered.sum()):
        out[covered] = BLANK
        return out
    bright = window_mean(grey, rules.window_px / 2) >= rules.resin_grey
    out[flat & bright] = RESIN
    out[flat & ~bright] = LOW_SIGNAL
    soft = cv2.GaussianBlur(grey, (0, 0), 3.0)
    fold = bands(soft <= rules.fold_grey, rules.fold_width_px, rules.fold_length_px)
    fold &= ~sheaths(fold, soft <= rules.fold_grey + SHEATH_GREY)
    crack = bands(cv2.GaussianBlur(grey, (0, 0), 1.5) >= rules.crack_grey, rules.crack_width_px, rules.crack_length_px)
    out[crack & covered] = CRACK
    out[fold & covered] = FOLD
    return out


def fill_outside(image: U8, covered: Bool) -> F32:
    """The image as float with the mean of what is covered elsewhere, so that the border is neither dark nor an edge."""
    grey = image.astype(np.float32)
    grey[~covered] = float(grey[covered].mean())
    return grey


def flat_areas(grey: F32, covered: Bool, rules: MaskRules) -> Bool:
    """Where no structure of membrane size (2 to 10 px) stands out, in areas of at least `flat_area_px` px.

    Structure: local root mean square of a band-pass (Gaussians of 2 and 10 px) over a Gaussian window. It is flat when
    below `flat_structure` grey values, or below `flat_structure_to_noise` times the local noise (Immerkaer 1996): a
    section without tissue is all noise once its contrast has been normalised.
    """
    weight = covered.astype(np.float32)
    seen = np.maximum(window_mean(weight, rules.window_px), 1e-3)

    def local(values: F32) -> F32:
        return np.asarray(window_mean(values * weight, rules.window_px) / seen, dtype=np.float32)

    band = cv2.GaussianBlur(grey, (0, 0), 2.0) - cv2.GaussianBlur(grey, (0, 0), 10.0)
    structure = np.sqrt(local(band * band))
    noise = local(np.abs(cv2.filter2D(grey, cv2.CV_32F, _IMMERKAER))) * np.float32(np.sqrt(np.pi / 2) / 6.0)
    flat = ((structure < rules.flat_structure) | (structure < rules.flat_structure_to_noise * noise)) & covered
    count, labels, stats, _ = cv2.connectedComponentsWithStats(flat.astype(np.uint8), connectivity=4)
    large = np.zeros(count, dtype=np.bool_)
    large[1:] = stats[1:, cv2.CC_STAT_AREA] >= rules.flat_area_px
    return np.asarray(large[labels], dtype=np.bool_)


def window_mean(values: F32, sigma_px: float) -> F32:
    """Gaussian window of large `sigma_px`, computed at a quarter of the resolution."""
    size = (max(values.shape[1] // 4, 1), max(values.shape[0] // 4, 1))
    small = cv2.GaussianBlur(cv2.resize(values, size, interpolation=cv2.INTER_AREA), (0, 0), sigma_px / 4)
    shape = (values.shape[1], values.shape[0])
    return np.asarray(cv2.resize(small, shape, interpolation=cv2.INTER_LINEAR), dtype=np.float32)


def bands(marked: Bool, width_px: int, length_px: float) -> Bool:
    """Marked areas at least `width_px` wide that run on for `length_px`, three times longer than wide.

    An opening with a disc takes away what is thinner (membranes); length and width are four standard deviations of the
    pixels along the principal axes, as of a bar.
    """
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width_px, width_px))
    wide = cv2.morphologyEx(marked.astype(np.uint8), cv2.MORPH_OPEN, disc)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(wide, connectivity=8)
    kept = np.zeros(count, dtype=np.bool_)
    for n in range(1, count):
        x, y, w, h, area = (int(v) for v in stats[n])
        if max(w, h) * 1.5 < length_px or area < width_px * length_px * 0.5:
            continue
        where = np.argwhere(labels[y : y + h, x : x + w] == n).astype(np.float64)
        spread = np.sqrt(np.maximum(np.linalg.eigvalsh(np.cov(where.T)), 0.0))
        # A uniform bar of length L has a standard deviation of L / sqrt(12).
        across, along = (float(v) * np.sqrt(12.0) for v in spread)
        kept[n] = along >= length_px and along >= 3.0 * across
    if not kept.any():
        return np.zeros(marked.shape, dtype=np.bool_)
    # The opening and the blur before it took a little off all around.
    grown = cv2.dilate(kept[labels].astype(np.uint8), np.ones((5, 5), np.uint8))
    return np.asarray(grown > 0, dtype=np.bool_)


def sheaths(found: Bool, dark: Bool) -> Bool:
    """The parts of `found` that belong to a closed ring of `dark`: myelin around an axon, which is no fold.

    A ring encloses at least as much as it covers. A fold runs from border to border and encloses nothing. A ring that
    the plane cuts cannot be told from a fold.
    """
    out = np.zeros(found.shape, dtype=np.bool_)
    if not found.any():
        return out
    _, rings = cv2.connectedComponents(dark.astype(np.uint8), connectivity=8)
    count, parts = cv2.connectedComponents(found.astype(np.uint8), connectivity=8)
    for n in range(1, count):
        part = parts == n
        votes = np.bincount(rings[part])
        if votes.size < 2:
            continue
        ring = rings == 1 + int(votes[1:].argmax())
        area = int(ring.sum())
        if int(ndimage.binary_fill_holes(ring).sum()) >= 2 * area:
            out |= part
    return out

"""What is expected of tiles, their places, the aligned volume and its mask: the measures, without their limits."""

from __future__ import annotations

import numpy as np
import pyarrow.compute as pc

from connectome_db.qa.frames import F64, Frame, Place, Tables
from connectome_db.qa.measures import frame, groups, medians, per_section, per_unit, ratio, sums

DAMAGED = (3, 4, 5, 6)
"""Mask classes that are damage: fold, crack, blank, low signal."""
OUTSIDE = 1


def _per_tile(t: Tables, values: F64) -> Frame:
    tiles = t.rows("tile")

    def place(i: int) -> Place:
        section = t.in_section(int(tiles["section"][i].as_py()))
        return Place(f"tile {tiles['tile'][i].as_py()}", None, section.box_nm)

    return frame(values, place)


def unusable_tiles(t: Tables) -> Frame:
    """Share of each section's tiles that are in `tile_issue`; sections without any tile included."""
    bad, good = t.column("tile_issue", "section"), t.column("tile", "section")
    issues = t.rows("tile_issue")
    lost = np.asarray([p != "duplicate" for p in issues["problem"].to_pylist()], dtype=bool)
    sections, index = groups(np.concatenate([good, bad[lost]]))
    is_bad = np.concatenate([np.zeros(len(good)), np.ones(int(lost.sum()))])
    n = len(sections)
    return per_section(t, sections, ratio(sums(index, is_bad, n), np.bincount(index, minlength=n)))


def tile_valid(t: Tables) -> Frame:
    """Share of valid pixels per tile."""
    return _per_tile(t, t.column("tile", "valid_fraction"))


def tile_saturation(t: Tables) -> Frame:
    """Share of saturated pixels per tile."""
    return _per_tile(t, t.column("tile", "saturation"))


def tile_sharpness(t: Tables) -> Frame:
    """Sharpness per tile over the median of the dataset."""
    sharp = np.asarray(t.column("tile", "sharpness"), dtype=np.float64)
    return _per_tile(t, ratio(sharp, np.full(len(sharp), np.median(sharp) if len(sharp) else 0.0)))


def tile_contrast(t: Tables) -> Frame:
    """Membrane contrast per tile."""
    return _per_tile(t, t.column("tile", "membrane_contrast"))


def tile_noise(t: Tables) -> Frame:
    """Noise per tile over the spread of its grey values."""
    return _per_tile(t, ratio(t.column("tile", "noise"), t.column("tile", "std")))


def section_grey_step(t: Tables) -> Frame:
    """Change of each section's mean grey value from the one before it, in grey values."""
    sections, index = groups(t.column("tile", "section"))
    n = len(sections)
    mean = ratio(sums(index, t.column("tile", "mean"), n), np.bincount(index, minlength=n))
    return per_section(t, sections[1:], np.abs(np.diff(mean)))


def section_gap(t: Tables) -> Frame:
    """Sections that are lost between each section and the one before it."""
    sections = np.unique(t.column("tile", "section")).astype(np.int64)
    return per_section(t, sections[1:], np.diff(sections) - 1)


def tile_matches(t: Tables) -> Frame:
    """Share of tile matches with weight per section; sections of a single tile have none and are left out."""
    sections, index = groups(t.column("tile_match", "section"))
    used = t.column("tile_match", "weight") > 0
    n = len(sections)
    return per_section(t, sections, ratio(sums(index, used, n), np.bincount(index, minlength=n)))


def tile_residual_px(t: Tables) -> Frame:
    """Median residual of the tile matches with weight per section, in px."""
    used = t.column("tile_match", "weight") > 0
    sections, index = groups(t.column("tile_match", "section")[used])
    return per_section(t, sections, medians(index, t.column("tile_match", "residual_px")[used], len(sections)))


def loose_tiles(t: Tables) -> Frame:
    """Share of tiles outside the largest linked group per section."""
    sections, index = groups(t.column("tile_transform", "section"))
    n = len(sections)
    loose = sums(index, t.column("tile_transform", "component") != 0, n)
    return per_section(t, sections, ratio(loose, np.bincount(index, minlength=n)))


def section_matches(t: Tables) -> Frame:
    """Share of accepted matches per pair of sections that follow one another in the data."""
    lower, upper = t.column("section_match", "section_a"), t.column("section_match", "section_b")
    next_to = {a: int(upper[lower == a].min()) for a in np.unique(lower).tolist()}
    near = np.asarray([next_to[a] == b for a, b in zip(lower.tolist(), upper.tolist(), strict=True)], dtype=bool)
    sections, index = groups(upper[near])
    taken = pc.cast(t.rows("section_match")["accepted"], "int8").to_numpy()[near]
    n = len(sections)
    return per_section(t, sections, ratio(sums(index, taken, n), np.bincount(index, minlength=n)))


def section_residual_px(t: Tables) -> Frame:
    """Median length of the residuals that carry weight per section (either side of the match), in px."""
    used = t.column("alignment_residual", "weight") > 0
    y, x = (t.column("alignment_residual", f"residual_{a}_px")[used] for a in "yx")
    both = [t.column("alignment_residual", f"section_{s}")[used] for s in "ab"]
    sections, index = groups(np.concatenate(both))
    return per_section(t, sections, medians(index, np.tile(np.hypot(y, x), 2), len(sections)))


def coverage(t: Tables) -> Frame:
    """Mean coverage of the blocks per section, over the median of the sections."""
    sections, index = groups(t.column("image_plane", "section"))
    n = len(sections)
    mean = ratio(sums(index, t.column("image_plane", "coverage"), n), np.bincount(index, minlength=n))
    return per_section(t, sections, ratio(mean, np.full(n, np.median(mean) if n else 0.0)))


def masked(t: Tables) -> Frame:
    """Share of damage per block, of what lies inside the outline of the sections."""
    units, index = groups(t.column("mask_area", "unit"))
    kind, voxels = t.column("mask_area", "mask_class"), t.column("mask_area", "voxels")
    n = len(units)
    damage = sums(index, voxels * np.isin(kind, DAMAGED), n)
    return per_unit(t, "mask", units, ratio(damage, sums(index, voxels * (kind != OUTSIDE), n)))

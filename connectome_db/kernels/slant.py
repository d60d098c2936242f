"""Keep a stack from leaning: oblique tissue looks like a drift of the sections, and matches cannot tell the two apart.

Neighbouring sections matched to each other follow neurites that run obliquely, a fraction of a pixel per section: an
error that adds up along the stack like a random walk. Stage positions err differently: each section's by itself, but
not more at the end of the stack than at its beginning. The two are weighed as in fixed-
interval smoothing (Rauch, Tung & Striebel 1965): steps between sections are believed to `slant_px`, positions to the
spread that the steps themselves show. Where the stage is far off (unaligned sections), its positions count for nothing.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.linalg import solveh_banded

from connectome_db.kernels.robust import stepped, tukey

F64 = npt.NDArray[np.float64]
_MAD = 1.4826
_ROUNDS = 8
_FLOOR_PX = 0.1
_STEP_PX = 0.25


def stage_spread_px(moves_px: F64) -> float:
    """Standard deviation of sections' stage errors from their moves (S, 2): steps between neighbours carry two each."""
    steps = np.diff(moves_px, axis=0)
    spread = _MAD * np.median(np.abs(steps - np.median(steps, axis=0))) / np.sqrt(2)
    return stepped(float(max(spread, _FLOOR_PX)))


def without_slant(moves_px: F64, slant_px: float) -> F64:
    """Moves (S, 2) of sections in order of z, aligned minus stage, with what oblique tissue adds along z taken out.

    Steps between neighbours change by a fraction of `slant_px`; 0 or fewer than three sections change nothing. A
    section far from all others (a real jump of the stage) is left out by Tukey's weights.
    """
    sections = len(moves_px)
    if slant_px <= 0 or sections < 3:
        return moves_px.copy()
    spread = stage_spread_px(moves_px)
    weight = np.full(sections, 1.0)
    centre = np.median(moves_px, axis=0)
    found = moves_px.copy()
    for _ in range(_ROUNDS):
        centre = np.round(centre / _STEP_PX) * _STEP_PX
        found = _smooth(moves_px, centre, weight / spread**2, 1 / slant_px**2)
        weight = tukey(np.hypot(*(found - centre).T), spread)
        if not weight.any():
            return moves_px.copy()
        centre = (found * weight[:, None]).sum(axis=0) / weight.sum()
    # In whole steps, so that a change in one section does not move all the others by a hair.
    return moves_px + np.round((found - moves_px) / _STEP_PX) * _STEP_PX


def _smooth(moves_px: F64, centre_px: F64, prior: F64, link: float) -> F64:
    """Minimise link * |steps of x - steps of moves|^2 + prior * |x - centre|^2; tridiagonal, one system for y and x."""
    steps = np.diff(moves_px, axis=0)
    diagonal = prior + 1e-12
    diagonal[1:] += link
    diagonal[:-1] += link
    band = np.stack([np.concatenate([[0.0], np.full(len(steps), -link)]), diagonal])
    right = prior[:, None] * centre_px
    right[1:] += link * steps
    right[:-1] -= link * steps
    return np.asarray(solveh_banded(band, right), dtype=np.float64)
